"""A clinic's installation on a real cluster: workers come and go with the work, and no disturbance loses a cell.

Each test uploads a night, disturbs it while slides run, and compares Postgres and the report with the truth.
"""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Final

import pytest
from sqlalchemy import text

from services.releases.schema import MEMBERS
from tests.cluster.conftest import SLIDES, Cluster, Disturbed
from tests.cluster.kubectl import NAMESPACE, delete_at_once, evict, here, ready_again, tools
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(3600)

MOST_WORKERS: Final = 3
ONCE: Final = [1] * SLIDES

# Stops what the container runs, says so, and fills its memory by many small processes: the kernel ends the one with the
# highest score, which is then the first process of the container.
FILL: Final = """
import os, pathlib, signal, sys, time

def ours():
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) not in (1, os.getpid()):
            yield folder

for folder in ours():
    os.kill(int(folder.name), signal.SIGSTOP)
print("stopped", flush=True)
sys.stdin.readline()
for folder in ours():
    parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
    if parent == "0" and b"celery" in (folder / "cmdline").read_bytes():
        (folder / "oom_score_adj").write_text("1000")
while True:
    if os.fork() == 0:
        held = b"x" * 2**24
        time.sleep(600)
    time.sleep(0.1)
"""


def seconds_until(condition: Callable[[], object], seconds: float, what: str) -> float:
    """How long it took until the condition holds."""
    began = time.monotonic()
    wait_until(condition, seconds, what, every_s=0.5)
    return time.monotonic() - began


def keep_at_least(workers: int) -> None:
    """Tell the scaler how many workers stay without work."""
    fewest = json.dumps({"spec": {"minReplicaCount": workers}})
    here("patch", "scaledobject", "worker", "--type", "merge", "--patch", fewest)


@pytest.fixture(scope="module")
def two_stay(cluster: Cluster) -> None:
    """Two workers stay between the nights, so that a disturbance meets slides at work at once."""
    keep_at_least(2)
    wait_until(lambda: cluster.api.workers()[1] >= 2, 300, "two workers ready", every_s=0.5)


def all_at_work(cluster: Cluster, night: Disturbed) -> list[str]:
    """Wait until several workers are ready and each of them has a slide; their pods."""
    pods: list[str] = []

    def at_work() -> bool:
        pods[:] = cluster.api.pods("worker", ready=True)
        return len(pods) >= 2 and night.night.slides("running") >= len(pods)

    wait_until(at_work, 600, "every worker with a slide", every_s=0.5)
    assert night.night.slides("queued") > 0
    return pods


def test_nothing_is_missing(cluster: Cluster) -> None:
    said = tools("morphbatch", "doctor")
    assert "WARNING" not in said


def test_workers_come_with_the_work_and_go_with_it(cluster: Cluster, night: Disturbed) -> None:
    wait_until(lambda: cluster.api.workers() == (0, 0), 300, "no worker without work", every_s=0.5)
    night.disturb("a night is uploaded; no worker runs")
    night.upload()
    first = seconds_until(lambda: cluster.api.workers()[0] > 0, 120, "the first worker wanted")
    most = first + seconds_until(lambda: cluster.api.workers()[0] == MOST_WORKERS, 180, "all workers wanted")
    several = most + seconds_until(lambda: cluster.api.workers()[1] > 1, 300, "several workers ready")
    seen = f"1 worker wanted after {first:.0f} s, {MOST_WORKERS} after {most:.0f} s, several ready {several:.0f}"
    assert night.finish(seen, "none: 0 → 3 → 0 workers") == ONCE
    gone = seconds_until(lambda: cluster.api.workers() == (0, 0), 600, "no worker without work")
    night.disturb(f"the last worker is gone, {gone:.0f} s after the end of the night")


@pytest.mark.usefixtures("two_stay")
def test_workers_are_rolled(cluster: Cluster, night: Disturbed) -> None:
    night.upload()
    before = all_at_work(cluster, night)
    night.disturb("rolling update of the workers")
    here("rollout", "restart", "deployment/worker")
    took = seconds_until(lambda: not set(before) & set(cluster.api.pods("worker")), 600, "no worker of before")
    seen = f"{len(before)} workers; the last was asked to end after {took:.0f} s"
    assert night.finish(seen, "rolling update of the workers") == ONCE


@pytest.mark.usefixtures("two_stay")
def test_a_worker_is_drained(cluster: Cluster, night: Disturbed) -> None:
    night.upload()
    pod = all_at_work(cluster, night)[0]
    night.disturb("a worker's pod evicted, as a drain does")
    evict(pod)
    gone = ("get", "pod", pod, "--ignore-not-found", "--output", "name")
    took = seconds_until(lambda: not here(*gone), 400, "the evicted pod gone")
    assert night.finish(f"it ended its slide, and was gone after {took:.0f} s", "a worker's pod evicted") == ONCE


