"""Identifiers as laboratories, systems and persons have them, drawn by a seed."""

import string
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Final

from stdnum import ean, luhn
from stdnum.at import vnr
from stdnum.cn import ric
from stdnum.es import dni
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.tr import tckimlik

STAINS: Final = (
    "Papanicolaou", "Diff-Quik", "Diff Quick", "May-Grünwald-Giemsa", "May-Grunwald-Giemsa", "Bryan-Leishman", "Shorr",
    "Leishman-Giemsa", "Wright-Giemsa", "Wright Stain", "Romanowsky-Giemsa", "Harris Hematoxylin", "Mayer's Haemalum",
    "Toluidine Blue", "Aniline Blue", "Rose Bengal", "Eosin-Nigrosin", "SpermBlue", "Spermac", "Rapi-Diff II",
    "Acridine Orange", "Chromomycin A3", "Periodic Acid-Schiff", "Feulgen Schiff", "Ziehl-Neelsen", "Unna-Pappenheim",
    "Pappenheim Rapid", "Coomassie Brilliant Blue", "Basic Fuchsin", "Crystal Violet", "Methylene Blue", "Van Gieson",
    "Gomori Trichrome", "Masson-Goldner", "Nile Red", "Victoria Blue", "Evans Blue", "Congo Red", "Light Green SF",
    "Kwik-Diff", "Quick Panoptic", "Testsimplets", "Hemacolor Rapid", "Giemsa (mod.)", "Diff-Quik®", "H&E", "Nigrosine",
    "Ehrlich's Haematoxylin", "Lugol Iodine", "Hancock Rapid", "Sternheimer-Malbin", "Prussian Blue", "Oil Red O",
    "Panótico Rápido", "Hämatoxylin-Eosin", "Color Stain Plus", "Genta Violet", "Alexa Fluor 488", "Hoechst 33342",
)  # fmt: skip

KNOWN_GIVEN: Final = """
    Anna Andreas Maria Peter Juan Fatima Mehmet Katarzyna Katarina Jens Lars Giulia Pierre Hans
""".split()  # noqa: SIM905 - names read better than quotes
OTHER_GIVEN: Final = """
    Ola Håkon Solveig Aino Väinö Jarmo Saoirse Niamh Siobhan Gwen Rhys Kwame Amara Chidi Ngozi Priya Rahul Sanjay
    Deepika Yuki Haruto Sakura Minjun Seoyeon Thi Nguyet Somchai Kanya Budi Dewi Siti Rizky Joaquim Iker Nerea Jordi
    Montse Bogdan Mihai Ioana Dragan Milena Zoran Jovana Zsolt Ildiko Gyula Ondrej Vojtech Zdenka Bohdan Oksana
    Taras Ayse Cemal Serkan Nour Layla Yousef Farhad Shirin Dariush Gulnara Timur Aigerim Wei Xiaoming Jiahui Malik
    Imani Zola
""".split()  # noqa: SIM905 - names read better than quotes
SURNAMES: Final = """
    Nordmann Hansen Johansen Virtanen Korhonen Andersson Lindqvist Sørensen Murphy Gallagher Davies Okafor Adeyemi
    Mensah Patel Sharma Iyer Tanaka Yamamoto Kimura Parkson Nguyen Tran Suwan Wijaya Santoso Ferreira Oliveira
    Garcia Fernandez Etxeberria Puigdemont Rossi Bianchi Esposito Dubois Lefebvre Schmidt Hofmann Brandstetter Huber
    Novak Svoboda Horvath Szabo Kovacs Popescu Ionescu Petrovic Jovanovic Kowalski Wisniewska Shevchenko Bondarenko
    Ivanov Smirnova Yilmaz Demir Kaya Haddad Mansour Hosseini Rahimi Abdullayev Zhang Wang Chukwu Dlamini Mwangi
    Otieno
""".split()  # noqa: SIM905 - names read better than quotes


def ordinary(random: Random) -> tuple[str, str]:
    """What it is (`specimen`, `stain`, `slide`), and one that names nobody."""
    kind = random.choice(("specimen", "specimen", "slide", "stain"))
    made = {"specimen": random.choice(ACCESSIONS), "slide": _slide, "stain": lambda r: r.choice(STAINS)}[kind]
    return kind, made(random)


