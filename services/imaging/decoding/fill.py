"""Pictures that decode well and are not whole: saved again after a decoder had filled in what was missing.

libjpeg paints missing rows mid-grey. Rows that were never written to an uncompressed file are black, and begin or end
within a row, as no margin does. A channel that is the same everywhere was never filled, or never written. A camera that
loses a half-picture leaves every second row black; a driver that waits for rows repeats the last one.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.imaging.decoding.refusals import AGAIN, CONVERT, FieldDamaged, FieldSeparateChannels
from services.imaging.decoding.source import Source
from services.imaging.types import RGB

_LEAST_ROWS: Final = 8  # one row of blocks of a JPEG
_LEAST_PIXELS: Final = 8
_LARGE: Final = 1 / 3  # of the rows; no margin at one end alone is so high
_GREY: Final = 128
_COMB: Final = 1 / 8  # of all rows are black between two that are not
_REPEATED: Final = 1 / 16  # of the rows, one after the other
_LEVELS_OF_A_PICTURE: Final = 32  # in a row; frames and windows have a few
_FRAMED: Final = 0.9  # of all rows have a margin on both sides

Rows = NDArray[np.bool_]


def check_fill(source: Source, pixels: RGB) -> None:
    """Refuse a picture `[H, W, 3]` of which a part is a fill.

    Raises:
        FieldDamaged, FieldSeparateChannels
    """
    # A few pixels of each row rule out nearly all rows, at a hundredth of the time.
    left, middle, right = (pixels[:, column] for column in (0, pixels.shape[1] // 2, -1))
    low = np.minimum(np.minimum(left, middle), right)
    high = np.maximum(np.maximum(left, middle), right)
    grey = np.asarray(((low >= _GREY - 1) & (high <= _GREY + 1)).all(axis=1))
    if rows := _grey_fill(pixels, grey):
        raise FieldDamaged(
            f"{source.name}: {rows} rows are the even grey that decoders put where data is missing; {AGAIN}"
        )
    if rows := _missing_between(pixels, (high == 0).all(axis=1)):
        raise FieldDamaged(
            f"{source.name}: {rows} rows between others are black: half of the picture is missing; {AGAIN}"
        )
    if rows := _repeated(pixels, left, middle, right):
        raise FieldDamaged(f"{source.name}: {rows} rows repeat the row above: the picture is not whole; {AGAIN}")
    even = (low.min(axis=0) == high.max(axis=0)).tolist()
    for channel in range(3):
        if rows := _unwritten(pixels[..., channel], high[:, channel] == 0):
            raise FieldDamaged(f"{source.name}: {rows} rows were never written to the file; {AGAIN}")
    if not any(even):
        return
    constant = [even[channel] and bool((pixels[..., channel] == left[0, channel]).all()) for channel in range(3)]
    if any(constant) and not all(constant):
        held = 3 - sum(constant)
        raise FieldSeparateChannels(f"{source.name}: only {held} of 3 colour channels hold a picture; {CONVERT}")


def _is_grey(pixels: RGB) -> Rows:
    """The rows `[n, w, 3]` that are mid-grey all along."""
    return np.asarray(((pixels >= _GREY - 1) & (pixels <= _GREY + 1)).all(axis=(1, 2)))


def _bands(rows: Rows, picture: NDArray[np.uint8], matches: Callable[[NDArray[np.uint8]], Rows]) -> list[list[int]]:
    """Begin and end of each run of at least 8 of `rows` whose pixels all match."""
    candidates = np.flatnonzero(rows)
    if candidates.size < _LEAST_ROWS:
        return []
    whole = np.zeros(len(rows) + 2, np.int8)  # with a row that does not match at either end
    whole[candidates + 1] = matches(picture[candidates])
    edges = np.flatnonzero(np.diff(whole)).reshape(-1, 2).tolist()
    return [band for band in edges if band[1] - band[0] >= _LEAST_ROWS]


def _grey_fill(pixels: RGB, rows: Rows) -> int:
    """How many of `rows`, if they are not of a margin, are mid-grey from side to side."""
    bands = _bands(rows, pixels, _is_grey)
    if not bands or bands[0][0] == 0:  # decoding begins at the top
        return 0
    if _is_grey(pixels[:, [0, -1]]).mean() > _FRAMED:
        return 0
    return sum(end - begin for begin, end in bands)


def _unwritten(plane: NDArray[np.uint8], rows: Rows) -> int:
    """How many of `rows` are zero, if these begin or end in the middle of a row, or are a third of the picture."""
    height = len(plane)
    for begin, end in _bands(rows, plane, lambda part: np.asarray((part == 0).all(axis=1))):
        above = begin > 1 and _partly(plane[begin - 1], plane[begin - 2])
        below = end < height - 1 and _partly(plane[end], plane[end + 1])
        at_one_end = (begin == 0) != (end == height)
        if above or below or (at_one_end and end - begin > _LARGE * height and not _has_black_side(plane)):
            return end - begin
    return 0


def _missing_between(pixels: RGB, black: Rows) -> int:
    """How many of the rows that may be `black` are so between two that are not, if these are many."""
    alone = np.zeros_like(black)
    alone[1:-1] = black[1:-1] & ~black[:-2] & ~black[2:]
    if alone.sum() <= _COMB * len(black):
        return 0
    rows = int((pixels[alone] == 0).all(axis=(1, 2)).sum())
    return rows if rows > _COMB * len(black) else 0


def _repeated(pixels: RGB, *columns: NDArray[np.uint8]) -> int:
    """How many rows are the same as the row above and hold a picture; `columns` `[H, 3]` are a few of its columns."""
    same = np.logical_and.reduce([(column[1:] == column[:-1]).all(axis=1) for column in columns])
    least = max(_LEAST_ROWS, int(_REPEATED * len(pixels)))
    edges = np.flatnonzero(np.diff(np.concatenate(([False], same, [False])).astype(np.int8))).reshape(-1, 2).tolist()
    for begin, end in edges:
        if end - begin < least or end - begin == len(pixels) - 1:  # all the same: drawn, not photographed
            continue
        row = pixels[begin]
        if len(np.unique(row[:, 1])) > _LEVELS_OF_A_PICTURE and bool((pixels[begin + 1 : end + 1] == row).all()):
            return int(end - begin)
    return 0


def _has_black_side(plane: NDArray[np.uint8]) -> bool:
    """Whether there is a black margin at the left or right as well, as around a mosaic or an eyepiece."""
    return any((plane[:, side] == 0).mean() > _FRAMED for side in (0, -1))


def _partly(row: NDArray[np.uint8], beyond: NDArray[np.uint8]) -> bool:
    """Whether more of `row` is zero at one of its ends than of the row beyond it: a margin is as wide there as here."""
    return any(
        _leading_zeros(row[::way]) - _leading_zeros(beyond[::way]) >= _LEAST_PIXELS
        for way in (1, -1)  # files store their rows from the top or from the bottom
    )


def _leading_zeros(row: NDArray[np.uint8]) -> int:
    nonzero = np.flatnonzero(row)
    return int(nonzero[0]) if nonzero.size else len(row)
