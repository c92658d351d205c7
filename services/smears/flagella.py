"""Midpieces and tails in µm, as strands: a centre line with a width and a strength of stain at every point.

A cell's head points to +x, so a flagellum starts at the head's base and runs to -x. What tells the tail classes apart
lies within 12 µm of the head: the networks see no more of a tail than that.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.smears.head_shapes import Points

_STEP: Final = 0.25  # µm between the points of a centre line
_TAIL_WIDTH: Final = (0.34, 0.2)  # at its start and at its end


@dataclass(frozen=True, slots=True)
class Strand:
    """`points` `[n, 2]` µm, `widths` `[n]` µm, `strength` `[n]` (1: the stain's usual density)."""

    points: Points
    widths: NDArray[np.floating]
    strength: NDArray[np.floating]
    heading: float  # radians, at its end


@dataclass(frozen=True, slots=True)
class Flagellum:
    """A midpiece and the tail that follows it."""

    midpiece: Strand
    tail: Strand


def midpiece(
    rng: np.random.Generator, start: tuple[float, float], heading: float, *, width: float, strength: float = 1.0
) -> Strand:
    """A usual midpiece of about 4 µm: it narrows a little and bends hardly at all."""
    count = int(rng.uniform(3.5, 4.7) / _STEP)
    headings = heading + np.linspace(0.0, rng.normal(0.0, 0.08), count)
    taper = np.linspace(1.12, 0.75, count) + rng.normal(0.0, 0.05) * np.sin(np.arange(count) * rng.uniform(0.4, 1.0))
    uneven = 1.0 + 0.12 * np.interp(np.linspace(0.0, 4.0, count), np.arange(5), rng.normal(0.0, 1.0, 5))
    return _strand(start, headings, width * taper, strength * uneven)


def thick_midpiece(rng: np.random.Generator, start: tuple[float, float], heading: float) -> Strand:
    """A swollen midpiece, 1.25–1.9 µm wide over most of its length, uneven."""
    count = int(rng.uniform(3.2, 4.8) / _STEP)
    along = np.linspace(0.0, 1.0, count)
    bulge = np.sin(np.pi * np.clip(along * 0.86 + 0.14, 0.0, 1.0)) ** rng.uniform(0.35, 0.7)
    uneven = 1.0 + rng.uniform(0.04, 0.12) * np.sin(along * rng.uniform(5, 11) + rng.uniform(0, 6))
    widths = np.maximum(rng.uniform(1.3, 1.9) * bulge * uneven, 0.4)
    return _strand(start, heading + along * rng.normal(0.0, 0.1), widths, np.full(count, 1.1))


def thin_midpiece(rng: np.random.Generator, start: tuple[float, float], heading: float) -> Strand:
    """A thread: narrower and paler than the tail that it carries."""
    count = int(rng.uniform(3.4, 4.6) / _STEP)
    widths = np.full(count, rng.uniform(0.13, 0.2))
    widths[-2:] = (0.28, 0.34)
    return _strand(start, heading + np.linspace(0.0, rng.normal(0.0, 0.12), count), widths, np.full(count, 0.5))


def bent_midpiece(rng: np.random.Generator, start: tuple[float, float]) -> Strand:
    """A neck that breaks away 65–125° from the head's axis within 1.5 µm of the base."""
    count = int(rng.uniform(3.6, 4.8) / _STEP)
    along = np.arange(count) * _STEP
    bend = rng.choice([-1.0, 1.0]) * np.radians(rng.uniform(68, 125))
    kink = _smooth_step((along - rng.uniform(0.3, 0.9)) / rng.uniform(0.3, 0.7))
    return _strand(start, np.pi + bend * kink, rng.uniform(0.45, 0.65) * np.linspace(1.1, 0.8, count), np.ones(count))


def usual_tail(rng: np.random.Generator, after: Strand, length: float | None = None) -> Strand:
    """About 45 µm of easy curves; it turns by less than a right angle before it leaves the crop."""
    count = max(int((rng.uniform(40, 50) if length is None else length) / _STEP), 4)
    along = np.arange(count) * _STEP
    near = np.clip(along / 10.0, 0.0, 1.0)
    knots = np.cumsum(rng.normal(0.0, 0.24, 12))
    wander = np.interp(along, np.arange(12) * 4.5, knots - knots[0])
    wave = rng.uniform(0.0, 0.14) * np.sin(2 * np.pi * along / rng.uniform(6, 12) + rng.uniform(0, 6))
    sweep = np.radians(rng.normal(0.0, 1.1)) * along * near
    return _tail(rng, after, np.clip(wander, -0.7 - near, 0.7 + near) + wave - wave[0] + np.clip(sweep, -1.4, 1.4))


def short_tail(rng: np.random.Generator, after: Strand) -> Strand:
    """A stump of 1.5–4.5 µm behind the midpiece."""
    count = int(rng.uniform(1.5, 4.5) / _STEP)
    return _tail(rng, after, np.linspace(0.0, rng.normal(0.0, 0.25), count))


def long_tail(rng: np.random.Generator, after: Strand) -> Strand:
    """A tail of 65–80 µm, which in our convention comes back: one wide turn, past the head, out in front.

    A crop of 24 µm shows neither 45 nor 70 µm of a straight tail, so that its length can be seen in this way only.
    """
    run = rng.uniform(0.2, 1.4)
    radius = rng.uniform(2.4, 3.6)
    side = rng.choice([-1.0, 1.0])
    along = np.arange(int(rng.uniform(58, 70) / _STEP)) * _STEP
    turn = np.radians(rng.uniform(165, 195))
    headings = side * turn * _smooth_step((along - run) / (radius * turn * 1.15))
    late = np.clip(along - run - radius * turn - 14.0, 0.0, None)
    wave = 0.12 * np.sin(along / rng.uniform(1.5, 2.5))
    return _tail(rng, after, headings + wave + late * rng.normal(0.0, 0.03))


def curly_tail(rng: np.random.Generator, after: Strand) -> Strand:
    """Coiled: one and a half to three full turns, radius 0.9–2.2 µm, close behind the midpiece."""
    run = rng.uniform(0.0, 2.2)
    turns = rng.uniform(1.5, 3.0)
    outer, inner = rng.uniform(1.7, 2.3), rng.uniform(0.8, 1.2)
    coil = np.pi * (outer + inner) * turns
    along = np.arange(int((run + coil) / _STEP)) * _STEP
    radius = np.interp(along, [run, run + coil], [outer, inner])
    headings = rng.choice([-1.0, 1.0]) * np.cumsum(np.where(along > run, _STEP / radius, 0.0))
    return _tail(rng, after, headings)


def twisted_tail(rng: np.random.Generator, after: Strand) -> Strand:
    """Broken two to four times to and fro, each by 70–135°, within reach of the head."""
    along = np.arange(int(rng.uniform(30, 42) / _STEP)) * _STEP
    headings = np.zeros_like(along)
    at, side = rng.uniform(0.2, 1.4), rng.choice([-1.0, 1.0])
    for number in range(int(rng.integers(2, 5))):
        angle = np.radians(rng.uniform(40, 75) if number == 0 else rng.uniform(80, 135))
        headings += side * angle * _smooth_step((along - at) / rng.uniform(0.35, 0.7))
        at += rng.uniform(1.7, 3.2)
        side = -side
    return _tail(rng, after, headings + 0.08 * np.sin(along))


def two_flagella(rng: np.random.Generator, start: tuple[float, float]) -> tuple[Flagellum, Flagellum]:
    """Two whole flagella from one base, 25–75° apart, which do not meet again in sight."""
    apart = np.radians(rng.uniform(26, 75))
    lean = rng.normal(0.0, 0.1)
    x, y = start
    pieces = []
    for side in (-1.0, 1.0):
        piece = midpiece(rng, (x, y + 0.12 * side), np.pi + lean - side * apart / 2, width=rng.uniform(0.42, 0.65))
        count = int(rng.uniform(36, 48) / _STEP)
        along = np.arange(count) * _STEP
        sway = -side * rng.uniform(-0.012, 0.02) * along + 0.1 * np.sin(along / rng.uniform(1.5, 3.0))
        pieces.append(Flagellum(piece, _tail(rng, piece, sway)))
    return pieces[0], pieces[1]


def _tail(rng: np.random.Generator, after: Strand, turns: NDArray[np.floating]) -> Strand:
    """A tail that goes on from `after`, its heading changed by `turns` along it."""
    first, last = _TAIL_WIDTH
    count = len(turns)
    share = np.arange(count) * _STEP / max(45.0, count * _STEP)
    x, y = after.points[-1]
    widths = (first + (last - first) * share) * rng.uniform(0.88, 1.12)
    return _strand((float(x), float(y)), after.heading + turns, widths, 1.0 - 0.5 * share)


def _strand(
    start: tuple[float, float],
    headings: NDArray[np.floating],
    widths: NDArray[np.floating],
    strength: NDArray[np.floating],
) -> Strand:
    steps = _STEP * np.column_stack([np.cos(headings), np.sin(headings)])
    points = np.cumsum(np.vstack([start, steps[:-1]]), axis=0)
    return Strand(points, widths, strength, float(headings[-1]))


def _smooth_step(x: NDArray[np.floating]) -> NDArray[np.floating]:
    held = np.clip(x, 0.0, 1.0)
    stepped: NDArray[np.floating] = held * held * (3.0 - 2.0 * held)
    return stepped