@pytest.mark.usefixtures("two_stay")
def test_a_worker_is_killed_for_memory(cluster: Cluster, night: Disturbed) -> None:
    night.upload()
    pod = all_at_work(cluster, night)[0]
    fill = ["kubectl", "--namespace", NAMESPACE, "exec", "--stdin", pod, "--", "python", "-c", FILL]
    with subprocess.Popen(fill, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        assert run.stdout.readline() == "stopped\n"
        # It stands still: what it runs now, it runs when it is killed.
        night.disturb("a worker's memory filled until the kernel kills it")
        run.stdin.write("fill\n")
        run.stdin.flush()
        took = seconds_until(lambda: cluster.api.last_end(pod) is not None, 120, "the worker killed")
    assert cluster.api.last_end(pod) == "OOMKilled"
    attempts = night.finish(f"OOMKilled after {took:.0f} s; its slide was taken over", "a worker killed for memory")
    assert attempts == [*ONCE[1:], 2]


@pytest.mark.usefixtures("two_stay")
def test_triton_is_deleted(cluster: Cluster, night: Disturbed) -> None:
    night.upload()
    all_at_work(cluster, night)
    (pod,) = cluster.api.pods("triton")
    night.disturb("Triton's pod deleted, without grace")
    delete_at_once(pod)
    took = ready_again(cluster.api, "triton", without=pod)
    assert night.finish(f"another was ready after {took:.0f} s", "Triton's pod deleted") == ONCE


@pytest.mark.usefixtures("two_stay")
def test_redis_is_deleted_with_all_it_holds(cluster: Cluster, night: Disturbed) -> None:
    night.upload()
    all_at_work(cluster, night)
    (pod,) = cluster.api.pods("redis")
    night.disturb("Redis' pod deleted with all it holds, without grace")
    delete_at_once(pod)
    took = ready_again(cluster.api, "redis", without=pod)
    assert night.finish(f"another was ready after {took:.0f} s", "Redis' pod deleted with all it holds") == ONCE


@pytest.mark.usefixtures("two_stay")
def test_control_and_beat_are_deleted(cluster: Cluster, night: Disturbed) -> None:
    (control,), (beat,) = cluster.api.pods("control"), cluster.api.pods("beat")
    night.upload()
    night.disturb("control's pod deleted, without grace, as the manifest arrives")
    delete_at_once(control)
    first = ready_again(cluster.api, "control", without=control)
    all_at_work(cluster, night)
    night.disturb("beat's pod deleted, without grace")
    delete_at_once(beat)
    second = ready_again(cluster.api, "beat", without=beat)
    seen = f"others were ready after {first:.0f} s and {second:.0f} s"
    assert night.finish(seen, "control's pod deleted, then beat's") == ONCE


@pytest.mark.usefixtures("two_stay")
def test_another_release_is_activated(cluster: Cluster, night: Disturbed) -> None:
    fusion = json.dumps({"alpha": 0.9, "temperatures": dict.fromkeys(MEMBERS, 0.25)})
    (active,) = (row["id"] for row in json.loads(tools("morphbatch", "release", "list", "--json")) if row["active"])
    tools("sh", "-c", "cat > /tmp/fusion.json", given=fusion)
    derived = ("--fusion", "/tmp/fusion.json", "--out", "/tmp/derived", "--json")  # noqa: S108 - in the pod
    other = json.loads(tools("morphbatch", "release", "derive", active, *derived))["id"]
    tools("morphbatch", "release", "publish", "/tmp/derived")  # noqa: S108
    night.upload()
    all_at_work(cluster, night)
    night.disturb("another release activated, Triton restarted")
    tools("morphbatch", "release", "activate", other)
    here("rollout", "restart", "deployment/triton")
    took = seconds_until(lambda: here("rollout", "status", "deployment/triton"), 300, "Triton restarted")
    assert night.finish(f"Triton served it after {took:.0f} s", "another release activated") == ONCE
    with cluster.engine.connect() as connection:
        made_with = set(
            connection.execute(
                text("select release_id from analysis where id = any(:ids)"), {"ids": night.night.analysis_ids()}
            ).scalars()
        )
    assert other in made_with
    assert made_with <= {active, other}


def test_no_worker_is_left_without_work(cluster: Cluster) -> None:
    keep_at_least(0)
    gone = seconds_until(lambda: cluster.api.workers() == (0, 0), 600, "no worker without work")
    cluster.record.event(f"the last worker is gone, {gone:.0f} s after the end of the last night")
    wait_until(lambda: cluster.record.samples[-1].wanted == 0, what="seen", every_s=0.5)
