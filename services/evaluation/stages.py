"""A field through every imaging stage, as the service does it, for a score with the time that it takes."""

from pathlib import Path
from typing import Final

from services.imaging.crops import crop_cells
from services.imaging.decoding.decode import decode_field
from services.imaging.framing import specimen_of
from services.imaging.heads import find_heads
from services.imaging.quality import measure_quality
from services.imaging.types import RGB, FoundHeads, Microns, Pixels, UmPerPx

# Crops are cut for the time that it takes; these are the sizes of the untrained release, the larger ones.
_CROP_UM: Final = Microns(24.0)
_CROP_PX: Final = Pixels(192)
_MAX_BYTES: Final = 64 * 2**20
_MAX_PIXELS: Final = 60_000_000


def imaging_stages(path: Path, um_per_px: UmPerPx) -> tuple[RGB, FoundHeads]:
    """Read, decode, judge, search and crop the field in `path`; its pixels and what was found.

    Raises:
        FieldRefused: the file is no field.
    """
    pixels = decode_field(path.read_bytes(), path.name, max_bytes=_MAX_BYTES, max_pixels=_MAX_PIXELS).pixels
    specimen = specimen_of(pixels, um_per_px)
    pixels = specimen.pixels
    measure_quality(pixels, um_per_px)
    found = find_heads(pixels, um_per_px, specimen.covered)
    boxes = [head.box for head in found.heads]
    crop_cells(pixels, boxes, um_per_px=um_per_px, crop_um=_CROP_UM, size_px=_CROP_PX)
    return pixels, found