def _digits(random: Random, count: int) -> str:
    return "".join(random.choices(string.digits, k=count))


def _day(random: Random) -> date:
    today = datetime.now(UTC).date()
    return today - timedelta(days=random.randrange((today - date(today.year - 2, 1, 1)).days + 1))


def _year(random: Random) -> str:
    return str(_day(random).year)


def _counter(random: Random, digits: int) -> str:
    return f"{random.randrange(1, 60_000):0{digits}d}"


ACCESSIONS: Final[tuple[Callable[[Random], str], ...]] = (
    lambda r: f"{_day(r):%y%m%d}-{_digits(r, 4)}",
    lambda r: f"{_day(r):%d%m%y}-{_digits(r, 4)}",
    lambda r: f"{_day(r):%y%m%d}{_digits(r, 4)}",
    lambda r: f"{_day(r):%Y%m%d}{_digits(r, r.choice((3, 4)))}",
    lambda r: f"{_day(r):%y%m%d}{_digits(r, 5)}",
    lambda r: f"{r.choice('SABP')}{_day(r):%y%m%d}{_digits(r, 3)}",
    lambda r: f"{r.choice(('S', 'AND', 'SP', ''))}{_year(r)[2:]}-{_counter(r, 6)}",
    lambda r: f"{_year(r)}-{_counter(r, 5)}{r.choice(('', '-1', '-A'))}",
    lambda r: f"{_year(r)[2:]}{r.choice('HLMC')}{_counter(r, 6)}",
    lambda r: f"{r.choice('SPLK')}{_year(r)[2:]}{_counter(r, 7)}",
)
"""Ten formats of accession numbers."""


def _slide(random: Random) -> str:
    number = random.randrange(1, 500)
    return random.choice((
        f"slide-{number}", f"SL{number:05d}", f"S{number}-r{random.choice((1, 2))}", f"Rack-{number % 9}-Slot-{number}",
        f"{random.choice('ABCD')}{number}", f"Box {number % 20} Position {number}",
        f"{_day(random):%Y-%m-%d}_{number:03d}",
        f"{_day(random):%y%m%d}-{number:04d}-{random.choice('12')}", f"QC-{_year(random)}-{number}",
        f"Diff_Quik_{number}", f"Left_Edge_{number}", f"night-{_day(random):%Y-%m-%d}",
        f"{_day(random):%y%m%d}{random.choice('AB')}{number:03d}",
    ))  # fmt: skip


def _born(random: Random) -> date:
    first = date(datetime.now(UTC).year - 75, 1, 1)
    return first + timedelta(days=random.randrange(365 * 57))


def name(random: Random) -> str:
    """A person's name as it stands in file names."""
    given, surname = random.choice((*KNOWN_GIVEN, *OTHER_GIVEN)), random.choice(SURNAMES)
    forms = [f"{given} {surname}", f"{surname}, {given}", f"{surname}_{given}", f"{given}-{surname}_2"]
    forms.append(f"slide 1/{given} {surname}")
    if given in KNOWN_GIVEN:
        forms += [f"{surname}_{given}".upper(), f"{given}-{surname}".lower(), f"{given}{surname}", f"{surname}{given}3"]
    return random.choice(forms)


def birth_date(random: Random) -> str:
    """A birth date, bare or with an identifier around it."""
    form = random.choice(("%Y-%m-%d", "%d.%m.%Y", "%Y%m%d", "%d%m%Y", "%d-%m-%Y", "%Y_%m_%d", "%d-%b-%Y"))
    return random.choice(("{}", "P-{}", "S-7F3A_{}", "{}_01", "slide-3/{}")).format(f"{_born(random):{form}}")


def national_number(random: Random) -> tuple[str, str]:
    """The country, and a number as its office gives them out."""
    country = random.choice(tuple(NUMBERS))
    while True:
        number = NUMBERS[country](random)
        if number is not None:
            return country, number


