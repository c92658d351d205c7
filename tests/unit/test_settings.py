"""Where the settings of the service come from, and which are refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.errors import ConfigurationError
from services.settings import DEVELOPMENT_SECRET, Settings, load_settings


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"MORPHBATCH_{name.upper()}", raising=False)
    monkeypatch.setenv("MORPHBATCH_HOME", str(tmp_path))
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


def test_the_environment_wins_over_the_stacks_file_and_that_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stack.env").write_text("MORPHBATCH_S3_BUCKET=of-the-file\nMORPHBATCH_API_PORT=8123\n")
    monkeypatch.setenv("MORPHBATCH_API_PORT", "8124")
    settings = load_settings()
    assert (settings.s3_bucket, settings.api_port, settings.max_attempts) == ("of-the-file", 8124, 4)


def test_without_a_home_only_the_environment_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stack.env").write_text("MORPHBATCH_S3_BUCKET=of-the-file\n")
    monkeypatch.delenv("MORPHBATCH_HOME")
    monkeypatch.chdir(tmp_path)
    assert load_settings().s3_bucket == "morphbatch"


@pytest.mark.parametrize("key", ["MORPHBATCH_S3_BUKCET", "MORPHBATCH_TRITON_FORM", "MORPHBATCH_HOME"])
def test_a_key_in_the_stacks_file_that_is_not_a_setting_of_the_service_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "stack.env").write_text(f"{key}=x\n")
    with pytest.raises(ConfigurationError, match=key.removeprefix("MORPHBATCH_").lower()):
        load_settings()


SAFE = {
    "database_url": "postgresql+psycopg2://morphbatch_service:cq7Jw2v0@db:5432/morphbatch",
    "migration_url": "postgresql+psycopg2://morphbatch_owner:tK4m9Zzp@db:5432/morphbatch",
    "analyst_url": "postgresql+psycopg2://db/morphbatch?user=morphbatch_analyst&password=u81Lx5qe",
    "broker_url": "redis://:bX0p3nVa@redis:6379/0",
    "s3_access_key": "AKIA7Q2LEXAMPLE",
    "s3_secret_key": "9vYw6kHs",
    "webhook_token": "e5Rt1oGd",
}
OPTIONAL = ("migration_url", "analyst_url")


def unsafe_values(setting: str) -> dict[str, str | None]:
    """What production refuses for a setting, by what is wrong with it; None: it is not set."""
    missing: dict[str, str | None] = {} if setting in OPTIONAL else {"is not set": None}
    if setting == "broker_url":
        return {
            **missing,
            "is empty": "",
            "has no password": "redis://redis:6379/0",
            "has a password that everybody knows": "redis://:foobared@redis:6379/0",
            "is not a URL": "redis://[redis:6379/0",
        }
    if setting.endswith("_url"):
        return {
            **missing,
            "is empty": " ",
            "has no password": "postgresql+psycopg2://morphbatch_service:@db/morphbatch",
            "has a password that everybody knows": "postgresql+psycopg2://morphbatch_x:morphbatch%5Fx@db/morphbatch",
        }
    return {**missing, "is empty": "", "is one that everybody knows": "minioadmin"}


@pytest.fixture
def production(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of an installation whose secrets are its own."""
    monkeypatch.setenv("MORPHBATCH_ENVIRONMENT", "production")
    for name, value in SAFE.items():
        monkeypatch.setenv(f"MORPHBATCH_{name.upper()}", value)
    return monkeypatch


@pytest.mark.usefixtures("production")
def test_production_takes_secrets_of_its_own() -> None:
    assert load_settings().environment == "production"


@pytest.mark.parametrize(
    ("setting", "fault", "value"),
    [(setting, fault, value) for setting in SAFE for fault, value in unsafe_values(setting).items()],
)
def test_production_refuses_a_secret_that_is_none_and_says_what_to_do(
    setting: str, fault: str, value: str | None, production: pytest.MonkeyPatch
) -> None:
    variable = f"MORPHBATCH_{setting.upper()}"
    if value is None:
        production.delenv(variable)
    else:
        production.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"in production: {variable} {fault}: (give|make|set)") as refused:
        load_settings()
    said = str(refused.value)
    assert said.count("MORPHBATCH_") == 2  # `MORPHBATCH_*`, which says where settings are looked for, and this one
    assert not value or not value.strip() or value not in said


def test_production_refuses_the_development_secret_wherever_it_is(production: pytest.MonkeyPatch) -> None:
    for setting in SAFE:
        value = f"redis://:{DEVELOPMENT_SECRET}@redis/0" if setting.endswith("_url") else DEVELOPMENT_SECRET
        production.setenv(f"MORPHBATCH_{setting.upper()}", value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert [setting for setting in SAFE if f"MORPHBATCH_{setting.upper()} " not in str(refused.value)] == []
    assert DEVELOPMENT_SECRET not in str(refused.value)


def test_the_settings_show_no_secret(production: pytest.MonkeyPatch) -> None:
    shown = repr(load_settings())
    assert [value for value in SAFE.values() if value in shown] == []


@pytest.mark.parametrize("setting", SAFE)
def test_a_secret_may_come_from_a_file(setting: str, tmp_path: Path, production: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SAFE[setting]}\n")
    production.delenv(f"MORPHBATCH_{setting.upper()}")
    production.setenv(f"MORPHBATCH_{setting.upper()}_FILE", str(file))
    (tmp_path / "stack.env").write_text(f"MORPHBATCH_{setting.upper()}=of-the-stack\n")
    value = getattr(load_settings(), setting)
    assert (value if isinstance(value, str) else value.get_secret_value()) == SAFE[setting]


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (None, "No such file or directory"),
        (b"one\ntwo\n", "alone, on one line"),
        (b"\xff\xfe", "is not a text file"),
        (b"", "MORPHBATCH_WEBHOOK_TOKEN is empty"),
    ],
)
def test_a_secrets_file_that_holds_none_is_refused_by_its_name(
    content: bytes | None, wrong: str, tmp_path: Path, production: pytest.MonkeyPatch
) -> None:
    production.delenv("MORPHBATCH_WEBHOOK_TOKEN")
    production.setenv("MORPHBATCH_WEBHOOK_TOKEN_FILE", str(tmp_path / "token"))
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"MORPHBATCH_WEBHOOK_TOKEN(.*){wrong}|{wrong}"):
        load_settings()


def test_a_secret_that_is_given_twice_is_refused(tmp_path: Path, production: pytest.MonkeyPatch) -> None:
    production.setenv("MORPHBATCH_BROKER_URL_FILE", str(tmp_path / "broker"))
    with pytest.raises(ConfigurationError, match="MORPHBATCH_BROKER_URL and MORPHBATCH_BROKER_URL_FILE are both set"):
        load_settings()
