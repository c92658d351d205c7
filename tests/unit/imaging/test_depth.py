"""A 12-bit camera in a 16-bit file: the camera's bits are kept, whatever else is burnt into the picture."""

import cv2
import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from services.imaging.decoding.depth import to_8_bit
from tests.unit.imaging.field_files import (
    DEEP,
    FIELD,
    HEIGHT,
    TWELVE,
    WIDTH,
    decode,
    planes,
    tag_values,
    tiff,
    with_tag,
)

HOT = (10, 10)


def with_overlay(level: int, rows: slice, columns: slice, pixels: NDArray[np.uint16] = TWELVE) -> NDArray[np.uint16]:
    changed = pixels.copy()
    changed[rows, columns] = level
    return changed


@pytest.mark.parametrize("level", [65535, 65534, 65280, 32768, 16384])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [(slice(10, 11), slice(10, 11)), (slice(80, 84), slice(60, 100)), (slice(0, 4), slice(None))],
    ids=["hot pixel", "scale bar", "legend"],
)
def test_what_is_brighter_than_the_camera_can_be_does_not_decide(level: int, rows: slice, columns: slice) -> None:
    decoded = decode(tiff(with_overlay(level, rows, columns))).pixels
    expected = FIELD.copy()
    expected[rows, columns] = 255
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("level", [65535, 65280, 40000])
def test_an_even_overlay_may_be_large(level: int) -> None:
    decoded = decode(tiff(with_overlay(level, slice(0, 30), slice(None)))).pixels
    np.testing.assert_array_equal(decoded[30:], FIELD[30:])


@pytest.mark.parametrize("kind", ["png", "tiff", "planes"])
def test_a_hot_pixel_in_every_format(kind: str) -> None:
    pixels = with_overlay(65535, slice(10, 11), slice(10, 11))
    data = {
        "png": lambda: cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes(),
        "tiff": lambda: tiff(pixels),
        "planes": lambda: tiff(planes(pixels), planarconfig="separate"),
    }[kind]()
    decoded = decode(data)
    assert decoded.notes == ("depth_16_bit",)
    expected = FIELD.copy()
    expected[HOT] = 255
    np.testing.assert_array_equal(decoded.pixels, expected)


def test_all_sixteen_bits_are_kept() -> None:
    np.testing.assert_array_equal(decode(tiff(DEEP)).pixels, FIELD)
    bright = np.minimum(DEEP, 50_000)
    bright[: HEIGHT // 2] = 65535  # a lamp that is too bright: no overlay
    np.testing.assert_array_equal(decode(tiff(bright)).pixels, bright >> 8)
    vignette = (DEEP * np.linspace(0.2, 1, WIDTH)[None, :, None]).astype(np.uint16)
    np.testing.assert_array_equal(decode(tiff(vignette)).pixels, vignette >> 8)


@pytest.mark.parametrize("tag", [281, 341])
def test_the_files_own_tag_decides_where_it_can_be_right(tag: int) -> None:
    dim = TWELVE >> 3  # what an underexposed 12-bit camera gives; by its brightest pixel it has 9
    stated = with_tag(tiff(dim), tag, [4095], instead_of=282)
    np.testing.assert_array_equal(decode(stated).pixels, dim >> 4)
    np.testing.assert_array_equal(decode(with_tag(tiff(DEEP), tag, [4095], instead_of=282)).pixels, FIELD)
    np.testing.assert_array_equal(decode(with_tag(tiff(TWELVE), tag, [65535], instead_of=282)).pixels, FIELD)


def test_twelve_bits_that_are_packed() -> None:
    for pixels, shown in ((TWELVE, FIELD), (TWELVE[..., 1], np.dstack([FIELD[..., 1]] * 3))):
        rows = [imagecodecs.packints_encode(row.ravel(), 12) for row in pixels]
        samples = pixels.shape[2] if pixels.ndim == 3 else 1
        as_bytes = np.frombuffer(b"".join(rows), np.uint8).reshape(HEIGHT, -1)
        data = tiff(as_bytes, rowsperstrip=HEIGHT)
        data = with_tag(with_tag(data, 256, [WIDTH]), 258, [12] * samples)
        data = with_tag(with_tag(data, 277, [samples]), 262, [2 if samples == 3 else 1])
        assert tag_values(data, 279) == (as_bytes.size,)
        decoded = decode(data)
        assert "depth_16_bit" in decoded.notes
        np.testing.assert_array_equal(decoded.pixels, shown)


def test_shifts_by_hand() -> None:
    assert to_8_bit(np.full((8, 8), 4095, np.uint16)).max() == 255
    assert to_8_bit(np.full((8, 8), 200, np.uint16)).max() == 200
    assert to_8_bit(np.full((8, 8), 200, np.uint16), 12).max() == 12
    assert to_8_bit(np.zeros((8, 8), np.uint16)).max() == 0
    assert to_8_bit(np.full((8, 8), 65535, np.uint16)).max() == 255
