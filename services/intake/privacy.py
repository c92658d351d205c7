"""Finds what looks like a person's name, birth date or national number in an identifier or an object key.

Rules rather than a model: each is narrow enough that a pseudonym (`S-7F3A`), a counter (`slide-01/field-001.jpg`) or a
camera's time stamp (`Image__2022-10-29__06-09-26.jpg`) passes. They catch mistakes, not ill will.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Final

from stdnum import ean, luhn
from stdnum.at import vnr
from stdnum.cn import ric
from stdnum.es import dni
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.tr import tckimlik

from services.intake.names import GIVEN_NAMES, MONTHS, ORDINARY_WORDS, TITLES

OLDEST_PATIENT_YEARS: Final = 100
YOUNGEST_PATIENT_YEARS: Final = 14

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
_MONTH_NAMED = re.compile(rf"(?<!\d)\d{{1,2}}[-_. ]{{0,2}}(?:{MONTHS})[a-zä]*[-_. ]{{0,2}}(?P<y>\d{{4}})(?!\d)", re.I)


@lru_cache(maxsize=16384)
def personal_data_in(text: str) -> str | None:
    """What kind of personal data `text` seems to hold (`a birth date`, …), or `None`. `/` separates folders."""
    for part in text.split("/"):
        stem = _EXTENSION.sub("", part)
        if "@" in stem:
            return "an e-mail address"
        if _BIRTH_WORD.search(stem) or any(_is_birth_date(day) for day in _dates(stem)):
            return "a birth date"
        if any(pattern.search(stem) and _checks_out(pattern, check, stem) for pattern, check in _NATIONAL_NUMBERS):
            return "a national or insurance number"
        if _names_a_person(stem):
            return "a person's name"
    return None


def _dates(stem: str) -> Iterator[date]:
    for pattern, day_first in _DATES:
        for found in pattern.finditer(stem):
            year, month, day = int(found["y"]), int(found["m"]), int(found["d"])
            if year >= EARLIEST_CAMERA_STAMP and _CLOCK_TIME_FOLLOWS.match(stem, found.end()):
                continue  # a camera's time stamp in an old archive
            if day_first and month > 12:
                day, month = month, day  # 03-27-1987
            try:
                yield date(year, month, day)
            except ValueError:
                continue
    for found in _MONTH_NAMED.finditer(stem):
        yield date(max(1, int(found["y"])), 1, 1)


def _is_birth_date(day: date) -> bool:
    this_year = datetime.now(UTC).year
    return this_year - OLDEST_PATIENT_YEARS <= day.year <= this_year - YOUNGEST_PATIENT_YEARS


def _names_a_person(stem: str) -> bool:
    return any(_holds_a_name([w for w in re.split(r"[^\w'’]+|_", run) if w]) for run in re.split(r"\d+", stem))


def _holds_a_name(words: list[str]) -> bool:
    for left, right in pairwise(words):
        pair = (_folded(left), _folded(right))
        if pair[0] in TITLES and pair[1] not in ORDINARY_WORDS and right[0].isupper() and len(right) > 2:
            return True
        if ORDINARY_WORDS.intersection(pair) or TITLES.intersection(pair):
            continue
        if GIVEN_NAMES.intersection(pair) and min(map(len, pair)) > 2:
            return True
        if all(word.istitle() and len(word) > 2 for word in (left, right)):
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


def _checks_out(pattern: re.Pattern[str], check: Callable[[str], bool], stem: str) -> bool:
    return any(check("".join(ch for ch in found.group() if ch.isalnum()).upper()) for found in pattern.finditer(stem))


def _is_day(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _is_day_ddmmyy(digits: str) -> bool:
    day, month, year = int(digits[:2]), int(digits[2:4]), int(digits[4:6])
    return _is_day(2000 + year, month, day) or _is_day(1900 + year, month, day)


def _is_time_stamp(digits: str) -> bool:
    """Whether `YYMMDDHHMM` is a minute of the years in which no patient was born."""
    year = 2000 + int(digits[:2])
    recent = datetime.now(UTC).year - YOUNGEST_PATIENT_YEARS < year <= datetime.now(UTC).year
    clock = int(digits[6:8]) < 24 and int(digits[8:10]) < 60
    return recent and clock and _is_day(year, int(digits[2:4]), int(digits[4:6]))


# Check digits are the library's. Its `validate` also looks at dates, but a living patient's are fewer than it allows
# (Poland's of 1800 and 2200), and places of birth that it does not know may be new: so the dates are looked at here.


def _danish(digits: str) -> bool:
    return _is_day_ddmmyy(digits) and not _is_time_stamp(digits)


def _swedish(digits: str) -> bool:
    ten = digits[-10:]
    return luhn.is_valid(ten) and _is_day_ddmmyy(ten[4:6] + ten[2:4] + ten[:2]) and not _is_time_stamp(ten)


def _finnish(text: str) -> bool:
    century = text[6:-4] or "-"  # a sign that is not a letter was left out before
    return hetu.is_valid(f"{text[:6]}{century}{text[-4:]}", allow_temporary=True)


def _norwegian(digits: str) -> bool:
    check = fodselsnummer.calc_check_digit1(digits) + fodselsnummer.calc_check_digit2(digits)
    return _is_day_ddmmyy(digits) and digits[9:] == check


def _polish(digits: str) -> bool:
    month = int(digits[2:4])
    month -= 20 * (month > 20)  # 21 to 32: born in 2000 or later
    born = f"{digits[4:6]}{month:02d}{digits[:2]}"
    return _is_day_ddmmyy(born) and digits[10] == pesel.calc_check_digit(digits[:10])


def _turkish(digits: str) -> bool:
    return digits[9:] == tckimlik.calc_check_digits(digits)


def _austrian(digits: str) -> bool:
    return digits[3] == vnr.calc_check_digit(digits) and digits[0] != "0" and _is_day_ddmmyy(digits[4:])


def _french(digits: str) -> bool:
    return digits[13:] == nir.calc_check_digits(digits) and 1 <= int(digits[3:5]) <= 12


def _british_nhs(digits: str) -> bool:
    return nhs.checksum(digits) == 0


def _swiss(digits: str) -> bool:
    return digits[12] == ean.calc_check_digit(digits[:12])


def _german_insurance(text: str) -> bool:
    # Luhn's sum over the letter's place in the alphabet and the digits, but taken as it is for the check digit.
    return luhn.checksum(f"{ord(text[0]) - 64:02d}{text[1:9]}0") == int(text[9])


def _spanish(text: str) -> bool:
    return text[8] == dni.calc_check_digit(text[:8])


def _chinese(text: str) -> bool:
    born = text[6:14]
    return text[17] == ric.calc_check_digit(text) and _is_day(int(born[:4]) or 1, int(born[4:6]), int(born[6:]))


def _by_form_alone(_: str) -> bool:
    return True


def _number(form: str, check: Callable[[str], bool]) -> tuple[re.Pattern[str], Callable[[str], bool]]:
    return re.compile(rf"(?<![A-Za-z0-9]){form}(?![A-Za-z0-9])"), check


# Where the form alone is common (ten or eleven digits), the number's own check digits and date decide.
_NATIONAL_NUMBERS: Final = (
    _number(r"\d{6}-\d{4}", _danish),
    _number(r"(?:19|20)?\d{6}[-+]?\d{4}", _swedish),
    _number(r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]", _finnish),
    _number(r"\d{6} ?\d{5}", _norwegian),
    _number(r"\d{11}", _polish),
    _number(r"[1-9]\d{10}", _turkish),
    _number(r"\d{4} ?\d{6}", _austrian),
    _number(r"[12] ?\d\d ?\d\d ?\d\d ?\d{3} ?\d{3} ?\d\d", _french),
    _number(r"\d{3}[- ]\d{3}[- ]\d{4}", _british_nhs),
    _number(r"[A-CEGHJ-PR-TW-Z]{2} ?\d\d ?\d\d ?\d\d ?[A-D]", _by_form_alone),  # United Kingdom, national insurance
    _number(r"756[. ]?\d{4}[. ]?\d{4}[. ]?\d\d", _swiss),
    _number(r"[A-Z][1-9]\d{8}", _german_insurance),
    _number(r"\d{8}-?[A-HJ-NP-TV-Z]", _spanish),
    _number(r"\d{17}[0-9X]", _chinese),
    _number(r"(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}", _by_form_alone),  # United States
    _number(r"[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]", _by_form_alone),  # Italy
)
