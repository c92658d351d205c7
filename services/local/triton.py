"""Triton from the wheel `nvidia-pytriton`, in an environment of its own: its binary, its Python backend, no pytriton.

The server's wheel wants NumPy 1, and the models want OpenVINO; neither belongs into the service's environment.
"""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from services.atomic import write_text
from services.errors import ConfigurationError
from services.local.installation import Installation
from services.local.launch import DATA
from services.local.programs import within_reach
from services.local.service import CHECKOUT, NotReady, Service
from triton_models.forms.form import TENSORRT_RTX, TORCH

# Ends the stubs of the Python backend with the server; Triton waits this long for requests in flight.
_EXIT_TIMEOUT_S: Final = 10

# What no client of ours asks for. The word that would open it stands on a command line, so everybody may know it; but
# HTTP/2 allows no capital letter in the name of a header, so that nobody can send it.
_CLOSED: Final = "shared-memory,model-repository,statistics,trace,logging:Closed=to-everybody"

_ASK: Final = """
import ctypes, json, os, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
library = sysconfig.get_config_var("LIBDIR")
shared = f"libpython{version}.so.1.0"
places = [library, f"{sys.base_prefix}/lib", f"{library}/{sysconfig.get_config_var('MULTIARCH')}"]
library = next((place for place in places if os.path.exists(f"{place}/{shared}")), library)
try:
    ctypes.CDLL(f"{library}/{shared}" if os.path.exists(f"{library}/{shared}") else shared)
except OSError as error:
    sys.exit(f"its Python {sys.executable} has no {shared}, which Triton's Python backend needs: {error}")
print(json.dumps({
    "version": version, "python": os.path.realpath(sys.executable), "library": library,
    "stdlib": sysconfig.get_path("stdlib"), "site": sysconfig.get_path("purelib"),
}))
"""


# What a form for GPUs imports, and the target of `make` that makes an environment with it.
_ON_GPU: Final = {TENSORRT_RTX: ("tensorrt_rtx_bindings", "rtx"), TORCH: ("torch", "triton-torch")}

_ASK_GPU: Final = """
import ctypes, importlib.util, sys
if importlib.util.find_spec(sys.argv[1]) is None:
    sys.exit(f"{sys.argv[1]} is not installed")
count = ctypes.c_int()
try:
    driver = ctypes.CDLL("libcuda.so.1")
except OSError:
    sys.exit("no NVIDIA driver")
if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
    sys.exit("no GPU")
"""


class GpuMissing(ConfigurationError):
    """The form that is to be served runs on a GPU, and cannot here."""

    reason = "gpu_missing"


@dataclass(frozen=True, slots=True)
class TritonEnvironment:
    """The Python environment that holds the server and what its models import."""

    folder: Path
    version: str
    python: Path
    library: Path
    stdlib: Path
    site: Path

    @property
    def server(self) -> Path:
        """Folder of the server as the wheel lays it out."""
        return self.site / "pytriton" / "tritonserver"


def triton_service(installation: Installation, environment_folder: Path | None, form: str | None) -> Service:
    """Triton on its port, serving `HOME/triton/repository` in that form; ready when every model in it is.

    Raises:
        ConfigurationError: the environment is not there, or holds no server.
        GpuMissing: the form needs a GPU, or an environment for one.
    """
    python = find_environment(environment_folder)
    require_gpu(python, form)
    return triton_server(installation, python)


