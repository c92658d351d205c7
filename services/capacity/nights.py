"""The uploads of a night: drawn for so many labs, or as they are on record."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Final

import numpy as np

DAY_S: Final = 86_400
_NOON_S: Final = DAY_S // 2
# Labs differ: of these sizes the largest tenth send a third of all slides.
_SIZES_SIGMA: Final = 0.6


@dataclass(frozen=True, slots=True)
class Slide:
    """A slide to be analysed. `arrives`: seconds after the noon before, when its manifest is read."""

    arrives: float
    lab: int
    fields: int
    cells: int
    megabytes: float
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Habits:
    """What the labs of a night send.

    Each sends one batch between `first` and `last` by the clock, most of them in the first half. The numbers of slides,
    of fields a slide and of cells are means; `urgent` is the share of batches that are urgent, which come at any time
    from noon to `last`.
    """

    labs: int
    slides: float = 8.0
    fields: float = 20.0
    cells: float = 12.0
    megabytes: float = 0.5
    first: time = time(17)
    last: time = time(1)
    urgent: float = 0.0


@dataclass(frozen=True, slots=True)
class Night:
    """Slides in the order in which they arrive."""

    slides: Sequence[Slide]

    @property
    def fields(self) -> int:
        """Of all slides."""
        return sum(slide.fields for slide in self.slides)

    @property
    def cells(self) -> int:
        """Of all slides."""
        return sum(slide.cells for slide in self.slides)

    @property
    def megabytes(self) -> float:
        """Of all fields."""
        return math.fsum(slide.megabytes for slide in self.slides)


def after_noon(clock: time) -> float:
    """Seconds from the noon before until the clock shows `clock`."""
    since = timedelta(hours=clock.hour, minutes=clock.minute, seconds=clock.second).total_seconds()
    return (since - _NOON_S) % DAY_S


def on_the_clock(seconds: float) -> str:
    """Seconds after noon as a clock shows them, `23:40`; with the days that have passed since, if any."""
    whole = datetime(2000, 1, 1, 12) + timedelta(seconds=round(seconds / 60) * 60)
    days = (whole - datetime(2000, 1, 1, 12)).days
    return f"{whole:%H:%M}" + (f" (+{days} days)" if days else "")


def draw_night(habits: Habits, seed: int) -> Night:
    """Draw a night of these habits; the same seed draws the same."""
    rng = np.random.default_rng(seed)
    opens = after_noon(habits.first)
    width = (after_noon(habits.last) - opens) % DAY_S
    slides: list[Slide] = []
    sizes = rng.lognormal(math.log(habits.slides) - _SIZES_SIGMA**2 / 2, _SIZES_SIGMA, habits.labs)
    counts = np.maximum(1, np.rint(sizes)).astype(int)
    uploads = opens + width * rng.beta(1.5, 3, habits.labs)
    urgent = rng.random(habits.labs) < habits.urgent
    at_any_time = rng.uniform(0, opens + width, habits.labs)
    for lab, count in enumerate(counts):
        arrives = float(at_any_time[lab] if urgent[lab] else uploads[lab])
        fields = np.maximum(1, rng.poisson(habits.fields, count))
        cells = rng.poisson(fields * habits.cells)
        slides += [
            Slide(arrives, lab, int(f), int(c), float(f) * habits.megabytes, bool(urgent[lab]))
            for f, c in zip(fields, cells, strict=True)
        ]
    return Night(sorted(slides, key=lambda slide: slide.arrives))
