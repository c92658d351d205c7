"""A lab's key in a real MinIO, made by `morphbatch lab policy --apply`, tries to cross the border of its lab."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from services.access.store_policy import apply_to_minio, lab_policy
from services.cli.lab import commands
from services.intake.validation import BadBatchName
from services.settings import Settings, load_settings
from services.storage import ObjectStore, StoreRefused, StoreUnavailable, connect_store
from tests.integration.servers import S3Server


def as_lab(settings: Settings, key: str, secret: str) -> ObjectStore:
    return connect_store(settings.model_copy(update={"s3_access_key": key, "s3_secret_key": SecretStr(secret)}))


def settings_for(minio: S3Server, store: ObjectStore) -> Settings:
    return minio.settings.model_copy(update={"s3_bucket": store.bucket})


def admin(settings: Settings) -> dict[str, str]:
    return {"admin_key": settings.s3_access_key, "admin_secret": settings.s3_secret_key.get_secret_value()}


def test_a_lab_s_key_writes_its_uploads_and_reads_its_results_and_nothing_else(minio: S3Server) -> None:
    service = minio.new_bucket()
    elsewhere = minio.new_bucket()
    settings = settings_for(minio, service)
    made = apply_to_minio(settings, "north", **admin(settings))
    north = as_lab(settings, made.access_key, made.secret_key)
    for key in ("results/north/n-1/report.json", "results/south/n-1/report.json", "releases/r/release.json",
                "incoming/north/n-1/a.jpg", "incoming/south/n-1/a.jpg", "incoming/north-2/n-1/a.jpg"):  # fmt: skip
        service.put(key, b"of the service")

    north.put("incoming/north/n-1/manifest.json", b"{}")
    assert service.get("incoming/north/n-1/manifest.json", max_bytes=9) == b"{}"
    assert north.get("results/north/n-1/report.json", max_bytes=99) == b"of the service"

    crossings: dict[str, Any] = {
        "read another lab's results": lambda: north.get("results/south/n-1/report.json", max_bytes=99),
        "read another lab's uploads": lambda: north.get("incoming/south/n-1/a.jpg", max_bytes=99),
        "read its own uploads": lambda: north.get("incoming/north/n-1/a.jpg", max_bytes=99),
        "write another lab's uploads": lambda: north.put("incoming/south/n-1/a.jpg", b"x"),
        "write a lab's whose name begins alike": lambda: north.put("incoming/north-2/n-1/a.jpg", b"x"),
        "write beside the labs": lambda: north.put("incoming/north", b"x"),
        "write its own results": lambda: north.put("results/north/n-1/report.json", b"x"),
        "write another lab's results": lambda: north.put("results/south/n-1/report.json", b"x"),
        "write a release": lambda: north.put("releases/r/release.json", b"x"),
        "read a release": lambda: north.get("releases/r/release.json", max_bytes=99),
        "delete its uploads": lambda: north.delete("incoming/north/n-1/a.jpg"),
        "delete its results": lambda: north.delete("results/north/n-1/report.json"),
        "list the bucket": lambda: list(north.list("")),
        "list another lab": lambda: list(north.list("results/south/")),
        "copy another lab's results": lambda: north.copy("results/south/n-1/report.json", "incoming/north/n-1/b"),
        "guess a key": lambda: north.get("results/south/n-2/report.json", max_bytes=99),
        "make itself an administrator": lambda: apply_to_minio(
            settings, "south", admin_key=made.access_key, admin_secret=made.secret_key
        ),
    }
    for what, cross in crossings.items():
        with pytest.raises(StoreRefused):
            print(what, cross())  # noqa: T201 - names the one that was not refused
    other = as_lab(settings.model_copy(update={"s3_bucket": elsewhere.bucket}), made.access_key, made.secret_key)
    with pytest.raises(StoreRefused):
        other.put("incoming/north/n-1/a.jpg", b"x")
    assert service.get("incoming/south/n-1/a.jpg", max_bytes=99) == b"of the service"

    again = apply_to_minio(settings, "north", **admin(settings))  # another secret ends the one before
    with pytest.raises(StoreRefused):
        as_lab(settings, made.access_key, made.secret_key).put("incoming/north/n-1/a.jpg", b"x")
    as_lab(settings, again.access_key, again.secret_key).put("incoming/north/n-1/a.jpg", b"x")


def test_who_is_no_administrator_or_no_minio_is_told_so(minio: S3Server, rclone: S3Server) -> None:
    settings = settings_for(minio, minio.new_bucket())
    for used, key in ((settings, "nobody"), (rclone.settings, rclone.settings.s3_access_key)):
        with pytest.raises(StoreRefused, match="administrator"):
            apply_to_minio(used, "north", admin_key=key, admin_secret="not-the-secret")
    with pytest.raises(StoreUnavailable):
        apply_to_minio(settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"}), "north", **admin(settings))
    for lab in ("*", "north/../south", "", "north*"):
        with pytest.raises(BadBatchName):
            lab_policy(lab, "bucket")


def test_the_command_prints_the_policy_and_applies_it(
    minio: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = minio.new_bucket()
    for name, value in {
        "S3_ENDPOINT": minio.settings.s3_endpoint,
        "S3_BUCKET": store.bucket,
        "S3_ACCESS_KEY": "not-the-administrator",
        "S3_SECRET_KEY": "x" * 12,
    }.items():
        monkeypatch.setenv(f"MORPHBATCH_{name}", value)
    load_settings.cache_clear()
    try:
        printed = CliRunner().invoke(commands, ["policy", "north"], catch_exceptions=False)
        assert json.loads(printed.stdout) == lab_policy("north", store.bucket)
        assert "mc admin policy" in printed.stderr
        (tmp_path / "secret").write_text(minio.settings.s3_secret_key.get_secret_value() + "\n")
        asked = ["policy", "north", "--apply", "--admin-key", minio.settings.s3_access_key]
        applied = CliRunner().invoke(
            commands, [*asked, "--admin-secret-file", str(tmp_path / "secret")], catch_exceptions=False
        )
        assert applied.exit_code == 0
        as_lab(settings_for(minio, store), "lab-north", applied.stdout.strip()).put("incoming/north/n/a", b"x")
        role = CliRunner().invoke(commands, ["sql-role", "north"], catch_exceptions=False)
        assert 'create role "lab_north" login in role morphbatch_lab' in role.stdout
    finally:
        load_settings.cache_clear()
