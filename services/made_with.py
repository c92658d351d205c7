"""What an analysis was made with: software, detector, the networks' form, and the settings that change results."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from services.settings import Settings

SETTINGS: Final = ("minimum_cells", "max_field_bytes", "max_field_pixels")
"""Those that decide what is counted; the others decide when, and on which machine."""

_LIBRARIES: Final = ("imagecodecs", "numpy", "opencv-python-headless", "pillow", "simplejpeg")
_SERVICES: Final = Path(__file__).parent


@lru_cache(maxsize=1)
def software() -> str:
    """The installed version of morphbatch and a digest of its source: two states of one version are told apart."""
    return f"{version('morphbatch')}+{_digest(_SERVICES)}"


@lru_cache(maxsize=1)
def detector() -> str:
    """A digest of what decodes fields, and finds, measures and crops heads: its source, and the libraries under it."""
    return _digest(_SERVICES / "imaging", (f"{name} {version(name)}" for name in _LIBRARIES))


def made_with(settings: Settings, form: str | None) -> dict[str, Any]:
    """The document that stands with an analysis; `form` is that in which its release was served, if it came so far."""
    values = {name: getattr(settings, name) for name in SETTINGS}
    return {"software": software(), "detector": detector(), "form": form, "settings": values}


def _digest(folder: Path, more: Iterable[str] = ()) -> str:
    digest = hashlib.sha256("\n".join(more).encode())
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"\0{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
