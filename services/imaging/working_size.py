"""What a field becomes at the scale at which heads are found: bounded before any of that memory is asked for."""

from typing import Final

from services.imaging.decoding.refusals import FieldTooCoarse, FieldTooSmall
from services.imaging.types import UmPerPx

WORKING_UM: Final = 0.09
"""Micrometres per pixel at which heads are looked for; a coarser field is enlarged."""
NARROWEST_UM: Final = 2.0
"""No head is narrower; a field must show one."""
_MORE_THAN_FIELD: Final = 4 / 3  # the largest field that is allowed may be of 0.1 µm a pixel, not only of 0.09


def check_working_size(name: str, width: int, height: int, um_per_px: UmPerPx, max_pixels: int) -> None:
    """Refuse a field of `width` × `height` pixels that cannot be worked on at its scale.

    Raises:
        FieldTooSmall: it is narrower than a head.
        FieldTooCoarse: enlarged, it would have more than a third more than `max_pixels` pixels.
    """
    if min(width, height) * um_per_px < NARROWEST_UM:
        raise FieldTooSmall(
            f"{name}: {width:,} × {height:,} pixels of {um_per_px:g} µm are narrower than a head"
            f" ({NARROWEST_UM:g} µm); check um_per_px, or send the whole field, and requeue the slide"
        )
    working = round(width * height * max(1.0, um_per_px / WORKING_UM) ** 2)
    if working > _MORE_THAN_FIELD * max_pixels:
        raise FieldTooCoarse(
            f"{name}: {width:,} × {height:,} pixels of {um_per_px:g} µm would be enlarged to {working:,} pixels of"
            f" {WORKING_UM:g} µm, {round(_MORE_THAN_FIELD * max_pixels):,} are allowed; check um_per_px, or send"
            " smaller fields, as a new batch"
        )
