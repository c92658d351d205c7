"""The settings of the embedded stack, and the service's settings that point at one."""

from pathlib import Path

import pytest

from services.local.installation import ANALYST, OWNER, SERVICE, Installation
from services.local.settings import home, load_local_settings, settings_of

PORTS = {name: 20_000 + number for number, name in enumerate(("postgres", "redis", "s3", "triton_grpc", "api"))}
SECRETS = {name: f"secret-of-{name}" for name in (SERVICE, OWNER, ANALYST, "redis", "s3", "webhook")}


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path, PORTS, SECRETS, "rclone")


def test_the_services_settings_point_at_the_installation(installation: Installation) -> None:
    settings = settings_of(installation)
    assert settings.database_url == _url_of("morphbatch_service")
    assert settings.migration_url == _url_of("morphbatch_owner")
    assert settings.analyst_url == _url_of("morphbatch_analyst")
    assert settings.s3_secret_key.get_secret_value() == "secret-of-s3"
    assert settings.api_port == 20004


def _url_of(role: str) -> str:
    return f"postgresql+psycopg2://{role}:secret-of-{role}@127.0.0.1:20000/morphbatch"


def test_the_environment_of_a_process_wins_as_it_does_there(installation: Installation) -> None:
    environment = {"MORPHBATCH_API_PORT": "1", "MORPHBATCH_TRITON_FORM": "of the stack", "PATH": "/bin"}
    assert settings_of(installation, environment).api_port == 1


def test_the_home_is_the_folder_named_whole_and_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MORPHBATCH_HOME", "~/night")
    assert home() == tmp_path / "night"


def test_what_only_the_stack_reads_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPHBATCH_TRITON_FORM", "openvino-int8")
    assert load_local_settings().triton_form == "openvino-int8"
