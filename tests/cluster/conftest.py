"""The overlay of a single clinic on a real cluster, and a drawn night for each test, uploaded with a LIMS's own key.

Needs a cluster that kubectl points at, with KEDA and the images of `make images`; it makes the namespace `morphbatch`
and removes it. Only `make cluster-test` runs this: the cluster may be one that others use.
"""

import copy
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import yaml
from minio import MinioAdmin
from minio.credentials import StaticProvider
from pydantic import SecretStr
from sqlalchemy import Engine, make_url

from services.database.session import make_engine
from services.settings import Settings
from services.smears.batch import BatchSpec, write_batch
from services.smears.field import FieldSpec
from services.storage import ObjectStore, connect_store
from tests.cluster.kubectl import NAMESPACE, Api, forwarded, here, kubectl, proxied
from tests.cluster.picture import draw
from tests.cluster.record import Outcome, Record, Watch
from tests.drawn_night import Night, with_own_manifest
from tests.places import CHECKOUT

FOLDER: Final = CHECKOUT / "tests" / "cluster"
RESULTS: Final = CHECKOUT / "runs" / "cluster"
LAB: Final = "clinic"
SLIDES: Final = 16
"""More than three workers' worth: the scaler takes one for four slides, and at most three."""
DRAWN: Final = 3
FIELDS: Final = 16
"""So many that a night lasts longer than workers take to come."""
PATIENCE_S: Final = 1500


@dataclass(frozen=True, slots=True)
class Cluster:
    """An installation that runs, and what is written down about it."""

    api: Api
    engine: Engine
    lims: ObjectStore
    record: Record


