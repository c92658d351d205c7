"""Whether Triton works: `python3 probe.py [--ready]`; exit code 0 or 1. Needs nothing of morphbatch.

Ready: every model is. Alive: each model of the Python backend still has its process. Triton does not start one again
that was killed, for memory say, and every request fails from then on.
"""

import sys
from pathlib import Path

REPOSITORY = Path("/var/lib/morphbatch/triton/repository")
STUB = "triton_python_backend_stub"


def every_model_is_ready() -> bool:
    """What Triton says, asked without its client, whose packages are no part of the image."""
    import grpc

    with grpc.insecure_channel("127.0.0.1:8001") as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
        try:
            answer: bytes = ask(b"", timeout=5)
        except grpc.RpcError:
            return False
    return answer == b"\x08\x01"  # the message's one field, `ready`, is true


def stubs(proc: Path = Path("/proc")) -> int:
    """How many processes of the Python backend run."""
    found = 0
    for command in proc.glob("[0-9]*/cmdline"):
        try:
            program = command.read_bytes().split(b"\0")[0].decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        found += program.endswith(STUB)
    return found


def trouble(*, ready: bool) -> str | None:
    """What is wrong; None: nothing."""
    if ready and not every_model_is_ready():
        return "not every model is ready"
    models = len(list(REPOSITORY.glob("*/1/model.py")))
    if (running := stubs()) < models:
        return f"{running} of {models} processes of the Python backend run"
    return None


if __name__ == "__main__":
    sys.exit(trouble(ready="--ready" in sys.argv[1:]))
