"""Heads of known size on an even field: ellipses with a pale front, so that every measure has one right answer."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from services.imaging.types import RGB

GLASS = (232, 230, 238)
NUCLEUS = (70, 20, 150)
ACROSOME = (170, 110, 205)
PALE = (150, 150, 215)
_FINE = 4  # drawn so many times finer, then averaged: edges as a lens would blur them


@dataclass(frozen=True)
class Drawn:
    """An ellipse of `length` × `width` µm at x, y µm; `angle` in degrees from x towards y points to its front."""

    x: float
    y: float
    angle: float = 0.0
    length: float = 4.4
    width: float = 2.8
    acrosome: float = 0.45
    midpiece: float = 0.0
    bend: float = 0.0


def draw(
    heads: list[Drawn], um_per_px: float = 0.045, size_um: tuple[float, float] = (40.0, 30.0), **spots: list[Drawn]
) -> RGB:
    """A field `[H, W, 3]`. `acrosome` is the share of the head area; `midpiece` a width in µm; `bend` its angle.

    `spots` are plain ellipses under the name of their colour: `pale`, `dark`, `bright`.
    """
    fine = um_per_px / _FINE
    width, height = (round(size / um_per_px) * _FINE for size in size_um)
    canvas = np.full((height, width, 3), GLASS, np.uint8)
    for head in heads:
        if head.midpiece:
            start = np.array([head.x, head.y]) - _towards(head.angle) * (head.length / 2 - 0.3)
            line = np.array([start, start - _towards(head.angle + head.bend) * 5]) / fine
            cv2.line(canvas, *(tuple(int(v) for v in p) for p in line), (150, 150, 215), round(head.midpiece / fine))
        inside = _ellipse(canvas.shape[:2], head, fine)
        rows, columns = np.nonzero(inside)
        forward = (np.stack([columns, rows], 1) * fine - [head.x, head.y]) @ _towards(head.angle)
        front = forward >= np.quantile(forward, 1 - head.acrosome)
        canvas[rows, columns] = NUCLEUS
        canvas[rows[front], columns[front]] = ACROSOME
    for name, colour in (("pale", PALE), ("dark", (40, 60, 190)), ("bright", (225, 220, 235))):
        for spot in spots.get(name, []):
            canvas[_ellipse(canvas.shape[:2], spot, fine)] = colour
    small = cv2.resize(canvas, (width // _FINE, height // _FINE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 0.06 / um_per_px), np.uint8)


def _towards(angle: float) -> NDArray[np.float64]:
    return np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])


def _ellipse(shape: tuple[int, ...], head: Drawn, fine: float) -> NDArray[np.bool_]:
    mask = np.zeros(shape, np.uint8)
    centre = round(head.x / fine * 16), round(head.y / fine * 16)
    axes = round(head.length / 2 / fine * 16), round(head.width / 2 / fine * 16)
    cv2.ellipse(mask, centre, axes, head.angle, 0, 360, 1, -1, shift=4)
    return mask.astype(np.bool_)
