"""Cheap files whose decoding, or whose analysis, would be expensive are refused from what they say of themselves."""

import itertools
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from services.imaging.crops import crop_cells, crop_of_cell_image
from services.imaging.decoding.refusals import FieldRefused, FieldTooCoarse, FieldTooSmall
from services.imaging.decoding.source import MAX_PARTS, MAX_SIDE, MIN_SIDE
from services.imaging.heads import find_heads
from services.imaging.quality import measure_quality
from services.imaging.types import Box, Microns, Pixels, UmPerPx
from services.imaging.working_size import NARROWEST_UM, check_working_size
from tests.unit.imaging.field_files import (
    FIELD,
    HEIGHT,
    JPEGS,
    WIDTH,
    decode,
    planes,
    png,
    png_chunk,
    saved,
    tag_values,
    tiff,
    tiff_entries,
    with_tag,
)

LARGEST = 60_000_000


def reason(data: bytes, max_pixels: int = LARGEST) -> str:
    with pytest.raises(FieldRefused) as caught:
        decode(data, max_pixels=max_pixels)
    return caught.value.reason


def peak_of(data: bytes) -> int:
    """Most bytes that Python's own objects took while `data` was refused."""
    tracemalloc.start()
    try:
        with pytest.raises(FieldRefused):
            decode(data, max_pixels=LARGEST)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def header_only(width: int, height: int) -> bytes:
    rows = (b"IDAT", zlib.compress(bytes(1000)))
    return png((width, height, 8, 2), rows)


