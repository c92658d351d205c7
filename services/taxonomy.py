"""The 18 morphology classes, in the index order of every logit vector. Nothing else knows class names.

The order is the ImageFolder (alphabetical) order of the published data set. A cell has one class, its primary defect:
the shares add up to 100 %. LOINC's codes of single defects and of regions count every cell that has the defect, so that
none of them fits; only Normal, 10622-9, means the same (loinc.org).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

Language = Literal["en", "tr"]


class Region(StrEnum):
    """Where on the cell the primary defect sits; `NORMAL` is the normal form."""

    HEAD = "head"
    NECK = "neck"
    TAIL = "tail"
    NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class MorphologyClass:
    """One output of the networks.

    `label` is its folder in data sets and its name in releases; `code` stands for it in results, and people read it in
    `english` or `turkish`.
    """

    index: int
    label: str
    code: str
    english: str
    turkish: str
    region: Region
    aliases: tuple[str, ...] = ()

    def display(self, language: Language) -> str:
        """Its name for a reader."""
        return self.turkish if language == "tr" else self.english

    @property
    def loinc(self) -> str | None:
        """Its LOINC code; `None`: none was found that counts the same."""
        return "10622-9" if self.region is Region.NORMAL else None


_H, _N, _T = Region.HEAD, Region.NECK, Region.TAIL

CLASSES: Final[tuple[MorphologyClass, ...]] = tuple(
    MorphologyClass(index, *row)
    for index, row in enumerate(
        [
            ("AmorfHead", "amorphous_head", "Amorphous head", "Amorf baş", _H, ("AmorphHead", "amorphous")),
            ("AsymmetricNeck", "asymmetric_neck", "Asymmetric neck", "Asimetrik boyun", _N, ("AssymetricNeck",)),
            ("CurlyTail", "curly_tail", "Curly tail", "Kıvrımlı kuyruk", _T, ("CoiledTail",)),
            ("DoubleHead", "double_head", "Double head", "Çift baş", _H, ("DuplicateHead",)),
            ("DoubleTail", "double_tail", "Double tail", "Çift kuyruk", _T, ("DuplicateTail",)),
            ("LongTail", "long_tail", "Long tail", "Uzun kuyruk", _T, ()),
            ("NarrowAcrosome", "narrow_acrosome", "Narrow acrosome", "Dar akrozom", _H, ()),
            ("Normal", "normal", "Normal", "Normal", Region.NORMAL, ("NormalSperm",)),
            ("PinHead", "pin_head", "Pin head", "İğne baş", _H, ()),
            ("PyriformHead", "pyriform_head", "Pyriform head", "Armut biçimli baş", _H, ("pyriform",)),
            ("RoundHead", "round_head", "Round head", "Yuvarlak baş", _H, ("RounHead",)),
            ("ShortTail", "short_tail", "Short tail", "Kısa kuyruk", _T, ()),
            ("TaperedHead", "tapered_head", "Tapered head", "Konik baş", _H, ("TaperingHead", "tapered")),
            ("ThickNeck", "thick_neck", "Thick neck", "Kalın boyun", _N, ()),
            ("ThinNeck", "thin_neck", "Thin neck", "İnce boyun", _N, ()),
            ("TwistedNeck", "twisted_neck", "Twisted neck", "Bükülmüş boyun", _N, ("BentNeck",)),
            ("TwistedTail", "twisted_tail", "Twisted tail", "Bükülmüş kuyruk", _T, ()),
            ("VacuolatedHead", "vacuolated_head", "Vacuolated head", "Vakuollü baş", _H, ("VacoulatedHead",)),
        ]
    )
)

CLASS_NAMES: Final[tuple[str, ...]] = tuple(c.label for c in CLASSES)
NORMAL: Final[MorphologyClass] = CLASSES[CLASS_NAMES.index("Normal")]
PUBLISHED_MIX: Final = (1537, 458, 955, 52, 81, 106, 1355, 380, 117, 1123, 201, 359, 1150, 934, 180, 855, 2277, 509)
"""Cells of each class in one stain of the published data set: 44 times more of the commonest than of the rarest."""

REGION_NAMES: Final[dict[Region, dict[Language, str]]] = {
    Region.NORMAL: {"en": "normal form", "tr": "normal form"},
    Region.HEAD: {"en": "head defect", "tr": "baş kusuru"},
    Region.NECK: {"en": "neck defect", "tr": "boyun kusuru"},
    Region.TAIL: {"en": "tail defect", "tr": "kuyruk kusuru"},
}


def _folded(spelling: str) -> str:
    return "".join(ch for ch in spelling if ch.isalnum()).casefold()


_BY_SPELLING: Final[dict[str, MorphologyClass]] = {
    _folded(spelling): c for c in CLASSES for spelling in (c.label, c.english, *c.aliases)
}


def display_name(spelling: str, language: Language) -> str:
    """The class for a reader; a release's own class, which the taxonomy does not know, keeps its name."""
    try:
        return class_named(spelling).display(language)
    except KeyError:
        return spelling


def class_named(spelling: str) -> MorphologyClass:
    """The class called `spelling`, in its own name or a known misspelling, whatever the case and separators.

    Raises:
        KeyError: no class is called so.
    """
    folded = _folded(spelling)
    if folded not in _BY_SPELLING:
        raise KeyError(f"{spelling!r} is not a morphology class; known: {', '.join(CLASS_NAMES)}")
    return _BY_SPELLING[folded]
