"""Shapes of sperm heads in µm: the outline, the acrosome's share and the vacuoles, for every form of head.

A head lies with its apex at +x, its base (where the neck joins) at -x and its middle at the origin. Sizes follow the
WHO laboratory manual, 6th edition: a normal head is 3.7–4.7 µm long and 2.5–3.2 µm wide, length ÷ width 1.3–1.8, and
its acrosome covers 40–70 % of it. `docs/smears.md` lists the range of every class.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""`[n, 2]` x, y in µm, or in pixels where said so."""

_ANGLES = np.linspace(0.0, 2.0 * np.pi, 72, endpoint=False)
_COS, _SIN = np.cos(_ANGLES), np.sin(_ANGLES)


@dataclass(frozen=True, slots=True)
class Vacuole:
    """A pale spot: centre and radii in µm in the head's frame; `depth` 0–1 is how much of the stain it lacks."""

    x: float
    y: float
    rx: float
    ry: float
    depth: float


@dataclass(frozen=True, slots=True)
class HeadShape:
    """One head. `acrosome_share` is the part of its area at the apex; `curve` bends the acrosome's lower edge.

    `axis` is the direction of the apex in radians: 0 but for the two heads of a double one.
    """

    outline: Points
    acrosome_share: float
    curve: float
    vacuoles: tuple[Vacuole, ...] = ()
    axis: float = 0.0

    @property
    def base(self) -> tuple[float, float]:
        """Where a neck joins in the middle of the base, slightly inside the head."""
        x = float(self.outline[:, 0].min())
        near = self.outline[self.outline[:, 0] < x + 0.15]
        return x + 0.08, float(near[:, 1].mean())

    @property
    def area(self) -> float:
        """Area in µm²."""
        x, y = self.outline.T
        return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def normal_head(rng: np.random.Generator) -> HeadShape:
    """Smooth oval; the base may be somewhat narrower and flat; at most one small vacuole."""
    length = _within(rng, 4.2, 0.22, 3.7, 4.75)
    ratio = _within(rng, 1.5, 0.08, 1.34, 1.68)
    outline = _oval(rng, length, length / ratio, egg=rng.uniform(0.0, 0.15))
    head = HeadShape(outline, rng.uniform(0.38, 0.58), rng.uniform(-0.1, 0.35))
    if rng.random() < 0.25:
        radius = rng.uniform(0.16, 0.26)
        head = replace(head, vacuoles=(_spot(rng, head, radius),))
    return head


def tapered_head(rng: np.random.Generator) -> HeadShape:
    """Cigar-shaped: at least twice as long as wide."""
    length = rng.uniform(4.7, 6.3)
    outline = _oval(rng, length, length / rng.uniform(2.1, 2.9), egg=rng.uniform(0.0, 0.28))
    return HeadShape(outline, rng.uniform(0.3, 0.5), rng.uniform(-0.1, 0.3))


def round_head(rng: np.random.Generator) -> HeadShape:
    """As wide as long; the acrosome is often small or missing."""
    length = rng.uniform(3.0, 4.1)
    outline = _oval(rng, length, length / rng.uniform(0.98, 1.12), egg=rng.uniform(-0.03, 0.05), flat=0.02)
    return HeadShape(outline, rng.uniform(0.25, 0.5) if rng.random() < 0.75 else 0.04, rng.uniform(0.0, 0.3))


def pyriform_head(rng: np.random.Generator) -> HeadShape:
    """Pear-shaped: wide in front, drawn out into a narrow base."""
    length = rng.uniform(4.6, 5.8)
    width = rng.uniform(2.6, 3.3)
    narrowing = rng.uniform(0.58, 0.74)
    front = rng.uniform(0.3, 0.5)
    step = np.clip((front - _COS) / (front + 0.72), 0.0, 1.0)
    waist = 1.0 - narrowing * step * step * (3.0 - 2.0 * step)
    y = width / 2 * np.sign(_SIN) * np.abs(_SIN) ** 0.85 * waist
    outline = _roughened(rng, np.column_stack([length / 2 * _COS, y]), 0.015)
    return HeadShape(outline, rng.uniform(0.34, 0.55), rng.uniform(0.0, 0.35))


