"""The 18 morphology classes, in the index order of every logit vector. Nothing else knows class names.

The order is the ImageFolder (alphabetical) order of the published data set; regions and LOINC codes follow the WHO
laboratory manual, 6th edition, and loinc.org. A class without a code of its own is exported under its region's total.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Region(StrEnum):
    """Where on the cell a defect sits; `NONE` is the normal form."""

    HEAD = "head"
    NECK = "neck"
    TAIL = "tail"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class MorphologyClass:
    """One output of the networks."""

    index: int
    name: str
    region: Region
    loinc: str | None = None
    aliases: tuple[str, ...] = ()


_H, _N, _T = Region.HEAD, Region.NECK, Region.TAIL

CLASSES: Final[tuple[MorphologyClass, ...]] = tuple(
    MorphologyClass(index, *row)
    for index, row in enumerate(
        [
            ("AmorfHead", _H, "10606-2", ("AmorphHead", "AmorphousHead", "amorphous")),
            ("AsymmetricNeck", _N, None, ("AssymetricNeck",)),
            ("CurlyTail", _T, "10607-0", ("CoiledTail",)),
            ("DoubleHead", _H, "10609-6", ("DuplicateHead",)),
            ("DoubleTail", _T, "10610-4", ("DuplicateTail",)),
            ("LongTail", _T, None, ()),
            ("NarrowAcrosome", _H, None, ("NArrowAcrosome",)),
            ("Normal", Region.NONE, "10622-9", ("NormalSperm",)),
            ("PinHead", _H, "10623-7", ()),
            ("PyriformHead", _H, "10593-2", ("pyriform",)),
            ("RoundHead", _H, "10625-2", ("RounHead",)),
            ("ShortTail", _T, None, ()),
            ("TaperedHead", _H, "10594-0", ("TaperingHead", "tapered")),
            ("ThickNeck", _N, None, ()),
            ("ThinNeck", _N, None, ()),
            ("TwistedNeck", _N, None, ("BentNeck",)),
            ("TwistedTail", _T, None, ()),
            ("VacuolatedHead", _H, "10629-4", ("VacoulatedHead",)),
        ]
    )
)

CLASS_NAMES: Final[tuple[str, ...]] = tuple(c.name for c in CLASSES)
NORMAL: Final[MorphologyClass] = CLASSES[CLASS_NAMES.index("Normal")]
PUBLISHED_MIX: Final = (1537, 458, 955, 52, 81, 106, 1355, 380, 117, 1123, 201, 359, 1150, 934, 180, 855, 2277, 509)
"""Cells of each class in one stain of the published data set: 44 times more of the commonest than of the rarest."""
REGION_LOINC: Final[dict[Region, str]] = {
    Region.NONE: "10622-9",
    Region.HEAD: "10602-1",
    Region.NECK: "10603-9",
    Region.TAIL: "10604-7",
}

_BY_SPELLING: Final[dict[str, MorphologyClass]] = {
    spelling.casefold(): c for c in CLASSES for spelling in (c.name, *c.aliases)
}


def class_named(spelling: str) -> MorphologyClass:
    """The class called `spelling`, in its own name or a known misspelling, whatever the case and separators.

    Raises:
        KeyError: no class is called so.
    """
    folded = "".join(ch for ch in spelling if ch.isalnum()).casefold()
    if folded not in _BY_SPELLING:
        raise KeyError(f"{spelling!r} is not a morphology class; known: {', '.join(CLASS_NAMES)}")
    return _BY_SPELLING[folded]
