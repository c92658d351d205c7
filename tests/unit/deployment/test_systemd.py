"""deploy/systemd: the commands of the images, closed, with every secret from a file; and right by systemd itself."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from services.production import SECRETS
from services.settings import Settings
from tests.places import CHECKOUT
from tests.unit.deployment.kubernetes import named
from tests.unit.deployment.test_images import IMAGES, stages

UNITS = CHECKOUT / "deploy" / "systemd"
NAMES = ("worker", "control", "beat", "api")
every = pytest.mark.parametrize("name", NAMES)
BIN = "/opt/morphbatch/.venv/bin/"


def settings_of(name: str) -> dict[str, list[str]]:
    """The keys of a unit, of all sections, each with its values."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / f"morphbatch-{name}.service").read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def command_of(name: str) -> list[str]:
    (line,) = settings_of(name)["ExecStart"]
    return shlex.split(line.replace("%%", "%").removeprefix(BIN))


@pytest.mark.parametrize("name", ["worker", "control", "api"])
def test_a_unit_runs_what_the_image_runs(name: str) -> None:
    (said,) = (line for line in stages(IMAGES / "Containerfile")[name][1] if line.startswith("CMD "))
    # A proxy with TLS stands before it on the same machine; in a container the address is the container's own.
    here = [word.replace("127.0.0.1", "0.0.0.0") for word in command_of(name)]  # noqa: S104
    assert here == json.loads(said.removeprefix("CMD "))


def test_beat_s_unit_runs_what_its_pod_runs() -> None:
    (container,) = named("single-clinic", "Deployment", "beat")["spec"]["template"]["spec"]["containers"]
    here = [word.replace("%t/morphbatch-beat", "/run/morphbatch") for word in command_of("beat")]
    assert here == container["command"]


@every
def test_every_secret_is_a_file_that_is_made_up_and_that_only_root_need_read(name: str, tmp_path: Path) -> None:
    subprocess.run([str(CHECKOUT / "deploy" / "secrets"), str(tmp_path)], check=True)
    loaded = dict(value.split(":", 1) for value in settings_of(name)["LoadCredential"])
    assert loaded.keys() == {path.name for path in (tmp_path / "service").iterdir()}
    assert set(loaded) <= set(SECRETS)
    for secret, path in loaded.items():
        assert (tmp_path / Path(path).relative_to("/etc/morphbatch/secrets")).is_file()
        assert f"MORPHBATCH_{secret.upper()}_FILE=%d/{secret}" in settings_of(name)["Environment"]


@every
def test_only_what_the_service_reads_is_set(name: str) -> None:
    lines = (UNITS / "morphbatch.env").read_text(encoding="utf-8").splitlines()
    given = {line.split("=")[0] for line in lines if line and not line.startswith("#")}
    given |= {part.split("=")[0] for value in settings_of(name)["Environment"] for part in value.split()}
    known = {f"MORPHBATCH_{setting.upper()}" for setting in Settings.model_fields}
    known |= {f"MORPHBATCH_{setting.upper()}_FILE" for setting in SECRETS}
    assert {name for name in given if name.startswith("MORPHBATCH_")} <= known


def test_a_slide_at_hand_has_the_time_that_it_has_on_kubernetes() -> None:
    for name in ("worker", "control"):
        pod = named("single-clinic", "Deployment", name)["spec"]["template"]["spec"]
        assert settings_of(name)["TimeoutStopSec"] == [str(pod["terminationGracePeriodSeconds"])]
        assert pod["terminationGracePeriodSeconds"] > Settings.model_fields["soft_shutdown_seconds"].default
        assert settings_of(name)["KillMode"] == ["mixed"]


def analyzed(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze: Debian's package systemd has it")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for name in NAMES:
        unit = f"morphbatch-{name}.service"
        # It wants to see the programs, which are not installed here.
        (tmp_path / unit).write_text((UNITS / unit).read_text(encoding="utf-8").replace(BIN, f"{tmp_path}/"))
    for program in ("celery", "uvicorn"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    done = analyzed("verify", "--man=no", *(str(tmp_path / f"morphbatch-{name}.service") for name in NAMES))
    assert (done.returncode, done.stderr) == (0, "")


@every
def test_systemd_calls_the_unit_closed(name: str) -> None:
    done = analyzed("security", "--offline=true", str(UNITS / f"morphbatch-{name}.service"))
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure, done.stderr
    assert float(exposure[1]) < 2.0  # of 10; an ordinary service has 9.6