def _swedish(random: Random) -> str:
    body = f"{_born(random):%y%m%d}{_digits(random, 3)}"
    return f"{body[:6]}{random.choice(('-', ''))}{body[6:]}{luhn.calc_check_digit(body)}"


def _finnish(random: Random) -> str:
    born = _born(random)
    serial = f"{random.randrange(2, 900):03d}"
    digits = f"{born:%d%m%y}{serial}"
    return f"{born:%d%m%y}{'-' if born.year < 2000 else 'A'}{serial}{hetu._calc_checksum(digits)}"


def _norwegian(random: Random) -> str | None:
    body = f"{_born(random):%d%m%y}{_digits(random, 3)}"
    first = fodselsnummer.calc_check_digit1(body)
    if len(first) > 1 or first == "-":
        return None
    second = fodselsnummer.calc_check_digit2(body + first)
    return None if len(second) > 1 or second == "-" else body + first + second


def _polish(random: Random) -> str:
    born = _born(random)
    body = f"{born:%y}{born.month + 20 * (born.year >= 2000):02d}{born:%d}{_digits(random, 4)}"
    return body + pesel.calc_check_digit(body)


def _turkish(random: Random) -> str:
    body = random.choice("123456789") + _digits(random, 8)
    return body + tckimlik.calc_check_digits(body)


def _austrian(random: Random) -> str | None:
    body = f"{random.randrange(100, 1000)}0{_born(random):%d%m%y}"
    check = vnr.calc_check_digit(body)
    return body[:3] + check + body[4:] if len(check) == 1 and check.isdigit() else None


def _french(random: Random) -> str:
    body = f"{random.choice('12')}{_born(random):%y%m}{random.randrange(1, 96):02d}{_digits(random, 6)}"
    return body + nir.calc_check_digits(body)


def _british_nhs(random: Random) -> str | None:
    body = random.choice("4567") + _digits(random, 8)
    check = 11 - sum((10 - place) * int(digit) for place, digit in enumerate(body)) % 11
    return None if check == 10 else f"{body[:3]}-{body[3:6]}-{body[6:]}{check % 11}"


def _british_insurance(random: Random) -> str:
    return f"{random.choice('ABCEHJ')}{random.choice('ABCEHJ')}{_digits(random, 6)}{random.choice('ABCD')}"


def _swiss(random: Random) -> str:
    body = f"756{_digits(random, 9)}"
    return f"756.{body[3:7]}.{body[7:11]}.{body[11:]}{ean.calc_check_digit(body)}"


def _german(random: Random) -> str:
    letter, digits = random.choice(string.ascii_uppercase), random.choice("123456789") + _digits(random, 7)
    places = f"{ord(letter) - 64:02d}{digits}"
    total = sum(sum(map(int, str(int(digit) * (1 + place % 2)))) for place, digit in enumerate(places))
    return f"{letter}{digits}{total % 10}"


def _spanish(random: Random) -> str:
    body = _digits(random, 8)
    return body + dni.calc_check_digit(body)


def _chinese(random: Random) -> str:
    body = f"110105{_born(random):%Y%m%d}{_digits(random, 3)}"
    return body + ric.calc_check_digit(body + "0")


def _italian(random: Random) -> str:
    consonants = "".join(random.choices("BCDFGLMNPRST", k=6))
    return f"{consonants}{_born(random):%y}{random.choice('ABCDEHLMPRST')}{_born(random):%d}A{_digits(random, 3)}Z"


NUMBERS: Final[dict[str, Callable[[Random], str | None]]] = {
    "Denmark": lambda r: f"{_born(r):%d%m%y}-{_digits(r, 4)}",
    "Sweden": _swedish,
    "Finland": _finnish,
    "Norway": _norwegian,
    "Poland": _polish,
    "Turkey": _turkish,
    "Austria": _austrian,
    "France": _french,
    "United Kingdom, health service": _british_nhs,
    "United Kingdom, insurance": _british_insurance,
    "Switzerland": _swiss,
    "Germany": _german,
    "Spain": _spanish,
    "China": _chinese,
    "United States": lambda r: f"{r.randrange(1, 666):03d}-{r.randrange(1, 100):02d}-{r.randrange(1, 10_000):04d}",
    "Italy": _italian,
}