def narrow_acrosome_head(rng: np.random.Generator) -> HeadShape:
    """The front is pinched into a narrow cap, to which the acrosome is confined: under a quarter of the head."""
    length = rng.uniform(4.0, 5.0)
    width = rng.uniform(2.6, 3.15)
    narrowing = rng.uniform(0.48, 0.62)
    step = np.clip((_COS + rng.uniform(0.05, 0.3)) / 0.85, 0.0, 1.0)
    waist = 1.0 - narrowing * step * step * (3.0 - 2.0 * step)
    # A power below 1 keeps the cap blunt, a finger and no thorn.
    y = width / 2 * np.sign(_SIN) * np.abs(_SIN) ** np.where(_COS > 0.5, 0.85 - 0.45 * (_COS - 0.5) * 2, 0.85) * waist
    outline = _roughened(rng, np.column_stack([np.maximum(length / 2 * _COS, -0.47 * length), y]), 0.015)
    return HeadShape(outline, rng.uniform(0.1, 0.2), rng.uniform(-0.1, 0.2))


def pin_head(rng: np.random.Generator, area: float | None = None) -> HeadShape:
    """A head of 3.6–4.8 µm², or of `area`: at most half of a normal one, dark, without an acrosome."""
    ratio = rng.uniform(1.05, 1.45)
    length = float(np.sqrt(4.0 / np.pi * (rng.uniform(3.6, 4.8) if area is None else area) * ratio))
    outline = _oval(rng, length, length / ratio, egg=rng.uniform(-0.05, 0.1))
    return HeadShape(outline, 0.0, 0.0)


def vacuolated_head(rng: np.random.Generator) -> HeadShape:
    """A head of normal shape with vacuoles over more than 15 % of it, or at least three of them."""
    plain = replace(normal_head(rng), vacuoles=())
    kind = rng.integers(3)
    count = (1, 2, int(rng.integers(3, 5)))[kind]
    radius = (rng.uniform(0.72, 0.92), rng.uniform(0.5, 0.66), rng.uniform(0.36, 0.48))[kind]
    spots: list[Vacuole] = []
    for _ in range(60):
        spot = _spot(rng, plain, radius * rng.uniform(0.9, 1.1))
        if all(np.hypot(spot.x - s.x, spot.y - s.y) > 1.9 * radius for s in spots):
            spots.append(spot)
        if len(spots) == count:
            break
    return replace(plain, vacuoles=tuple(spots))


def amorphous_head(rng: np.random.Generator) -> HeadShape:
    """No shape of the others: lobed, notched or bent, and asymmetric."""
    length = rng.uniform(3.4, 5.2)
    outline = np.column_stack([length / 2 * _COS, length / rng.uniform(1.15, 1.8) / 2 * _SIN])
    radius = np.ones_like(_ANGLES)
    for order in (2, 3, 4, 5):
        swing = rng.uniform(0.5, 1.0) * {2: 0.09, 3: 0.12, 4: 0.09, 5: 0.05}[order]
        radius += swing * np.cos(order * _ANGLES + rng.uniform(0.0, 2.0 * np.pi))
    if rng.random() < 0.7:  # a bite out of one flank
        where = rng.choice([-1.0, 1.0]) * rng.uniform(0.9, 2.2)
        away = np.angle(np.exp(1j * (_ANGLES - where)))
        radius -= rng.uniform(0.22, 0.36) * np.exp(-((away / rng.uniform(0.28, 0.45)) ** 2))
    outline *= np.clip(radius, 0.45, 1.6)[:, None]
    outline[:, 1] += rng.choice([-1.0, 1.0]) * rng.uniform(0.04, 0.13) * outline[:, 0] ** 2
    outline -= (outline.max(axis=0) + outline.min(axis=0)) / 2
    share = 0.04 if rng.random() < 0.3 else rng.uniform(0.12, 0.5)
    head = HeadShape(outline, share, rng.uniform(-0.4, 0.6))
    if rng.random() < 0.35:
        head = replace(head, vacuoles=(_spot(rng, head, rng.uniform(0.2, 0.35)),))
    return head