def triton_server(installation: Installation, python: TritonEnvironment) -> Service:
    """Triton on its port, and its metrics on another, serving `HOME/triton/repository` from this environment."""
    python = _within_reach(python)
    folder = installation.home / "triton"
    port = installation.ports["triton_grpc"]
    memory = f"morphbatch-{installation.plain_name}-"
    return Service(
        name="triton",
        command=(
            str(python.server / "bin" / "tritonserver"),
            # Plain words, whatever the home is called: the Python backend hands both to a shell, unquoted.
            f"--model-repository={DATA}/repository", "--model-control-mode=none",
            f"--backend-directory={DATA}/backends", f"--backend-config=python,shm-region-prefix-name={memory}",
            "--grpc-address=127.0.0.1", f"--grpc-port={port}", f"--grpc-restricted-protocol={_CLOSED}",
            "--allow-http=false", f"--exit-timeout-secs={_EXIT_TIMEOUT_S}",
            "--metrics-address=127.0.0.1", f"--metrics-port={installation.ports['triton_metrics']}",
            "--strict-readiness=true", "--disable-auto-complete-config", "--log-verbose=0",
        ),
        port=port,
        environment={
            "LD_LIBRARY_PATH": f"{python.site / 'nvidia_pytriton.libs'}:{python.library}",
            # The stub ignores PYTHONPATH: it finds its packages by the `python3` that PATH names first.
            "PATH": f"{python.folder / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        },
        grace_s=_EXIT_TIMEOUT_S + 5,
        deadline_s=180.0,  # OpenVINO compiles both networks
        data=folder,
        prepare=lambda: _prepare(python, folder / "backends", memory),
        ready=lambda: _ask(f"127.0.0.1:{port}"),
        settle=lambda: _close_memory(memory),
        check=_require_models,
    )  # fmt: skip


def find_environment(folder: Path | None) -> TritonEnvironment:
    """The environment in `folder`, by default `.venv-triton` of the checkout, where `make setup` puts it.

    Raises:
        ConfigurationError: there is none, or the server is not installed in it.
    """
    folder = (folder or CHECKOUT / ".venv-triton").absolute()
    python = folder / "bin" / "python"
    try:
        asked = subprocess.run([str(python), "-I", "-c", _ASK], capture_output=True, text=True, timeout=30, check=True)
        found = json.loads(asked.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        raise ConfigurationError(
            f"Triton has no environment in {folder} ({why}): run `make setup`, or name one in MORPHBATCH_TRITON_ENV"
        ) from error
    version = found.pop("version")
    environment = TritonEnvironment(folder, version, **{name: Path(path) for name, path in found.items()})
    if not os.access(environment.server / "bin" / "tritonserver", os.X_OK):
        raise ConfigurationError(f"{folder} holds no tritonserver: run `make setup`")
    return environment


def require_gpu(python: TritonEnvironment, form: str | None) -> None:
    """Refuse a form that runs on a GPU where there is none, or where the environment cannot use it.

    Raises:
        GpuMissing: in one line, what is missing and what to do.
    """
    if form not in _ON_GPU:
        return
    module, target = _ON_GPU[form]
    asked = subprocess.run(
        [str(python.folder / "bin" / "python"), "-I", "-c", _ASK_GPU, module],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    if asked.returncode:
        raise GpuMissing(
            f"{form} needs an NVIDIA GPU and the environment of `make {target}` in MORPHBATCH_TRITON_ENV; in"
            f" {python.folder} on this machine: {asked.stderr.strip().splitlines()[-1]}. Without a GPU, set"
            " MORPHBATCH_TRITON_FORM to another form, such as openvino-fp32"
        )


def _within_reach(python: TritonEnvironment) -> TritonEnvironment:
    """The same environment where the server's user reaches it, together with the Python that it is made of."""
    stdlib = Path(python.stdlib.parent.name, python.stdlib.name)  # lib64 on some systems
    site = Path("lib", python.stdlib.name, "site-packages")
    shared = f"libpython{python.version}.so.1.0"
    tree = within_reach(
        {
            "bin/python3": python.python,
            str(site): python.site,
            "base/bin/python3": python.python,
            f"base/{stdlib}": python.stdlib,
            f"base/lib/{shared}": python.library / shared,
        }
    )
    if tree is None:
        return python
    configuration = tree / "pyvenv.cfg"
    write_text(configuration, f"home = {tree / 'base' / 'bin'}\ninclude-system-site-packages = false\n")
    configuration.chmod(0o644)
    return replace(python, folder=tree, library=tree / "base" / "lib", site=tree / site)


def _prepare(python: TritonEnvironment, backends: Path, memory: str) -> None:
    for left_over in _shared_memory(memory):  # of a server that was killed
        left_over.unlink(missing_ok=True)
    _link_backend(python, backends)


def _ask(endpoint: str) -> None:
    # A connection of its own each time: one kept alive would hold up Triton's exit until its timeout.
    client = InferenceServerClient(endpoint)
    try:
        if not client.is_server_ready(client_timeout=1.0):
            raise NotReady("its models are not ready")
    except InferenceServerException as error:
        raise NotReady(str(error)) from error
    finally:
        client.close()


def _require_models(server: int) -> None:
    """A model of the Python backend is a process, which Triton neither waits for nor starts again when it has ended.

    It calls itself ready nevertheless, and every request fails.

    Raises:
        NotReady: one has ended; what is left of it is a child that nobody waited for.
    """
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):  # gone meanwhile
            continue
        if state == "Z" and int(parent) == server:
            raise NotReady(f"the process {stat.parent.name} of a model has ended")


def _close_memory(memory: str) -> None:
    """Crops go through it between server and models, and the server lets everybody on the machine read it."""
    for region in _shared_memory(memory):
        region.chmod(0o600)


def _shared_memory(prefix: str) -> list[Path]:
    return list(Path("/dev/shm").glob(f"{prefix}*"))  # noqa: S108 - where shm_open keeps it


def _link_backend(python: TritonEnvironment, backends: Path) -> None:
    """The wheel keeps a stub a Python version apart from the backend; Triton wants the right one beside it."""
    folder = backends / "python"
    shutil.rmtree(backends, ignore_errors=True)
    folder.mkdir(parents=True)
    for source in (
        python.server / "backends" / "python" / "libtriton_python.so",
        python.server / "backends" / "python" / "triton_python_backend_utils.py",
        python.server / "python_backend_stubs" / python.version / "triton_python_backend_stub",
    ):
        if not source.exists():
            raise ConfigurationError(f"{source} is missing: Triton has no Python backend for Python {python.version}")
        (folder / source.name).symlink_to(source)
