"""The cluster that kubectl points at: commands to it, its objects, and its services at ports of this machine."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.request import urlopen

import pytest

from tests.waiting import wait_until

NAMESPACE: Final = "morphbatch"
Document = dict[str, Any]


def kubectl(*arguments: str, given: str | None = None, seconds: float = 300) -> str:
    """What `kubectl ARGUMENTS` prints; the test fails with what it says when it fails."""
    done = subprocess.run(
        ["kubectl", *arguments], input=given, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        pytest.fail(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def here(*arguments: str, given: str | None = None, seconds: float = 300) -> str:
    """The same in the namespace of the service."""
    return kubectl("--namespace", NAMESPACE, *arguments, given=given, seconds=seconds)


def tools(*command: str, given: str | None = None) -> str:
    """What a command prints in the pod `tools`."""
    stdin = ("--stdin",) if given is not None else ()
    return here("exec", *stdin, "deployment/tools", "--", *command, given=given)


class Api:
    """The API server by `kubectl proxy`: to look each second costs little this way."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str) -> Document:
        """The document at a path of the API."""
        with urlopen(f"{self._address}{path}", timeout=20) as answer:  # noqa: S310 - the proxy of this process
            document: Document = json.load(answer)
        return document

    def workers(self) -> tuple[int, int]:
        """How many slide workers are wanted, and how many are ready."""
        found = self.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/worker")
        return found["spec"].get("replicas", 0), found.get("status", {}).get("readyReplicas", 0)

    def pods(self, app: str, *, ready: bool = False) -> list[str]:
        """The pods of one Deployment that are not on their way out; `ready`: those that pass their probe."""
        found = self.get(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app%3D{app}")["items"]
        names = []
        for pod in found:
            conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
            if "deletionTimestamp" not in pod["metadata"] and (not ready or conditions.get("Ready") == "True"):
                names.append(pod["metadata"]["name"])
        return sorted(names)

    def last_end(self, pod: str) -> str | None:
        """Why the container of a pod ended the last time; `None`: it has not."""
        (container,) = self.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")["status"]["containerStatuses"]
        ended = container["lastState"].get("terminated") or container["state"].get("terminated")
        return ended["reason"] if ended else None


def ready_again(api: Api, app: str, *, without: str, seconds: float = 300) -> float:
    """Wait until another pod than `without` is ready; seconds that it took."""
    began = time.monotonic()

    def there() -> list[str]:
        return [pod for pod in api.pods(app, ready=True) if pod != without]

    wait_until(there, seconds, f"another pod of {app}", every_s=0.5)
    return time.monotonic() - began


def delete_at_once(pod: str) -> None:
    """Take a pod away with all it holds, as when its node is lost: no SIGTERM is waited for."""
    here("delete", "pod", pod, "--grace-period=0", "--force")


def evict(pod: str) -> None:
    """What `kubectl drain` does to each pod of a node, and as it does, again while the disruption budget refuses it."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    command = ["kubectl", "create", "--raw", path, "--filename", "-"]

    def accepted() -> bool:
        done = subprocess.run(command, input=json.dumps(eviction), capture_output=True, text=True, check=False)
        if done.returncode and "disruption budget" not in done.stderr:
            pytest.fail(f"{pod} is not evicted: {done.stderr.strip()}")
        return done.returncode == 0

    wait_until(accepted, 120, f"the eviction of {pod} accepted", every_s=5)


@contextmanager
def listening(pattern: str, *arguments: str) -> Iterator[str]:
    """A kubectl that serves at a port of this machine while the block runs; the port that its output names."""
    with subprocess.Popen(["kubectl", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout is not None
        found = next((found for line in run.stdout if (found := re.search(pattern, line))), None)
        if found is None:
            pytest.fail(f"kubectl {' '.join(arguments)} ended with {run.wait()}")
        rest = threading.Thread(target=run.stdout.read)  # a full pipe would hold it up
        rest.start()
        try:
            yield found[1]
        finally:
            run.terminate()
            rest.join()


def proxied() -> Any:
    """The API server, while the block runs; the port."""
    return listening(r"127\.0\.0\.1:(\d+)", "proxy", "--port=0")


def forwarded(service: str, port: int) -> Any:
    """A service of the namespace, while the block runs; the port."""
    return listening(r"127\.0\.0\.1:(\d+)", "--namespace", NAMESPACE, "port-forward", f"service/{service}", f":{port}")
