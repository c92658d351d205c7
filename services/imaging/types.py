"""What the imaging stages hand to each other. Coordinates are pixels of the decoded field, origin top left."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, NewType

import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]
"""`[H, W, 3]`, 0 to 255."""
Microns = NewType("Microns", float)
Pixels = NewType("Pixels", int)
UmPerPx = NewType("UmPerPx", float)
"""Micrometres per pixel of a field, as its manifest states it."""


class RejectReason(StrEnum):
    """Why an object of a field is not counted as a whole head."""

    BORDER = "border"  # the border of the field cuts it
    SIZE = "size"
    SHAPE = "shape"  # at full resolution nothing as thick as a head is left
    TEXTURE = "texture"  # evenly dark and of unusual size, where heads show an acrosome
    MARK = "mark"  # drawn into the picture: a letter, a bar, an arrow
    STAIN = "stain"  # paler than chromatin, or of another colour than the heads of the field


class NotCounted(StrEnum):
    """Why a cell that was classified is shown and kept, and yet is not among those that the shares are of."""

    CUT_BY_BORDER = "cut_by_border"  # too much of its crop lies beyond the field: the networks do not see all of it
    ISOLATED_HEAD = "isolated_head"  # a head without a tail, where there is room for one
    NOT_A_SPERM = "not_a_sperm"


class QualityFlag(StrEnum):
    """What makes the figures of a usable field worth a second look."""

    DARK = "dark"
    BRIGHT = "bright"
    CLIPPED = "clipped"
    UNEVEN = "uneven"
    SOFT_FOCUS = "soft_focus"
    NO_STAINED_OBJECTS = "no_stained_objects"
    WEAK_STAIN = "weak_stain"
    FRAMED = "framed"  # a part of it was covered, and is left out
    SCALE_NOT_OF_FILE = "um_per_px_not_of_file"  # the file states another scale
    SCALE_NOT_OF_SLIDE = "um_per_px_not_of_slide"  # its size in pixels, or its heads, are not those of the slide
    SCALE_DOUBTFUL = "um_per_px_doubtful"  # at this scale the slide's heads are larger or smaller than heads are


class SetAside(StrEnum):
    """Why a readable field is left out of its slide."""

    BLACK = "field_black"
    WHITE = "field_white"
    OUT_OF_FOCUS = "field_out_of_focus"
    NO_CELLS = "field_no_cells"
    DUPLICATE = "field_duplicate"
    SCALE_DOUBTFUL = "field_um_per_px_doubtful"  # no heads at the scale that is stated, and several at another
    OTHER_MAGNIFICATION = "field_um_per_px_not_of_slide"  # its heads, or its file, show another scale than the slide's


class FieldFault(StrEnum):
    """What is wrong with a field as it was delivered: its slide is quarantined under this reason."""

    MISSING = "field_missing"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    REFUSED = "field_refused"
    EMPTY = "field_empty"
    TRUNCATED = "field_truncated"
    DAMAGED = "field_damaged"
    NOT_AN_IMAGE = "field_not_an_image"
    FORMAT_NOT_ALLOWED = "field_format_not_allowed"
    TOO_LARGE = "field_too_large"
    TOO_SMALL = "field_too_small"
    TOO_COARSE = "field_too_coarse"
    TOO_MANY_PIXELS = "field_too_many_pixels"
    TOO_MANY_PAGES = "field_too_many_pages"
    TOO_MANY_PARTS = "field_too_many_parts"
    TOO_COMPRESSED = "field_too_compressed"
    DECODER_KILLED = "field_decoder_killed"
    CMYK = "field_cmyk"
    ANIMATED = "field_animated"
    SEPARATE_CHANNELS = "field_separate_channels"
    TRANSPARENT = "field_transparent"
    UNSUPPORTED_MODE = "field_unsupported_mode"
    CELL_OUTSIDE = "cell_outside_field"


class Box(NamedTuple):
    """`x1` and `y1` are exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True, slots=True)
class DecodedField:
    """A field as 8-bit RGB. `notes` names what had to be converted (`depth_16_bit`, `palette`, …).

    `cpu_s` is processor time spent on it in another process, seconds; `stated_um_per_px` the scale that the file
    states, where it states one that a microscope may have.
    """

    pixels: RGB
    notes: tuple[str, ...] = ()
    cpu_s: float = 0.0
    stated_um_per_px: float | None = None


@dataclass(frozen=True, slots=True)
class FieldQuality:
    """Measures of a field. `flags` are warnings; `unusable` is why a field cannot be assessed."""

    focus: Microns | None  # width of the sharpest edges: smaller is sharper; None where nothing has contrast
    exposure_pct: float  # mean luminance, % of full scale
    clipped_pct: float  # pixels at 0 or 255, %
    background_pct: float  # luminance of the background, % of full scale
    unevenness_pct: float  # spread of the background over the field, % of its level
    stain_od: float | None  # optical density of stained objects over background; None where there are none
    flags: tuple[QualityFlag, ...] = ()
    unusable: SetAside | None = None


@dataclass(frozen=True, slots=True)
class Morphometry:
    """Measures of one head; `None` where a thing cannot be measured on this cell."""

    length_um: Microns | None = None
    width_um: Microns | None = None
    area_um2: float | None = None
    perimeter_um: Microns | None = None
    ellipticity: float | None = None
    elongation: float | None = None
    roughness: float | None = None
    regularity: float | None = None
    acrosome_share: float | None = None
    vacuole_share: float | None = None
    midpiece_width_um: Microns | None = None
    midpiece_angle_deg: float | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """One whole sperm head. `outline` is `[n, 2]` int32 x, y in field pixels; `None` for a box that was given.

    `not_counted` is why it is no cell to be counted, by what is seen of it in the field.
    """

    box: Box
    outline: NDArray[np.int32] | None = None
    measures: Morphometry = field(default_factory=Morphometry)
    not_counted: NotCounted | None = None


@dataclass(frozen=True, slots=True)
class RejectedObject:
    """An object that is not a whole head."""

    box: Box
    reason: RejectReason


@dataclass(frozen=True, slots=True)
class FoundHeads:
    """All heads of a field, ordered by y then x of the box, and what was left out."""

    heads: tuple[Head, ...]
    rejected: tuple[RejectedObject, ...]

    @property
    def on_border(self) -> int:
        """Heads cut by the field's border: counted, never classified."""
        return sum(r.reason == RejectReason.BORDER for r in self.rejected)
