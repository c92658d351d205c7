"""deploy/compose.yaml: as Compose's own schema wants it, with images that are built here and stages that there are."""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.places import CHECKOUT
from tests.unit.deployment.kubernetes import named
from tests.unit.deployment.test_images import IMAGES, stages

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "morphbatch" / "schemas"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file."""
    read: dict[str, Any] = yaml.safe_load((CHECKOUT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    return read


def test_compose_s_schema_takes_it(compose: dict[str, Any]) -> None:
    schema = CACHE / "compose-spec.json"
    if not schema.exists():
        pytest.skip("no schema: `make schemas` fetches it (needs Go)")
    jsonschema.validate(compose, json.loads(schema.read_text(encoding="utf-8")))


def test_every_image_is_built_of_a_stage_that_there_is(compose: dict[str, Any]) -> None:
    services = compose["services"].values()
    assert {service["image"] for service in services} == {
        service["image"] for service in services if "build" in service
    }
    for build in (service["build"] for service in services if "build" in service):
        file = CHECKOUT / build["dockerfile"]
        assert file.is_file()
        assert file.parent == IMAGES
        assert build.get("target") in {None, *stages(file)}


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_profile_starts_one_of_everything(compose: dict[str, Any], profile: str) -> None:
    started = {name for name, service in compose["services"].items() if profile in service.get("profiles", [profile])}
    assert {"postgres", "redis", "minio", "migrate", "release", "api", "worker", "control", "beat"} <= started
    assert {name for name in started if name.startswith("triton-")} == {f"triton-{profile}"}
    for name in started:
        assert set(compose["services"][name].get("depends_on", {})) <= started
        assert compose["services"][name]["read_only"]
        assert compose["services"][name]["cap_drop"] == ["ALL"]


def test_a_container_that_is_stopped_while_it_starts_ends(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name not in (
            "postgres",
            "redis",
            "minio",
            "triton-cpu",
            "triton-gpu",
        ):  # servers that handle it from the start
            assert service["init"] is True, name


def test_the_bucket_is_made_as_on_kubernetes(compose: dict[str, Any]) -> None:
    (container,) = named("single-clinic", "Job", "bucket")["spec"]["template"]["spec"]["containers"]
    assert compose["services"]["bucket"]["command"] == container["command"]