def test_a_row_of_sixty_million_pixels() -> None:
    for width, height in ((LARGEST // MIN_SIDE, MIN_SIDE), (MIN_SIDE, LARGEST // MIN_SIDE), (MAX_SIDE + 1, MIN_SIDE)):
        assert reason(header_only(width, height)) == "field_too_many_pixels"


def test_an_even_picture_of_fifty_megapixels_in_a_few_bytes() -> None:
    assert reason(header_only(7000, 7000)) == "field_too_compressed"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
@pytest.mark.parametrize(("width", "height"), [(3, 200), (200, 3), (1, 1), (MIN_SIDE - 1, 100)])
def test_a_strip_is_too_small(kind: str, width: int, height: int) -> None:
    picture = np.full((height, width, 3), 200, np.uint8)
    with pytest.raises(FieldTooSmall, match=f"{width} × {height} pixels"):
        decode(saved(picture, kind))


def test_sixty_four_pages_that_share_one_strip() -> None:
    one = tiff(FIELD, rowsperstrip=HEIGHT)
    (directory,) = struct.unpack_from("<I", one, 4)
    (entries,) = struct.unpack_from("<H", one, directory)
    size = 2 + 12 * entries
    page = one[directory : directory + size]
    many = one
    link = 4
    for _ in range(64):
        many = many[:link] + struct.pack("<I", len(many)) + many[link + 4 :]
        link = len(many) + size
        many += page + bytes(4)
    assert reason(many) == "field_damaged"
    assert reason(many, max_pixels=15 * HEIGHT * WIDTH) == "field_too_many_pixels"  # 60 would be allowed


def test_strips_that_are_all_the_same_bytes() -> None:
    data = tiff(FIELD, rowsperstrip=8, compression="deflate")
    places, lengths = tag_values(data, 273), tag_values(data, 279)
    longest = int(np.argmax(lengths))
    shared = with_tag(data, 273, [places[longest]] * len(places))
    assert reason(with_tag(shared, 279, [lengths[longest]] * len(places))) == "field_damaged"
    # The whole file as each of a thousand strips would be a gigabyte, before any of it is decoded.
    rows = tiff(np.tile(FIELD, (12, 1, 1)), rowsperstrip=1) + bytes(1_000_000)
    count = len(tag_values(rows, 273))
    whole = with_tag(with_tag(rows, 273, [8] * count), 279, [1_000_000] * count)
    assert reason(whole) == "field_damaged"
    assert peak_of(whole) < 10_000_000


def test_strips_of_one_byte() -> None:
    count = MAX_PARTS + 1
    data = tiff(FIELD[..., 1], rowsperstrip=1)
    data = with_tag(with_tag(with_tag(data, 256, [16]), 257, [count]), 278, [1])
    data = with_tag(with_tag(data, 273, [8] * count), 279, [1] * count)
    assert reason(data) == "field_too_many_parts"


def test_tiles_of_one_pixel_and_tiles_larger_than_any_picture() -> None:
    data = tiff(FIELD, tile=(32, 32))
    assert reason(with_tag(with_tag(data, 322, [1]), 323, [1])) == "field_damaged"
    one = tiff(FIELD, tile=(128, 128), compression="lzw")
    decode(one)
    for side in (2**13, 2**16, 2**31):
        with pytest.raises(FieldRefused, match="tiles of"):
            decode(with_tag(with_tag(one, 322, [side]), 323, [side]))
    large = with_tag(with_tag(data, 256, [7000]), 257, [7000])
    assert reason(with_tag(with_tag(large, 322, [4]), 323, [4])) in ("field_too_many_parts", "field_too_compressed")


def test_a_png_of_a_hundred_thousand_chunks() -> None:
    empty = png_chunk(b"IDAT", b"")
    data = saved(FIELD, "PNG")
    assert reason(data[:33] + empty * MAX_PARTS + data[33:]) == "field_too_many_parts"


def test_a_jpeg_of_many_segments() -> None:
    data = JPEGS["jpeg"]
    assert reason(data[:2] + b"\xff\xfe\0\x04ab" * 5000 + data[2:]) == "field_too_many_parts"


def test_scans_of_a_large_picture_are_fewer() -> None:
    """A scan is a pass over the whole picture: 16 over the largest that is allowed."""
    data = JPEGS["jpeg-progressive"]
    scan = data.rindex(b"\xff\xda")
    more = data[:scan] + data[scan:-2] * 20 + data[-2:]
    assert reason(more, max_pixels=WIDTH * HEIGHT) == "field_too_many_parts"
    decode(data, max_pixels=WIDTH * HEIGHT)


def test_an_inflated_stream_is_read_no_further_than_its_rows() -> None:
    bomb = zlib.compress(bytes(200_000_000), 9)
    assert len(bomb) < 250_000
    picture = png((WIDTH, HEIGHT, 8, 2), (b"IDAT", bomb))
    assert reason(picture) == "field_damaged"
    assert peak_of(picture) < 10_000_000
    strips = tiff(FIELD, rowsperstrip=HEIGHT, compression="deflate")
    place = len(strips)
    page = with_tag(with_tag(strips + bomb, 273, [place]), 279, [len(bomb)])
    assert reason(page) == "field_damaged"
    assert peak_of(page) < 10_000_000


def test_a_tag_that_decoding_does_not_need_may_point_anywhere() -> None:
    for options in ({"rowsperstrip": 24}, {"tile": (32, 32)}, {"description": "x" * 40}):
        data = tiff(FIELD, **options)
        for tag, kind, count in ((65000, 4, 8), (34665, 4, 1), (33432, 2, 100), (700, 1, 2**31), (34675, 7, 2**32 - 1)):
            entry = tiff_entries(data)[282]
            changed = bytearray(data)
            struct.pack_into("<HHII", changed, entry, tag, kind, count, 2**32 - 9)
            np.testing.assert_array_equal(decode(bytes(changed)).pixels, FIELD)
    described = bytearray(tiff(FIELD, description="x" * 40))
    struct.pack_into("<I", described, tiff_entries(bytes(described))[270] + 8, 2**32 - 9)
    np.testing.assert_array_equal(decode(bytes(described)).pixels, FIELD)


@pytest.mark.parametrize(
    ("width", "height", "um_per_px", "fits"),
    [
        (1280, 1024, 0.045, True),
        (9000, 6600, 0.09, True),
        (9000, 6600, 0.1, True),
        (9000, 6600, 0.2, False),
        (2592, 1944, 0.25, True),
        (2592, 1944, 0.45, False),
        (1280, 1024, 0.45, True),
        (1280, 1024, 2.0, False),
    ],
)
def test_a_coarse_field_is_bounded_by_what_it_is_enlarged_to(
    width: int, height: int, um_per_px: float, fits: bool
) -> None:
    if fits:
        check_working_size("f", width, height, UmPerPx(um_per_px), LARGEST)
        return
    with pytest.raises(FieldTooCoarse, match=rf"^f: .*{um_per_px:g} µm would be enlarged.*um_per_px"):
        check_working_size("f", width, height, UmPerPx(um_per_px), LARGEST)


def test_a_field_narrower_than_a_head_is_too_small() -> None:
    check_working_size("f", 45, 2000, UmPerPx(0.045), LARGEST)
    with pytest.raises(FieldTooSmall, match=r"^f: 44 × 2,000 pixels of 0\.045 µm .*um_per_px"):
        check_working_size("f", 44, 2000, UmPerPx(0.045), LARGEST)


def drawn(kind: str, height: int, width: int) -> NDArray[np.uint8]:
    pixels = np.random.default_rng(0).integers(150, 255, (height, width, 3)).astype(np.uint8)
    if kind == "dark":
        pixels //= 8
    elif kind == "blob":
        pixels[height // 4 : height * 3 // 4 + 1, width // 4 : width * 3 // 4 + 1] = (90, 30, 120)
    return pixels


@pytest.mark.parametrize("um_per_px", [0.01, 0.02, 0.045, 0.09, 0.15, 0.3, 1.0, 2.0])
def test_every_size_that_is_taken_passes_every_stage(um_per_px: float) -> None:
    scale = UmPerPx(um_per_px)
    least = max(MIN_SIDE, int(np.ceil(NARROWEST_UM / um_per_px)))
    for (width, height), kind in itertools.product(
        [(least, least), (least, least + 1), (least + 1, 3 * least), (1500, least), (least, 1500)],
        ("noise", "dark", "blob"),
    ):
        pixels = drawn(kind, height, width)
        if width * height * max(1, um_per_px / 0.09) ** 2 > 2_000_000:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            measure_quality(pixels, scale)
            find_heads(pixels, scale)
            crop_cells(pixels, [Box(0, 0, width, height)], um_per_px=scale, crop_um=Microns(24), size_px=Pixels(96))


@pytest.mark.parametrize("size", [(MIN_SIDE, MIN_SIDE), (MIN_SIDE, 900), (900, MIN_SIDE)])
@pytest.mark.parametrize("um_per_px", [0.01, 0.045, 0.3, 2.0])
def test_every_size_of_a_cell_image_is_cropped(size: tuple[int, int], um_per_px: float) -> None:
    picture = np.asarray(Image.new("RGB", size, (200, 180, 190)))
    crop = crop_of_cell_image(picture, um_per_px=UmPerPx(um_per_px), crop_um=Microns(24), size_px=Pixels(96))
    assert crop.shape == (96, 96, 3)


def test_planes_count_as_parts() -> None:
    data = tiff(planes(FIELD), planarconfig="separate", rowsperstrip=1)
    np.testing.assert_array_equal(decode(data).pixels, FIELD)
    assert len(tag_values(data, 273)) == 3 * HEIGHT