def double_heads(
    rng: np.random.Generator, spread: float | None = None, aside: tuple[float, float] = (0.35, 0.55)
) -> tuple[HeadShape, HeadShape]:
    """Two heads on one neck, grown together at their bases and spread like a V; together centred on the origin.

    `spread` is the angle between them in radians, `aside` how far their bases may lie from the axis, µm.
    """
    spread = (rng.uniform(np.radians(26), np.radians(62)) if spread is None else spread) / 2
    heads = []
    for side in (-1.0, 1.0):
        length = rng.uniform(3.4, 4.4)
        head = HeadShape(
            _oval(rng, length, length / rng.uniform(1.45, 1.75), egg=rng.uniform(0.05, 0.18)),
            rng.uniform(0.32, 0.55),
            0.2,
        )
        heads.append(_moved(head, side * spread, length / 2 - 0.3, side * rng.uniform(*aside)))
    together = np.concatenate([h.outline for h in heads])
    middle = (together.max(axis=0) + together.min(axis=0)) / 2
    first, second = (_shifted(h, -float(middle[0]), -float(middle[1])) for h in heads)
    return first, second


def _moved(head: HeadShape, angle: float, reach: float, aside: float) -> HeadShape:
    """`head` with its base near the origin, turned by `angle` and set `aside`."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline = (head.outline + np.array([reach, 0.0])) @ turn
    outline[:, 1] += aside
    return replace(head, outline=outline, axis=angle)


def _shifted(head: HeadShape, dx: float, dy: float) -> HeadShape:
    return replace(head, outline=head.outline + np.array([dx, dy]))


def _oval(rng: np.random.Generator, length: float, width: float, *, egg: float, flat: float = 0.06) -> Points:
    """An oval of the given size, wider in front for `egg` > 0, its base cut flat by up to `flat` of the length."""
    x = length / 2 * np.maximum(_COS, -1.0 + 2.0 * rng.uniform(0.0, flat))
    y = width / 2 * np.sign(_SIN) * np.abs(_SIN) ** rng.uniform(0.84, 1.0) * (1.0 + egg * _COS) / (1.0 + 0.25 * egg**2)
    return _roughened(rng, np.column_stack([x, y]), 0.012)


def _roughened(rng: np.random.Generator, outline: Points, amount: float) -> Points:
    """No cell is drawn with a compass: a few low waves along the outline."""
    wave = np.zeros_like(_ANGLES)
    for order in (2, 3, 5):
        wave += rng.normal(0.0, amount) * np.cos(order * _ANGLES + rng.uniform(0.0, 2.0 * np.pi))
    return outline * (1.0 + wave)[:, None]


def _spot(rng: np.random.Generator, head: HeadShape, radius: float) -> Vacuole:
    """A vacuole wholly inside the head, anywhere but at the base."""
    half_length, half_width = np.abs(head.outline).max(axis=0)
    angle, reach = rng.uniform(0.0, 2.0 * np.pi), np.sqrt(rng.random())
    x = reach * np.cos(angle) * max(half_length - radius - 0.3, 0.1) + 0.12 * half_length
    y = reach * np.sin(angle) * max(half_width - radius - 0.25, 0.05)
    return Vacuole(
        float(x), float(y), radius * rng.uniform(0.9, 1.15), radius * rng.uniform(0.85, 1.05), rng.uniform(0.7, 0.92)
    )


def _within(rng: np.random.Generator, mean: float, spread: float, least: float, most: float) -> float:
    return float(np.clip(rng.normal(mean, spread), least, most))
