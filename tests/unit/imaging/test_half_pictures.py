"""Half a picture is never counted as a whole one, however whole its file looks."""

import io
import re
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from services.imaging.decoding.refusals import FieldRefused
from tests.unit.imaging.field_files import (
    FIELD,
    HEIGHT,
    JPEGS,
    OTHERS,
    PNGS,
    TIFFS,
    WIDTH,
    decode,
    planes,
    png,
    saved,
    tag_values,
    tiff,
    with_tag,
)

GREY_LEVEL = 128


def reason(data: bytes) -> str:
    with pytest.raises(FieldRefused) as caught:
        decode(data)
    return caught.value.reason


def scan_data(data: bytes) -> int:
    """Where the data of the first scan begins."""
    found = data.index(b"\xff\xda")
    return found + 2 + int.from_bytes(data[found + 2 : found + 4])


def filled(value: int, share: float) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        begin = scan_data(data)
        size = len(data) - 2 - begin
        middle = begin + int(size * (1 - share) / 2)
        length = max(8, int(size * share))
        return data[:middle] + bytes([value]) * length + data[middle + length :]

    return damage


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in half and closed": lambda data: data[: (scan_data(data) + len(data)) // 2] + b"\xff\xd9",
    "last rows cut off and closed": lambda data: (
        data[: scan_data(data) + (len(data) - scan_data(data)) * 9 // 10] + b"\xff\xd9"
    ),
    "a third of zeros": filled(0, 0.33),
    "a tenth of zeros": filled(0, 0.1),
    "a third of ones": filled(255, 0.33),
    "a third of 55": filled(0x55, 0.33),
    "a piece cut out of the middle": lambda data: data[: len(data) // 2 - 40] + data[len(data) // 2 + 40 :],
    "a zeroed end": lambda data: data[: (scan_data(data) + len(data)) // 2].ljust(len(data) - 2, b"\0") + b"\xff\xd9",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", JPEGS)
def test_a_damaged_jpeg_is_refused(name: str, damage: str) -> None:
    assert reason(DAMAGES[damage](JPEGS[name])) in ("field_damaged", "field_truncated")


def test_missing_restart_markers_are_refused() -> None:
    data = JPEGS["jpeg-restart"]
    at = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    assert len(at) > 10
    for changed in (
        re.sub(rb"\xff[\xd0-\xd7]", b"", data),
        data[: at[4]] + data[at[4] + 2 :],
        data[: at[4]] + data[at[5] :],
        data[: at[1]] + data[at[9] :],
        data[: at[-3]] + b"\xff\xd9",
    ):
        assert reason(changed) == "field_damaged"


@pytest.mark.parametrize("name", ["jpeg", "jpeg-progressive", "jpeg-grey"])
@pytest.mark.parametrize("height", [HEIGHT // 2, HEIGHT - 16, HEIGHT + 16])
def test_a_jpeg_header_of_another_height_is_refused(name: str, height: int) -> None:
    data = bytearray(JPEGS[name])
    frame = re.search(rb"\xff[\xc0\xc2]\0", data)
    assert frame
    struct.pack_into(">H", data, frame.start() + 5, height)
    assert reason(bytes(data)) == "field_damaged"


@pytest.mark.parametrize("name", ["jpeg-progressive", "jpeg-grey-progressive"])
def test_a_progressive_jpeg_without_its_last_scans_is_refused(name: str) -> None:
    data = JPEGS[name]
    starts = [found.start() for found in re.finditer(rb"\xff\xda\0", data)]
    assert len(starts) >= 6
    for start in starts[1:]:
        assert reason(data[:start] + b"\xff\xd9") == "field_truncated"


def test_a_jpeg_whose_colour_scans_never_come_is_refused() -> None:
    """A scan per component: libjpeg shows what is there, in grey."""
    whole = JPEGS["jpeg-444"]
    scan = whole.index(b"\xff\xda\0\x0c")
    # The first scan asks for one component; its data alone would be the brightness of a colour picture.
    one = whole[:scan] + b"\xff\xda\0\x08\x01" + whole[scan + 5 : scan + 7] + whole[scan + 11 : scan + 14]
    assert reason(one + JPEGS["jpeg-grey"][scan_data(JPEGS["jpeg-grey"]) :]) == "field_truncated"


def rows_of(pixels: NDArray[np.uint8]) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def test_a_png_that_inflates_to_fewer_or_more_rows_is_refused() -> None:
    header, rows = (WIDTH, HEIGHT, 8, 2), rows_of(FIELD)
    whole = png(header, (b"IDAT", zlib.compress(rows)))
    np.testing.assert_array_equal(decode(whole).pixels, FIELD)
    for part in (rows[: len(rows) // 2], rows[:-1], rows + rows[:-2], rows + b"\0"):
        assert reason(png(header, (b"IDAT", zlib.compress(part)))) == "field_damaged"
    for height in (HEIGHT // 2, HEIGHT - 1, HEIGHT + 1):
        assert reason(png((WIDTH, height, 8, 2), (b"IDAT", zlib.compress(rows)))) == "field_damaged"
    for end in (1, 4, 200):
        assert reason(png(header, (b"IDAT", zlib.compress(rows)[:-end]))) == "field_damaged"


def test_an_interlaced_png_is_taken_and_counted_like_any_other() -> None:
    """The rows of all seven passes: where one is short, the picture is coarser and nobody sees it."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = [rows_of(FIELD[y::down, x::across]) for x, y, across, down in passes]
    whole = png((WIDTH, HEIGHT, 8, 2), (b"IDAT", zlib.compress(b"".join(rows))), interlaced=1)
    np.testing.assert_array_equal(decode(whole).pixels, FIELD)
    short = png((WIDTH, HEIGHT, 8, 2), (b"IDAT", zlib.compress(b"".join(rows[:-1]))), interlaced=1)
    assert reason(short) == "field_damaged"


@pytest.mark.parametrize("name", PNGS)
def test_a_wrong_checksum_in_a_png_is_refused(name: str) -> None:
    data, at, seen = PNGS[name], 8, set()
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        changed = bytearray(data)
        changed[at + 8 + length] ^= 1
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            assert reason(bytes(changed)) == "field_damaged", kind
            seen.add(kind)
        at += 12 + length
    assert seen == {b"IHDR", b"IDAT", b"IEND"}


STRIPS = {"tiff": (273, 279), "tiff-planes": (273, 279), "tiff-lzw": (273, 279), "tiff-deflate": (273, 279)}
TILES = {"tiff-tiles": (324, 325), "tiff-planes-tiles": (324, 325)}


@pytest.mark.parametrize("name", [*STRIPS, *TILES])
def test_missing_strips_tiles_and_planes_are_refused(name: str) -> None:
    data = TIFFS[name]
    offsets, sizes = {**STRIPS, **TILES}[name]
    places, lengths = tag_values(data, offsets), tag_values(data, sizes)
    count = len(places)
    for left in (count - 1, count // 2, count * 2 // 3, 1):
        fewer = with_tag(with_tag(data, offsets, places[:left]), sizes, lengths[:left])
        assert reason(fewer) == "field_damaged", left
    assert reason(with_tag(data, offsets, [*places, places[0]])) == "field_damaged"
    for missing in (0, count // 2, count - 1):  # as writers leave what was never written
        assert reason(with_tag(data, offsets, [*places[:missing], 0, *places[missing + 1 :]])) == "field_damaged"
        assert reason(with_tag(data, sizes, [*lengths[:missing], 0, *lengths[missing + 1 :]])) == "field_damaged"
        beyond = [*places[:missing], len(data) - 3, *places[missing + 1 :]]
        assert reason(with_tag(data, offsets, beyond)) == "field_truncated"


@pytest.mark.parametrize("name", [*STRIPS, *TILES])
def test_strips_and_tiles_that_are_short_are_refused(name: str) -> None:
    data = TIFFS[name]
    lengths = tag_values(data, (STRIPS | TILES)[name][1])
    for short in (0, len(lengths) // 2, len(lengths) - 1):
        changed = [*lengths[:short], lengths[short] // 2, *lengths[short + 1 :]]
        assert reason(with_tag(data, (STRIPS | TILES)[name][1], changed)) == "field_damaged"


@pytest.mark.parametrize(
    "name", ["tiff", "tiff-tiles", "tiff-planes", "tiff-grey", "tiff-16", "tiff-lzw", "tiff-deflate"]
)
@pytest.mark.parametrize("height", [HEIGHT // 2, HEIGHT * 2])
def test_a_tiff_of_another_height_is_refused(name: str, height: int) -> None:
    assert reason(with_tag(TIFFS[name], 257, [height])) == "field_damaged"


def test_a_single_strip_of_twice_the_rows_is_refused() -> None:
    for options in ({}, {"compression": "deflate"}):
        whole = tiff(FIELD, rowsperstrip=HEIGHT, **options)
        np.testing.assert_array_equal(decode(whole).pixels, FIELD)
        assert reason(with_tag(whole, 257, [HEIGHT // 2])) == "field_damaged"


@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits", "zstd", "lzma", "jpeg"])
def test_a_zeroed_middle_of_a_compressed_tiff_is_refused(compression: str) -> None:
    noise = np.random.default_rng(0).integers(60, 220, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    picture = np.asarray(cv2.GaussianBlur(noise, (0, 0), 1)).astype(np.uint8)
    data = bytearray(
        saved(picture, "TIFF", compression="jpeg") if compression == "jpeg" else tiff(picture, compression=compression)
    )
    (first, size) = tag_values(bytes(data), 273)[0], tag_values(bytes(data), 279)[0]
    decode(bytes(data))
    begin = first + size // 2
    data[begin : begin + size // 4] = bytes(size // 4)
    assert reason(bytes(data)) == "field_damaged"


def test_a_bmp_whose_rows_are_not_all_there_is_refused() -> None:
    for data in OTHERS.values():
        assert reason(data[: len(data) * 2 // 3]) == "field_truncated"
        taller = bytearray(data)
        struct.pack_into("<i", taller, 22, HEIGHT * 2)
        assert reason(bytes(taller)) == "field_truncated"


def jpeg_fill(picture: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """What libjpeg makes of a JPEG that was cut and closed, as other programs take it."""
    data = saved(picture, "JPEG", quality=90)
    begin = scan_data(data)
    cut = data[: begin + int((len(data) - begin) * share)] + b"\xff\xd9"
    return np.asarray(cv2.imdecode(np.frombuffer(cut, np.uint8), cv2.IMREAD_COLOR_RGB)).astype(np.uint8)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.75])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "BMP"])
def test_grey_that_a_decoder_filled_in_is_recognised_after_saving_again(kind: str, share: float) -> None:
    assert reason(saved(jpeg_fill(FIELD, share), kind)) == "field_damaged"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_grey_margin_is_no_fill(kind: str) -> None:
    for borders in ((20, 20, 20, 20), (20, 20, 0, 0), (0, 0, 20, 20)):
        framed = cv2.copyMakeBorder(FIELD, *borders, cv2.BORDER_CONSTANT, value=(GREY_LEVEL,) * 3)
        assert decode(saved(np.asarray(framed), kind)).pixels.shape == framed.shape
    even = np.full_like(FIELD, GREY_LEVEL)
    assert decode(saved(even, kind)).pixels.shape == FIELD.shape


@pytest.mark.parametrize("name", ["tiff", "tiff-planes", "tiff-16", "bmp"])
def test_sectors_that_were_never_written_are_recognised(name: str) -> None:
    data = bytearray({**TIFFS, **OTHERS}[name])
    row = len(data) // HEIGHT
    begin = 30 * row + row // 3
    data[begin : begin + 40 * row] = bytes(40 * row)
    assert reason(bytes(data)) == "field_damaged"


def test_a_black_margin_or_gutter_is_taken() -> None:
    framed = np.asarray(cv2.copyMakeBorder(FIELD, 20, 20, 20, 20, cv2.BORDER_CONSTANT, value=(0, 0, 0)))
    mosaic = np.concatenate([FIELD, np.zeros((20, WIDTH, 3), np.uint8), FIELD])
    for picture in (framed, mosaic, np.zeros_like(FIELD)):
        np.testing.assert_array_equal(decode(tiff(picture.astype(np.uint8))).pixels, picture)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG"])
def test_a_black_half_is_recognised(kind: str) -> None:
    """As other programs save a PNG that inflated to half of its rows, or strips that were reserved and not written."""
    for rows in (slice(HEIGHT // 2, None), slice(HEIGHT * 3 // 5, None), slice(0, HEIGHT // 2)):
        half = FIELD.copy()
        half[rows] = 0
        assert reason(saved(half, kind, **({"quality": 95} if kind == "JPEG" else {}))) == "field_damaged"


def test_a_margin_of_a_mosaic_or_a_letterbox_is_taken() -> None:
    corner = np.zeros((HEIGHT * 2, WIDTH * 2, 3), np.uint8)
    corner[:HEIGHT, :WIDTH] = FIELD
    letterbox = np.concatenate([np.zeros((50, WIDTH, 3), np.uint8), FIELD, np.zeros((50, WIDTH, 3), np.uint8)])
    bar = FIELD.copy()
    bar[-20:] = 0
    for picture in (corner, letterbox, bar):
        np.testing.assert_array_equal(decode(saved(picture, "PNG")).pixels, picture)


@pytest.mark.parametrize("name", ["tiff", "tiff-lzw", "tiff-planes", "tiff-planes-tiles"])
def test_a_strip_or_plane_that_stands_for_another_is_refused(name: str) -> None:
    data = TIFFS[name]
    offsets, sizes = {**STRIPS, **TILES}[name]
    places, lengths = [*tag_values(data, offsets)], [*tag_values(data, sizes)]
    places[-1], lengths[-1] = places[0], lengths[0]
    assert reason(with_tag(with_tag(data, offsets, places), sizes, lengths)) == "field_damaged"


def test_an_even_tile_may_stand_for_many() -> None:
    picture = np.full_like(FIELD, 230)
    picture[:32, :32] = FIELD[:32, :32]
    data = tiff(picture, tile=(32, 32))
    places = [*tag_values(data, 324)]
    np.testing.assert_array_equal(decode(with_tag(data, 324, [places[0], *[places[1]] * 11])).pixels, picture)


def test_a_plane_that_was_never_written_is_refused() -> None:
    empty = planes(FIELD).copy()
    empty[2] = 0
    assert reason(tiff(empty, planarconfig="separate")) == "field_separate_channels"
    assert decode(saved(np.full_like(FIELD, (200, 200, 190)), "PNG")).pixels.shape == FIELD.shape


def test_pillow_and_we_see_the_same_whole_pictures() -> None:
    for name, data in {**PNGS, **TIFFS, **OTHERS}.items():
        if "16" in name or "planes" in name:
            continue
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(decode(data).pixels, np.asarray(image.convert("RGB")), err_msg=name)


def padded(data: bytes) -> bytes:
    """A TIFF whose strips are filled up with zeros to a sector, as some cameras write them."""
    out, places, lengths = bytearray(data), [], []
    for place, length in zip(tag_values(data, 273), tag_values(data, 279), strict=True):
        sector = data[place : place + length].ljust(-(-length // 512 + 1) * 512, b"\0")
        places.append(len(out))
        lengths.append(len(sector))
        out += sector
    return with_tag(with_tag(bytes(out), 273, places), 279, lengths)


@pytest.mark.parametrize("name", JPEGS)
def test_zeros_that_fill_up_a_sector_of_a_jpeg_are_no_damage(name: str) -> None:
    whole = JPEGS[name]
    for filled_up in (whole[:-2] + bytes(512) + whole[-2:], whole + bytes(512)):
        np.testing.assert_array_equal(decode(filled_up).pixels, decode(whole).pixels)
    for cut in (4, 20, 200):  # zeros in place of data
        assert reason(whole[: -2 - cut] + bytes(512) + whole[-2:]) == "field_damaged"


def test_a_zero_that_ends_the_picture_is_told_from_one_that_fills_up() -> None:
    """Even glass in the last corner ends in a byte of zeros in one of eight JPEGs."""
    rng = np.random.default_rng(1)
    kept = refused = 0
    for _ in range(60):
        picture = np.full((32, 32, 3), 230, np.uint8)
        picture[:16] = rng.integers(0, 255, (16, 32, 3))
        whole = saved(picture, "JPEG", quality=80)
        np.testing.assert_array_equal(decode(whole[:-2] + bytes(300) + whole[-2:]).pixels, decode(whole).pixels)
        kept += whole[-3] == 0
        if whole[-3] not in (0, 255):
            with pytest.raises(FieldRefused):
                decode(whole[:-3] + bytes(300) + whole[-2:])
            refused += 1
    assert kept
    assert refused


@pytest.mark.parametrize("name", [*STRIPS, "tiff-packbits", "tiff-zstd", "tiff-lzma", "tiff-16", "tiff-grey"])
def test_zeros_that_fill_up_the_sectors_of_strips_are_no_damage(name: str) -> None:
    data = TIFFS[name]
    whole = padded(data)
    np.testing.assert_array_equal(decode(whole).pixels, decode(data).pixels)
    lengths = tag_values(data, 279)
    short = [lengths[0] // 2, *lengths[1:]]
    cut = bytearray(with_tag(data, 279, short))
    begin = tag_values(data, 273)[0]
    cut[begin + short[0] : begin + lengths[0]] = bytes(lengths[0] - short[0])
    with pytest.raises(FieldRefused):
        decode(padded(bytes(cut)))


def noise(height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    return np.random.default_rng(8).integers(20, 250, (height, width, 3), np.uint8)


def test_rows_that_were_lost_between_others_are_refused() -> None:
    for first, step in ((1, 2), (0, 2), (3, 4)):
        comb = noise()
        comb[first::step] = 0
        assert reason(saved(comb, "PNG")) == "field_damaged"
    lines = noise()
    lines[5:60:11] = 0  # a few black lines are a ruler
    assert decode(saved(lines, "PNG")).pixels.shape == lines.shape


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_a_row_that_is_repeated_to_the_end_is_refused(form: str) -> None:
    stuck = noise()
    stuck[48:] = stuck[48]
    assert reason(saved(stuck, form)) == "field_damaged"


def test_rows_of_a_frame_or_of_larger_pixels_are_no_repetition() -> None:
    framed = noise()
    framed[70:] = (30, 90, 180)
    framed[70:, :20] = 240
    coarse = noise(24, 32).repeat(4, axis=0).repeat(4, axis=1)
    shades = np.broadcast_to(np.arange(40, 240, dtype=np.uint8)[:, np.newaxis], (96, 200, 3))
    for picture in (framed, coarse, np.ascontiguousarray(shades)):
        assert decode(saved(picture, "PNG")).pixels.shape == picture.shape


def test_pixels_that_begin_within_the_header_are_refused() -> None:
    data = bytearray(saved(noise(), "BMP"))
    struct.pack_into("<I", data, 10, 14)
    assert reason(bytes(data)) == "field_damaged"
