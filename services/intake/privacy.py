"""Finds what looks like a person's name, birth date or national number in an identifier or an object key.

Rules rather than a model: each is narrow enough that a pseudonym (`S-7F3A`), a counter (`slide-01/field-001.jpg`) or a
camera's time stamp (`Image__2022-10-29__06-09-26.jpg`) passes. They catch mistakes, not ill will.
"""

import re
import unicodedata
from collections.abc import Iterator
from datetime import date
from functools import lru_cache
from itertools import pairwise
from typing import Final

from services.intake.names import GIVEN_NAMES, MONTHS, ORDINARY_WORDS, STAIN_WORDS, TITLES
from services.intake.national_numbers import holds_a_national_number, is_birth_year
from services.stains import staining_method

EARLIEST_CAMERA_STAMP: Final = 1995

_EXTENSION = re.compile(r"\.(?:jpe?g|png|tiff?|bmp|gif|webp|json|csv)$", re.IGNORECASE)
_CLOCK_TIME_FOLLOWS = re.compile(r"[T _.-]{0,3}([01]\d|2[0-3])[-_.:h]?[0-5]\d([-_.:m]?[0-5]\d)?(?!\d)")
_BIRTH_WORD = re.compile(r"(?<![a-z])(?:dob|geb|birth|born|nato|nee)[a-z]{0,8}[-_. ]{0,2}\d{2,4}", re.IGNORECASE)
_DATES: Final = (
    (re.compile(r"(?<!\d)(?P<y>\d{4})([-_. ])(?P<m>\d{1,2})\2(?P<d>\d{1,2})(?!\d)"), False),
    (re.compile(r"(?<!\d)(?P<d>\d{1,2})([-_. ])(?P<m>\d{1,2})\2(?P<y>\d{4})(?!\d)"), True),
    (re.compile(r"(?<!\d)(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})(?!\d)"), False),
    (re.compile(r"(?<!\d)(?P<d>\d{2})(?P<m>\d{2})(?P<y>\d{4})(?!\d)"), True),
)
# A lab calls a night or a batch by its day, also in an old archive.
_DAY_OF_WORK = re.compile(
    r"(?:night|batch|run|series|session|day|date|week|scan|scanned|stained|received|collected|export|import|archive|upload)"
    r"[-_. ]{0,2}$", re.IGNORECASE,
)  # fmt: skip
_MONTH_NAMED = re.compile(rf"(?<!\d)\d{{1,2}}[-_. ]{{0,2}}(?:{MONTHS})[a-zä]*[-_. ]{{0,2}}(?P<y>\d{{4}})(?!\d)", re.I)


@lru_cache(maxsize=16384)
def personal_data_in(text: str, *, names_a_stain: bool = False) -> str | None:
    """What kind of personal data `text` seems to hold (`a birth date`, …), or `None`. `/` separates folders.

    Stains are called after people, two capitalised words each: there only a known given name counts as one.
    """
    if names_a_stain and staining_method(text) is not None:
        return None
    for part in text.split("/"):
        stem = _EXTENSION.sub("", part)
        if "@" in stem:
            return "an e-mail address"
        if _BIRTH_WORD.search(stem) or any(is_birth_year(day.year) for day in _dates(stem)):
            return "a birth date"
        if holds_a_national_number(stem):
            return "a national or insurance number"
        if _names_a_person(stem, known_only=names_a_stain):
            return "a person's name"
    return None


def _dates(stem: str) -> Iterator[date]:
    for pattern, day_first in _DATES:
        for found in pattern.finditer(stem):
            year, month, day = int(found["y"]), int(found["m"]), int(found["d"])
            if year >= EARLIEST_CAMERA_STAMP and _CLOCK_TIME_FOLLOWS.match(stem, found.end()):
                continue  # a camera's time stamp in an old archive
            if _DAY_OF_WORK.search(stem, 0, found.start()):
                continue
            if day_first and month > 12:
                day, month = month, day  # 03-27-1987
            try:
                yield date(year, month, day)
            except ValueError:
                continue
    for found in _MONTH_NAMED.finditer(stem):
        yield date(max(1, int(found["y"])), 1, 1)


def _names_a_person(stem: str, *, known_only: bool) -> bool:
    runs = ([word for word in re.split(r"[^\w'’]+|_", run) if word] for run in re.split(r"\d+", stem))
    return any(_holds_a_name(words, known_only=known_only) for words in runs)


def _holds_a_name(words: list[str], *, known_only: bool) -> bool:
    for left, right in pairwise(words):
        pair = (_folded(left), _folded(right))
        if pair[0] in TITLES and pair[1] not in ORDINARY_WORDS and right[0].isupper() and len(right) > 2:
            return True
        if ORDINARY_WORDS.intersection(pair) or TITLES.intersection(pair):
            continue
        names_a_dye = bool(STAIN_WORDS.intersection(pair))
        if GIVEN_NAMES.intersection(pair) and min(map(len, pair)) > 2 and not (known_only and names_a_dye):
            return True
        if not (known_only or names_a_dye) and all(word.istitle() and len(word) > 2 for word in (left, right)):
            return True
    return any(_is_camel_case_person(word) for word in words)


def _is_camel_case_person(word: str) -> bool:
    humps = re.findall(r"[A-ZÀ-Þ][a-zß-ÿ]{2,}", word)
    folded = [_folded(hump) for hump in humps]
    return (
        len(humps) >= 2
        and "".join(humps) == word
        and bool(GIVEN_NAMES.intersection(folded))
        and not ORDINARY_WORDS.intersection(folded)
    )


def _folded(word: str) -> str:
    plain = unicodedata.normalize("NFKD", word.casefold())
    return "".join(ch for ch in plain if not unicodedata.combining(ch))
