"""The staining methods that are known by name, and the ways in which people write them. Others are kept as given.

A stain is stored under its code: two slides are compared by it, and a reference range that was measured after one stain
holds for no other.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class StainingMethod:
    """`code` is how it is stored, `name` how it is printed; both and the `aliases` are ways to write it."""

    code: str
    name: str
    aliases: tuple[str, ...] = ()


STAINING_METHODS: Final[tuple[StainingMethod, ...]] = (
    StainingMethod("papanicolaou", "Papanicolaou", ("Pap", "Papanicolau", "Papanikolaou")),
    StainingMethod("shorr", "Shorr", ("Schorr",)),
    StainingMethod("diff-quik", "Diff-Quik", ("Diff-Quick", "DQ")),
    StainingMethod("giemsa", "Giemsa"),
    StainingMethod(
        "may-gruenwald-giemsa",
        "May-Grünwald-Giemsa",
        ("May-Grunwald-Giemsa", "MGG", "Pappenheim"),
    ),
    StainingMethod("leishman", "Leishman"),
    StainingMethod("bryan-leishman", "Bryan-Leishman", ("Bryan's Leishman",)),
    StainingMethod("wright", "Wright"),
    StainingMethod("wright-giemsa", "Wright-Giemsa"),
    StainingMethod(
        "hematoxylin-eosin",
        "Hematoxylin-eosin",
        (
            *("Haematoxylin-eosin", "Hämatoxylin-Eosin", "Hematoksilen-eozin"),
            *("Hematoxylin and eosin", "Haematoxylin and eosin", "H&E", "HE"),
        ),
    ),
    StainingMethod("sperm-stain", "Sperm Stain"),
    StainingMethod("spermac", "Spermac", ("SpermMac",)),
    StainingMethod("spermblue", "SpermBlue"),
    StainingMethod("hemacolor", "Hemacolor", ("Haemacolor",)),
    StainingMethod("testsimplets", "Testsimplets"),
    StainingMethod("eosin-nigrosin", "Eosin-nigrosin"),
    StainingMethod("toluidine-blue", "Toluidine blue"),
    StainingMethod("aniline-blue", "Aniline blue"),
    StainingMethod("unknown", "unknown stain", ("not known", "unspecified", "not specified")),
)

# What people add to a stain's name without meaning another one.
_WORDS_BESIDE_A_NAME: Final = frozenset(
    ("stain", "stains", "stained", "staining", "method", "technique", "kit", "modified", "mod", "boya", "boyama",
     "boyasi", "farbung", "faerbung")
)  # fmt: skip


def _words(spelling: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", spelling.casefold().replace("ı", "i"))
    return re.findall(r"[^\W_]+", "".join(ch for ch in plain if not unicodedata.combining(ch)))


_BY_SPELLING: Final[dict[str, StainingMethod]] = {
    "".join(_words(spelling)): method
    for method in STAINING_METHODS
    for spelling in (method.code, method.name, *method.aliases)
}


def staining_method(spelling: str) -> StainingMethod | None:
    """The method that is written so, whatever the case, accents and separators; `None`: none is known by that name."""
    words = _words(spelling)
    while words:
        if (found := _BY_SPELLING.get("".join(words))) is not None:
            return found
        # One at a time: Sperm Stain is a name.
        if words[-1] in _WORDS_BESIDE_A_NAME:
            words.pop()
        elif words[0] in _WORDS_BESIDE_A_NAME:
            words.pop(0)
        else:
            break
    return None


def stain_code(spelling: str) -> str:
    """The code under which a stain is stored; an unknown one's is what was given."""
    known = staining_method(spelling)
    return spelling if known is None else known.code


def stain_name(code: str) -> str:
    """A stored stain as it is printed."""
    known = staining_method(code)
    return code if known is None else known.name