def say(what: str) -> None:
    sys.stdout.write(f"cluster-test: {what}\n")
    sys.stdout.flush()


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The overlay, installed as docs/kubernetes.md says; the folder of its secrets. Left there after a failure."""
    if not os.environ.get("MORPHBATCH_CLUSTER_TEST"):
        pytest.skip("it changes the cluster that kubectl points at: `make cluster-test` runs it")
    assert shutil.which("kubectl"), "kubectl is missing"
    kubectl("get", "crd", "scaledobjects.keda.sh")
    there = kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "--output", "name")
    assert not there, f"there is a namespace {NAMESPACE}: an installation, or what an earlier run left; remove it first"
    began = time.monotonic()
    without_class = "true" not in kubectl(
        *("get", "storageclass", "--output"),
        r"jsonpath={.items[*].metadata.annotations.storageclass\.kubernetes\.io/is-default-class}",
    )
    if without_class:
        empty_folders()
        kubectl("apply", "--filename", str(FOLDER / "volumes.yaml"))
    folder = tmp_path_factory.mktemp("installation") / "secrets"
    subprocess.run([str(CHECKOUT / "deploy" / "secrets"), str(folder)], check=True)
    kubectl("apply", "--filename", str(CHECKOUT / "deploy" / "kubernetes" / "base" / "namespace.yaml"))
    for part in ("service", "owner", "analyst", "scaler", "stores"):
        here("create", "secret", "generic", f"morphbatch-{part}", f"--from-file={folder / part}")
    kubectl("apply", "--kustomize", str(FOLDER / "overlay"))
    for name in ("postgres", "minio", "redis", "api", "control", "beat", "tools", "triton"):
        here("rollout", "status", f"deployment/{name}", "--timeout", "15m", seconds=1000)
    say(f"installed in {time.monotonic() - began:.0f} s")
    yield folder
    if request.session.testsfailed:
        say(f"the namespace {NAMESPACE} is left as it is; `kubectl delete namespace {NAMESPACE}` removes it")
        return
    kubectl("delete", "namespace", NAMESPACE, "--timeout", "10m", seconds=700)
    if without_class:
        kubectl("delete", "--filename", str(FOLDER / "volumes.yaml"))
        empty_folders()


def empty_folders() -> None:
    """Make or empty the folders of the node in which the stores keep their data."""
    pod = FOLDER / "folders.yaml"
    kubectl("apply", "--filename", str(pod))
    name = yaml.safe_load(pod.read_text(encoding="utf-8"))["metadata"]["name"]
    kubectl(
        "--namespace", "default", "wait", f"pod/{name}", "--for", "jsonpath={.status.phase}=Succeeded", "--timeout=2m"
    )
    kubectl("delete", "--filename", str(pod))


@pytest.fixture(scope="session")
def cluster(installed: Path) -> Iterator[Cluster]:
    """The installation with a way to its API, its Postgres and its object store; looked at each second from now on."""
    record = Record()
    with ExitStack() as ways:
        api = Api(f"http://127.0.0.1:{ways.enter_context(proxied())}")
        url = make_url((installed / "service" / "database_url").read_text())
        port = ways.enter_context(forwarded("postgres", 5432))
        engine = make_engine(url.set(host="127.0.0.1", port=int(port)).render_as_string(hide_password=False))
        ways.callback(engine.dispose)
        port = ways.enter_context(forwarded("minio", 9000))
        lims = store_of_a_lims(f"127.0.0.1:{port}", installed / "service")
        watch = Watch(record, api, engine)
        watch.start()
        ways.callback(watch.stop)
        yield Cluster(api, engine, lims, record)
        watch.stop()
        record.write(RESULTS)
        draw(record.as_json()).save(RESULTS / "replicas.png", optimize=True)
        say(f"{RESULTS}: record.json, disturbances.md, replicas.png")


def store_of_a_lims(address: str, service: Path) -> ObjectStore:
    """The bucket by a key that may write below incoming/LAB/ and read below results/LAB/ only."""
    root = StaticProvider((service / "s3_access_key").read_text(), (service / "s3_secret_key").read_text())
    admin = MinioAdmin(endpoint=address, credentials=root, secure=False)
    user, password = f"lims-{LAB}", secrets.token_hex(24)
    bucket = "arn:aws:s3:::morphbatch"
    allowed = [
        {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": [f"{bucket}/incoming/{LAB}/*"]},
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{bucket}/results/{LAB}/*"]},
    ]
    admin.user_add(user, password)
    admin.policy_add(user, policy={"Version": "2012-10-17", "Statement": allowed})
    admin.attach_policy([user], user=user)
    return connect_store(
        Settings(
            environment="development",
            s3_endpoint=f"http://{address}",
            s3_access_key=user,
            s3_secret_key=SecretStr(password),
        )
    )


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slides of every night: some are drawn, the others show the same fields as slides of other specimens."""
    folder = tmp_path_factory.mktemp("drawn") / "night"
    spec = BatchSpec(field=FieldSpec(um_per_px=0.12, cells=8))
    write_batch(folder, slides=DRAWN, fields_per_slide=FIELDS, seed=11, spec=spec)
    manifest = json.loads((folder / "manifest.json").read_text())
    truth = [json.loads(line) for line in (folder / "truth.jsonl").read_text().splitlines()]
    for number in range(DRAWN, SLIDES):
        as_in, name = f"slide-{number % DRAWN + 1:02d}", f"slide-{number + 1:02d}"
        (folder / name).symlink_to(folder / as_in)
        slide = copy.deepcopy(manifest["slides"][number % DRAWN])
        slide |= {"slide_id": name, "specimen": f"specimen-{number + 1}", "replicate": 1}
        for given in slide["fields"]:
            given["key"] = given["key"].replace(as_in, name)
        manifest["slides"].append(slide)
        truth += [{**seen, "image": seen["image"].replace(as_in, name)} for seen in truth if as_in in seen["image"]]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "truth.jsonl").write_text("".join(f"{json.dumps(seen)}\n" for seen in truth))
    return folder


@dataclass(slots=True)
class Disturbed:
    """The night of one test: uploaded, disturbed by the test, then compared with the truth and written down."""

    cluster: Cluster
    night: Night
    began: float = 0.0

    def upload(self) -> None:
        """As the LIMS does."""
        self.began = time.monotonic()
        self.night.upload()

    def disturb(self, what: str) -> None:
        """The next line of the test does this."""
        say(f"{self.night.batch}: {what}")
        self.cluster.record.event(what)

    def finish(self, seen: str, disturbance: str) -> list[int]:
        """Wait for its end, compare it with the truth; the attempts at each slide."""
        self.night.finish(PATIENCE_S, every_s=1)
        attempts = sorted(self.night.attempts().values())
        outcome = Outcome(
            disturbance,
            seen,
            time.monotonic() - self.began,
            len(attempts),
            sum(map(len, self.night.truth.values())),
            sum(attempts),
            attempts[-1],
        )
        assert len(attempts) == SLIDES
        self.cluster.record.outcomes.append(outcome)
        self.cluster.record.write(RESULTS)  # also of a run that fails later
        say(f"{self.night.batch}: {outcome}")
        return attempts


@pytest.fixture
def night(cluster: Cluster, drawn: Path, request: pytest.FixtureRequest) -> Disturbed:
    """A night that nobody has uploaded yet, called after the test."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:50]
    folder = with_own_manifest(drawn, drawn.parent / name, LAB, name)
    return Disturbed(cluster, Night(cluster.engine, cluster.lims, folder, LAB, name))
