"""Makes Triton answer a constant: both networks of a repository are replaced by a model of the same contract."""

from pathlib import Path
from typing import Final

from services.releases.schema import MEMBERS
from triton_models.layout.repository import declare_altered

_MODEL: Final = Path(__file__).parent / "programs" / "constant_network.py"


def write_constant_models(repository: Path) -> None:
    """Replace both networks in `repository`, which was laid out for a release; the rest of it stays as it is.

    The next start of the stack finds that it is not what the release makes of it, and lays it out again.
    """
    for member in MEMBERS:
        (repository / member / "1" / "model.py").write_bytes(_MODEL.read_bytes())
        (repository / member / "1" / "model.onnx").unlink(missing_ok=True)
    declare_altered(repository)
