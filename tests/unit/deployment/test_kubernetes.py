"""deploy/kubernetes: right by the schemas, closed as "restricted" asks, and true to what the service reads."""

import copy
import subprocess
from pathlib import Path

import pytest

from services.production import SECRETS
from services.settings import Settings
from tests.places import CHECKOUT
from tests.unit.deployment.kubernetes import OVERLAYS, containers, faults, named, pods, rendered

every = pytest.mark.parametrize("overlay", OVERLAYS)


@every
def test_every_document_fits_its_schema(overlay: str) -> None:
    for document in rendered(overlay):
        assert faults(document) == [], document["metadata"]["name"]


def test_a_wrong_document_would_be_seen() -> None:
    worker = named("single-clinic", "Deployment", "worker")
    scaled = named("single-clinic", "ScaledObject", "worker")
    for document, path in ((worker, ("spec", "template", "spec")), (scaled, ("spec",)), (worker, ("metadata",))):
        wrong = copy.deepcopy(document)
        place = wrong
        for step in path:
            place = place[step]
        place["nonsense"] = 1
        assert any("nonsense" in fault for fault in faults(wrong))
    wrong = copy.deepcopy(worker)
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = "long"
    assert faults(wrong)


@every
def test_every_pod_is_restricted_and_limited(overlay: str) -> None:
    for name, pod in pods(overlay):
        whole = pod["spec"]["securityContext"]
        assert whole["runAsNonRoot"], name
        assert whole["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        assert not any("hostPath" in volume for volume in pod["spec"]["volumes"]), name
        for container in containers(pod):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["readOnlyRootFilesystem"], name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert own.get("runAsUser") or whole.get("runAsUser"), name
            assert container["resources"]["limits"]["memory"], name
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name


@every
def test_every_pod_that_stays_is_probed(overlay: str) -> None:
    for name, pod in pods(overlay):
        for container in pod["spec"]["containers"]:
            if name.startswith("Deployment") and container["name"] != "tools":  # which does nothing
                assert container.keys() >= {"startupProbe", "livenessProbe"}, name


@every
def test_a_pod_deleted_while_it_starts_ends(overlay: str) -> None:
    for name in ("worker", "control", "beat", "tools"):
        pod = named(overlay, "Deployment", name)["spec"]["template"]
        # A first process that handles no SIGTERM yet is not ended by it.
        assert pod["spec"]["shareProcessNamespace"] is True, name


@every
def test_only_what_the_service_reads_is_set(overlay: str) -> None:
    known = {f"MORPHBATCH_{setting.upper()}" for setting in Settings.model_fields}
    known |= {f"MORPHBATCH_{setting.upper()}_FILE" for setting in SECRETS}
    given = set(named(overlay, "ConfigMap", "morphbatch")["data"])
    given |= {
        variable["name"] for _, pod in pods(overlay) for part in containers(pod) for variable in part.get("env", [])
    }
    assert given - known <= {"XDG_CACHE_HOME"}


@every
def test_no_secret_is_in_a_variable_or_in_the_configuration(overlay: str) -> None:
    for _, pod in pods(overlay):
        for container in containers(pod):
            for variable in container.get("env", []):
                assert "valueFrom" not in variable
            assert all("secretRef" not in source for source in container.get("envFrom", []))
    assert not any(document["kind"] == "Secret" for document in rendered(overlay))


@every
def test_every_secret_is_one_that_is_made_up(overlay: str, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    subprocess.run([str(CHECKOUT / "deploy" / "secrets"), str(folder)], check=True)
    made = {path.name: {key.name for key in path.iterdir()} for path in folder.iterdir()}
    configuration = named(overlay, "ConfigMap", "morphbatch")["data"]
    for name, pod in pods(overlay):
        for volume in pod["spec"]["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["secretName"].removeprefix("morphbatch-") in made, name
        for container in containers(pod):
            files = {key: value for key, value in configuration.items() if key.endswith("_FILE")}
            files |= {entry["name"]: entry["value"] for entry in container.get("env", []) if entry["name"] in SECRETS}
            for path in files.values():
                assert Path(path).name in made[Path(path).parent.name]
    (parameter,) = named(overlay, "TriggerAuthentication", "morphbatch-scaler")["spec"]["secretTargetRef"]
    assert parameter["key"] in made["scaler"]


def test_a_secret_that_is_there_is_kept(tmp_path: Path) -> None:
    command = [str(CHECKOUT / "deploy" / "secrets"), str(tmp_path)]
    kept = []
    for _ in range(2):
        subprocess.run(command, check=True)
        kept.append({path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()})
    assert kept[0] == kept[1]
    assert len(set(kept[0].values())) == len(kept[0])
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept[0])


@every
def test_the_scaler_decides_how_many_workers_there_are(overlay: str) -> None:
    assert "replicas" not in named(overlay, "Deployment", "worker")["spec"]
    scaled = named(overlay, "ScaledObject", "worker")["spec"]
    assert scaled["minReplicaCount"] == 0
    asked = scaled["triggers"][0]["metadata"]
    assert "operations.workers_wanted" in asked["query"]
    assert asked["targetQueryValue"] == "1"  # it says how many workers, not how much work


@every
def test_beat_is_one_and_never_two_by_a_rollout(overlay: str) -> None:
    spec = named(overlay, "Deployment", "beat")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


@every
def test_metrics_are_no_part_of_the_ingress(overlay: str) -> None:
    (rule,) = named(overlay, "Ingress", "api")["spec"]["rules"]
    assert {path["path"]: path["pathType"] for path in rule["http"]["paths"]} == {
        "/v1": "Prefix",
        "/events/object-created": "Exact",
        "/health/live": "Exact",
    }


@every
def test_each_pod_may_reach_what_it_needs_and_is_closed_otherwise(overlay: str) -> None:
    closed = named(overlay, "NetworkPolicy", "nothing-else")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (to_stores,) = named(overlay, "NetworkPolicy", "to-stores")["spec"]["podSelector"]["matchExpressions"]
    stores = {"postgres", "redis", "minio"}
    labelled = {pod["metadata"]["labels"]["app"] for _, pod in pods(overlay)}
    assert labelled - stores - {"bucket"} <= set(to_stores["values"])
    if "bucket" in labelled:
        assert named(overlay, "NetworkPolicy", "bucket")["spec"]["podSelector"] == {"matchLabels": {"app": "bucket"}}
        (from_ours,) = named(overlay, "NetworkPolicy", "stores")["spec"]["ingress"][0]["from"][0][
            "podSelector"
        ].values()
        assert from_ours[0]["values"] == [*to_stores["values"], "bucket"]


@every
def test_pods_of_one_label_are_of_one_kind(overlay: str) -> None:
    # `kubectl exec deployment/tools` must not meet the pod of a Job, and a disruption budget not that of another.
    labels = [pod["metadata"]["labels"]["app"] for _, pod in pods(overlay)]
    assert len(set(labels)) == len(labels)


def test_a_bucket_of_our_own_keeps_what_is_overwritten() -> None:
    (container,) = named("single-clinic", "Job", "bucket")["spec"]["template"]["spec"]["containers"]
    assert "store.keep_versions()" in container["command"][-1]


def test_the_overlay_of_the_cluster_test_fits_too() -> None:
    for document in rendered(str(CHECKOUT / "tests" / "cluster" / "overlay")):
        assert faults(document) == [], document["metadata"]["name"]
