"""Tokens of labs: what is kept of them, who is let in by one, and until when."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from services.access import verifying
from services.access.scopes import Scope
from services.access.tokens import (
    BadToken,
    Issued,
    TokenNotUsable,
    UnknownLab,
    UnknownToken,
    add_lab,
    issue_token,
    revoke_token,
    rotate_token,
    split_token,
    tokens,
)
from services.access.verifying import (
    ScopeMissing,
    TokenExpired,
    TokenRefused,
    TokenRevoked,
    TokenVerifier,
)
from services.cli.lab import commands
from services.database.session import transaction
from services.intake.validation import BadBatchName
from services.settings import load_settings


@pytest.fixture
def verifier(database: Engine) -> TokenVerifier:
    add_lab(database, "north", by="anna")
    return TokenVerifier(database)


def issued(engine: Engine, *scopes: Scope, lab: str = "north") -> Issued:
    return issue_token(engine, lab, name="LIMS", scopes=list(scopes or Scope), days=30, by="anna")


def events(engine: Engine) -> list[tuple[str, dict[str, Any]]]:
    with transaction(engine) as session:
        return [tuple(row) for row in session.execute(text("select kind, detail from audit_event order by id"))]


def test_a_token_opens_what_its_scopes_say_and_its_secret_is_nowhere(database: Engine, verifier: TokenVerifier) -> None:
    token = issued(database, Scope.UPLOAD, Scope.READ)
    caller = verifier.verify(token.text)
    assert (caller.lab, caller.token_id, caller.scopes) == ("north", token.token_id, {Scope.UPLOAD, Scope.READ})
    caller.require(Scope.READ)
    with pytest.raises(ScopeMissing, match="administer"):
        caller.require(Scope.ADMINISTER)
    _, secret = split_token(token.text) or ("", "")
    assert len(secret) == 43
    with transaction(database) as session:
        kept = session.execute(text("select api_token::text from api_token")).scalar_one()
    assert "$argon2id$" in kept
    assert secret not in kept
    assert secret not in json.dumps(events(database))
    assert secret not in repr(tokens(database))


@pytest.mark.parametrize(
    "changed",
    [
        lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
        lambda text: text[:-1],
        lambda text: text + "x",
        lambda text: text.replace("mbt_", "mbt", 1),
        lambda text: "mbt_aaaaaaaaaa_" + text.rpartition("_")[2],
        lambda text: text.rpartition("_")[0] + "_",
        lambda text: "",
        lambda text: "mbt__",
        lambda text: text + "\0",
        lambda text: "mbt_\0_x",
    ],
)
def test_what_is_not_the_token_is_refused(
    database: Engine, verifier: TokenVerifier, changed: Callable[[str], str]
) -> None:
    token = issued(database)
    verifier.verify(token.text)
    with pytest.raises(TokenRefused):
        verifier.verify(changed(token.text))
    verifier.verify(token.text)


def test_the_hash_is_checked_once_for_a_token_and_each_time_for_a_wrong_one(
    database: Engine, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Counting:
        def verify(self, kept: str, secret: str) -> bool:
            asked.append(secret)
            return original.verify(kept, secret)

    original = verifying.HASHER
    monkeypatch.setattr(verifying, "HASHER", Counting())
    token = issued(database)
    for _ in range(5):
        verifier.verify(token.text)
    assert len(asked) == 1
    for _ in range(2):
        with pytest.raises(TokenRefused):
            verifier.verify(token.text + "x")
    assert len(asked) == 3


def test_a_revoked_token_is_refused_from_the_next_request_on(database: Engine, verifier: TokenVerifier) -> None:
    token, other = issued(database), issued(database)
    verifier.verify(token.text)
    revoke_token(database, token.token_id, by="bert")
    with pytest.raises(TokenRevoked, match=token.token_id):
        verifier.verify(token.text)
    verifier.verify(other.text)
    for call in (revoke_token, lambda *a, **k: rotate_token(*a, overlap_hours=1, days=1, **k)):
        with pytest.raises(TokenNotUsable, match="revoked"):
            call(database, token.token_id, by="bert")  # type: ignore[operator]
    assert events(database)[-1] == ("token_revoked", {"lab": "north", "token": token.token_id, "by": "bert"})


def test_a_token_ends_at_its_time(database: Engine, verifier: TokenVerifier) -> None:
    token = issued(database)
    verifier.verify(token.text)
    with transaction(database) as session:
        session.execute(text("update api_token set expires_at = now() - interval '1 second'"))
    with pytest.raises(TokenExpired):
        verifier.verify(token.text)
    with pytest.raises(TokenRefused, match="not known"):  # whoever lacks the secret learns nothing of it
        verifier.verify(token.text + "x")
    assert tokens(database)[0].state == "expired"


def test_a_rotated_token_has_the_same_scopes_and_the_old_one_ends_after_the_overlap(
    database: Engine, verifier: TokenVerifier
) -> None:
    old = issued(database, Scope.READ)
    new = rotate_token(database, old.token_id, overlap_hours=2, days=90, by="bert")
    assert verifier.verify(new.text).scopes == verifier.verify(old.text).scopes == {Scope.READ}
    rows = {row.token_id: row for row in tokens(database, "north")}
    left = rows[old.token_id].expires_at - rows[old.token_id].now
    assert 7190 < left.total_seconds() <= 7200
    assert rows[new.token_id].replaces == old.token_id
    last = rotate_token(database, new.token_id, overlap_hours=0, days=90, by="bert")
    with pytest.raises(TokenExpired):
        verifier.verify(new.text)
    verifier.verify(last.text)
    rotate_token(database, old.token_id, overlap_hours=2000, days=90, by="bert")
    assert tokens(database)[0].expires_at == rows[old.token_id].expires_at  # an overlap lengthens nothing


def test_what_cannot_be_issued_is_refused(database: Engine, verifier: TokenVerifier) -> None:
    with pytest.raises(UnknownLab, match="lab add south"):
        issued(database, lab="south")
    for change in (
        {"scopes": []},
        {"days": 0},
        {"days": 4000},
        {"name": " "},
        {"name": "x\n"},
        {"name": "Anna Schmidt"},
    ):
        given: dict[str, Any] = {"name": "LIMS", "scopes": [Scope.READ], "days": 1, **change}
        with pytest.raises(BadToken):
            issue_token(database, "north", by="anna", **given)
    with pytest.raises(UnknownToken):
        revoke_token(database, "nothing", by="anna")
    with pytest.raises(BadBatchName):
        add_lab(database, "Anna Schmidt", by="anna")
    assert tokens(database) == []


@pytest.fixture
def lab(database: Engine, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MORPHBATCH_DATABASE_URL", database.url.render_as_string(hide_password=False))
    load_settings.cache_clear()

    def run(*arguments: str) -> Result:
        done = CliRunner().invoke(commands, list(arguments), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done

    yield run
    load_settings.cache_clear()


def test_the_commands_from_a_new_lab_to_a_revoked_token(database: Engine, lab: Any) -> None:
    assert "is on record" in lab("add", "north").stdout
    assert json.loads(lab("add", "north", "--json").stdout) == {"lab": "north", "added": False}
    printed = lab("token", "north", "--name", "LIMS", "--scope", "read", "--scope", "upload")
    text_of_it = printed.stdout.strip()
    assert TokenVerifier(database).verify(text_of_it).scopes == {Scope.READ, Scope.UPLOAD}
    assert "not shown again" in printed.stderr
    [row] = json.loads(lab("tokens", "--json").stdout)
    assert row["state"] == "valid"
    new = json.loads(lab("rotate", row["token"], "--overlap-hours", "0", "--json").stdout)
    with pytest.raises(TokenExpired):
        TokenVerifier(database).verify(text_of_it)
    lab("revoke", new["token"])
    with pytest.raises(TokenRevoked):
        TokenVerifier(database).verify(new["text"])
    assert lab("tokens", "south", "--json").stdout.strip() == "[]"
    assert [kind for kind, _ in events(database)] == ["lab_added", "token_issued", "token_issued", "token_revoked"]
