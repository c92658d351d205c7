"""National and insurance numbers of 16 countries, told from the accession numbers of laboratories.

Check digits are the library's. A number that holds a birth date must hold one that a patient can have. One that is led
by a day of these three years, or by the year and a counter, is an accession number, whatever its check digits.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
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

OLDEST_PATIENT_YEARS: Final = 100
YOUNGEST_PATIENT_YEARS: Final = 14

_YEARS_OF_ACCESSION: Final = 3


def holds_a_national_number(stem: str) -> bool:
    """Whether a number of a person stands in it, by its form, check digits and birth date."""
    for form, is_dated, checks_out in _NATIONAL_NUMBERS:
        for found in form.finditer(stem):
            number = "".join(ch for ch in found.group() if ch.isalnum()).upper()
            if not _is_accession(number, is_dated=is_dated) and checks_out(number):
                return True
    return False


def is_birth_year(year: int) -> bool:
    """Whether a patient may have been born in it."""
    this_year = datetime.now(UTC).year
    return this_year - OLDEST_PATIENT_YEARS < year <= this_year - YOUNGEST_PATIENT_YEARS


def _is_accession(number: str, *, is_dated: bool) -> bool:
    """Whether it begins, after letters, with a recent day in any order, or with a recent year and a counter.

    The latter is not asked of a number that holds a birth date: that of one born on the 24th begins like it.
    """
    led = re.match(r"[A-Z]{0,2}(\d{6,12})(?!\d|[A-Z]\d)", number)
    if led is None:
        return False
    digits = led.group(1)
    counts_a_year = _is_recent(digits[:4]) or (_is_recent(f"20{digits[:2]}") and digits[2] == "0")
    if (counts_a_year and not is_dated) or _is_time_stamp(digits):
        return True
    first, second, third = digits[:2], digits[2:4], digits[4:6]
    days = [(f"20{first}", second, third), (f"20{third}", second, first), (f"20{third}", first, second)]
    if len(digits) >= 8:
        days += [(digits[:4], third, digits[6:8]), (digits[4:8], second, first)]
    return any(_is_recent(year) and _is_day(int(year), int(month), int(day)) for year, month, day in days)


def _is_recent(year: str) -> bool:
    return 0 <= datetime.now(UTC).year - int(year) < _YEARS_OF_ACCESSION


def _is_time_stamp(digits: str) -> bool:
    """Whether `YYMMDDHHMM` is a minute of the years in which no patient was born."""
    year = 2000 + int(digits[:2])
    recent = 0 <= datetime.now(UTC).year - year < YOUNGEST_PATIENT_YEARS
    clock = len(digits) == 10 and int(digits[6:8]) < 24 and int(digits[8:10]) < 60
    return recent and clock and _is_day(year, int(digits[2:4]), int(digits[4:6]))


def _is_day(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _is_birth_day(day: str, month: str, year: str) -> bool:
    return any(
        is_birth_year(century + int(year)) and _is_day(century + int(year), int(month), int(day))
        for century in (1900, 2000)
    )


def _danish(digits: str) -> bool:
    return _is_birth_day(digits[:2], digits[2:4], digits[4:6])


def _swedish(digits: str) -> bool:
    ten = digits[-10:]
    return luhn.is_valid(ten) and _is_birth_day(ten[4:6], ten[2:4], ten[:2])


def _finnish(text: str) -> bool:
    century = text[6:-4] or "-"  # a sign that is not a letter was left out before
    born = _is_birth_day(text[:2], text[2:4], text[4:6])
    return born and hetu.is_valid(f"{text[:6]}{century}{text[-4:]}", allow_temporary=True)


def _norwegian(digits: str) -> bool:
    check = fodselsnummer.calc_check_digit1(digits) + fodselsnummer.calc_check_digit2(digits)
    return _is_birth_day(digits[:2], digits[2:4], digits[4:6]) and digits[9:] == check


def _polish(digits: str) -> bool:
    month = int(digits[2:4])
    month -= 20 * (month > 20)  # 21 to 32: born in 2000 or later
    born = _is_birth_day(digits[4:6], f"{month:02d}", digits[:2])
    return born and digits[10] == pesel.calc_check_digit(digits[:10])


def _turkish(digits: str) -> bool:
    return digits[9:] == tckimlik.calc_check_digits(digits)


def _austrian(digits: str) -> bool:
    return (
        digits[3] == vnr.calc_check_digit(digits)
        and digits[0] != "0"
        and _is_birth_day(digits[4:6], digits[6:8], digits[8:])
    )


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
    is_day = is_birth_year(int(born[:4])) and _is_day(int(born[:4]), int(born[4:6]), int(born[6:]))
    return is_day and text[17] == ric.calc_check_digit(text)


def _by_form_alone(_: str) -> bool:
    return True


_DATED: Final = (_danish, _swedish, _finnish, _norwegian, _polish, _austrian)


def _number(form: str, check: Callable[[str], bool]) -> tuple[re.Pattern[str], bool, Callable[[str], bool]]:
    return re.compile(rf"(?<![A-Za-z0-9]){form}(?![A-Za-z0-9])"), check in _DATED, check


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
