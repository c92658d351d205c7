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


@pytest.mark.parametrize("name", ["s3_secret_key", "webhook_token"])
@pytest.mark.parametrize("given", ["named", "left to the default"])
def test_the_development_secret_is_refused_in_production(
    name: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORPHBATCH_ENVIRONMENT", "production")
    for secret in {"s3_secret_key", "webhook_token"} - {name}:
        monkeypatch.setenv(f"MORPHBATCH_{secret.upper()}", "a secret of its own")
    if given == "named":
        monkeypatch.setenv(f"MORPHBATCH_{name.upper()}", DEVELOPMENT_SECRET)
    with pytest.raises(ConfigurationError, match=f"production: {name}"):
        load_settings()
    load_settings.cache_clear()
    monkeypatch.setenv(f"MORPHBATCH_{name.upper()}", "another of its own")
    assert load_settings().environment == "production"
