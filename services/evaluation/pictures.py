"""Pictures of a scored field: what was found, missed, and found falsely."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.atomic import whole_file
from services.errors import PermanentError
from services.evaluation.detector import ScoredField
from services.imaging.types import RGB

# RGB. Colour is not the only sign: each box has a letter.
_HIT: Final = (0, 130, 60)
_MISS: Final = (200, 0, 0)
_FALSE: Final = (220, 120, 0)
_LEFT_OUT: Final = (110, 110, 110)


class PictureUnwritable(PermanentError):
    """A picture could not be written."""

    reason = "picture_unwritable"


def draw(field: ScoredField) -> RGB:
    """The field with found outlines; M: missed, F: found falsely, else why an object was left out."""
    canvas = field.pixels.copy()
    for _, head in field.pairs:
        _outline(canvas, head.outline, _HIT)
    for head in field.false:
        _outline(canvas, head.outline, _FALSE)
        _box(canvas, head.box, "F", _FALSE)
    for cell in field.missed:
        _box(canvas, cell.head_box, "M", _MISS)
    for rejected in field.found.rejected:
        _box(canvas, rejected.box, rejected.reason, _LEFT_OUT)
    return canvas


def write_picture(field: ScoredField, folder: Path) -> Path:
    """Draw `field` into `folder`, under the name of its image.

    Raises:
        PictureUnwritable: the file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = (folder / field.annotated.name.replace("/", "-")).with_suffix(".jpg")
    done, data = cv2.imencode(".jpg", cv2.cvtColor(draw(field), cv2.COLOR_RGB2BGR))
    if not done:
        raise PictureUnwritable(f"{target} could not be encoded")
    with whole_file(target) as draft:
        draft.write_bytes(data.tobytes())
    return target


def _outline(canvas: RGB, outline: NDArray[np.int32] | None, colour: tuple[int, int, int]) -> None:
    if outline is not None:
        cv2.polylines(canvas, [outline], True, colour, 2)


def _box(canvas: RGB, box: tuple[float, float, float, float], label: str, colour: tuple[int, int, int]) -> None:
    x0, y0, x1, y1 = (round(v) for v in box)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, 2)
    cv2.putText(canvas, label, (x0, max(14, y0 - 4)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
