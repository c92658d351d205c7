"""Fields as they come from outside: what is accepted says how it was converted, what is refused says why."""

import io
import random
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from services.imaging.decoding.decode import decode_field
from services.imaging.decoding.refusals import FieldRefused
from services.imaging.decoding.tiff.directory import MAX_PAGES
from services.imaging.types import DecodedField
from tests.unit.imaging.field_files import tiff, with_tag

HEIGHT, WIDTH = 60, 80


def drawn_field() -> NDArray[np.uint8]:
    """A soft random picture: no row, column or channel like another, and JPEG keeps it nearly."""
    noise = np.random.default_rng(3).integers(40, 240, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3)).astype(np.uint8)


FIELD = drawn_field()
PICTURE = Image.fromarray(FIELD)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def decode(data: bytes, name: str = "slide-01/field-001", max_pixels: int = 1_000_000) -> DecodedField:
    return decode_field(data, name, max_bytes=1_000_000, max_pixels=max_pixels)


def refusal(data: bytes, name: str = "slide-01/field-001") -> str:
    with pytest.raises(FieldRefused) as caught:
        decode(data, name)
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert "requeue" in message
    return caught.value.reason


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize(
    ("data", "exact"),
    [
        (saved(PICTURE, "JPEG", quality=98, subsampling=0), False),
        (saved(PICTURE, "JPEG", quality=98, subsampling=0, progressive=True), False),
        (saved(PICTURE, "PNG"), True),
        (saved(PICTURE, "BMP"), True),
        (saved(PICTURE, "TIFF"), True),
        (saved(PICTURE, "TIFF", compression="tiff_lzw"), True),
        (saved(PICTURE, "TIFF", compression="tiff_adobe_deflate"), True),
        (saved(PICTURE, "TIFF", big_tiff=True), True),
    ],
    ids=["jpeg", "progressive", "png", "bmp", "tiff", "tiff-lzw", "tiff-deflate", "bigtiff"],
)
def test_an_rgb_field_comes_out_as_it_was_without_a_note(data: bytes, exact: bool) -> None:
    decoded = decode(data)
    assert decoded.notes == ()
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    np.testing.assert_allclose(decoded.pixels.astype(int), FIELD, atol=0 if exact else 6)


def test_the_content_decides_and_not_the_name() -> None:
    assert decode(saved(PICTURE, "PNG"), "a/field.bmp").notes == ("content_not_as_named",)
    assert decode(saved(PICTURE, "TIFF"), "a/field.JPG").notes == ("content_not_as_named",)
    assert decode(saved(PICTURE, "JPEG"), "a/field.JPEG").notes == ()
    assert refusal(b"<html>504 Gateway Timeout</html>", "a/field.png") == "field_not_an_image"


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_an_image_of_another_format_is_refused_by_its_name(kind: str) -> None:
    data = saved(PICTURE, kind)
    with pytest.raises(FieldRefused, match=kind.replace("WEBP", "WebP")) as caught:
        decode(data, "field.png")
    assert caught.value.reason == "field_format_not_allowed"


def raw_file(**tags: tuple[int, int | bytes]) -> bytes:
    """A TIFF of one preview as a camera writes it in front of what its sensor saw."""
    entries: dict[int, tuple[int, int | bytes]] = {
        254: (4, 1),
        256: (4, 160),
        257: (4, 120),
        258: (3, 8),
        259: (3, 1),
        262: (3, 2),
        277: (3, 3),
    }
    entries |= {273: (4, 8), 278: (4, 120), 279: (4, 57600)}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    body, texts = bytearray(), bytearray()
    texts_at = 10 + 12 * len(entries) + 4
    for tag, (kind, value) in sorted(entries.items()):
        if isinstance(value, bytes):
            body += struct.pack("<HHII", tag, kind, len(value), texts_at + len(texts))
            texts += value
        else:
            body += struct.pack("<HHII", tag, kind, 1, value)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + bytes(body) + bytes(4) + bytes(texts) + bytes(70_000)


CHILD = struct.pack("<HHHII", 1, 262, 3, 1, 32803)
RAW_FILES: dict[str, bytes] = {
    "Canon CR2": b"II*\0\x10\0\0\0CR\2\0" + bytes(4) + raw_file()[8:],
    "Nikon NEF": raw_file(t271=(2, b"NIKON CORPORATION\0"), t330=(4, 70_000)),
    "DNG": raw_file(t50706=(1, 0x0401)),
    "Pentax PEF": raw_file(t271=(2, b"PENTAX\0"), t262=(3, 32803)),
    "Canon CR3": b"\0\0\0\x18ftypcrx " + bytes(100),
    "Panasonic RW2": b"IIU\0" + bytes(100),
    "Olympus ORF": b"IIRO" + bytes(100),
    "Fujifilm RAF": b"FUJIFILMCCD-RAW 0201" + bytes(100),
}


@pytest.mark.parametrize("kind", RAW_FILES)
def test_a_raw_file_of_a_camera_is_named_and_its_preview_is_not_taken(kind: str) -> None:
    data = bytearray(RAW_FILES[kind])
    if kind == "Nikon NEF":
        data[70_000 : 70_000 + len(CHILD)] = CHILD
    with pytest.raises(FieldRefused, match=re.escape(f"({kind})")) as caught:
        decode(bytes(data), "field.tif")
    assert caught.value.reason == "field_format_not_allowed"


def test_a_reduced_page_is_the_picture_where_it_is_the_only_one() -> None:
    alone = with_tag(tiff(FIELD), 254, [1], instead_of=282)
    np.testing.assert_array_equal(decode(alone).pixels, FIELD)
    assert refusal(with_tag(tiff(FIELD), 254, [4], instead_of=282)) == "field_unsupported_mode"


def test_no_bytes_and_too_many_bytes() -> None:
    assert refusal(b"") == "field_empty"
    with pytest.raises(FieldRefused) as caught:
        decode_field(saved(PICTURE, "BMP"), "f", max_bytes=1000, max_pixels=1_000_000)
    assert caught.value.reason == "field_too_large"


@pytest.mark.parametrize("side", [60_000, 11_000, 3_000])  # Pillow's error, Pillow's warning, our own limit
def test_a_bomb_is_refused_from_its_header(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(100))) + png_chunk(b"IEND", b"")
    assert refusal(b"\x89PNG\r\n\x1a\n" + body) == "field_too_many_pixels"


def test_a_large_jpeg_tiff_or_bmp_is_refused_too() -> None:
    for kind in ("JPEG", "TIFF", "BMP", "PNG"):
        with pytest.raises(FieldRefused) as caught:
            decode(saved(PICTURE, kind), max_pixels=HEIGHT * WIDTH - 1)
        assert caught.value.reason == "field_too_many_pixels", kind
        assert decode(saved(PICTURE, kind), max_pixels=HEIGHT * WIDTH).pixels.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("left", [0.001, 0.02, 0.3, 0.7, 0.999])
def test_half_a_file_is_truncated(kind: str, left: float) -> None:
    data = saved(PICTURE, kind)
    assert refusal(data[: max(1, int(len(data) * left))]) == "field_truncated"


def test_bytes_after_the_end_of_the_picture_do_not_matter() -> None:
    for kind in ("JPEG", "PNG", "BMP", "TIFF"):
        assert decode(saved(PICTURE, kind) + bytes(512)).pixels.shape == FIELD.shape


def test_a_flipped_bit_in_png_data_is_damage() -> None:
    for level in (0, 6):
        data = bytearray(saved(PICTURE, "PNG", compress_level=level))
        data[len(data) // 2] ^= 1
        assert refusal(bytes(data)) == "field_damaged"


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    data = saved(PICTURE, "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    assert refusal(data[:scan] + data[scan:-2] * 1000 + data[-2:]) == "field_too_many_parts"


def test_print_colours_are_refused() -> None:
    for kind in ("JPEG", "TIFF"):
        assert refusal(saved(PICTURE.convert("CMYK"), kind)) == "field_cmyk"


def test_transparency_is_refused_and_opaque_alpha_dropped() -> None:
    opaque = PICTURE.convert("RGBA")
    pierced = opaque.copy()
    pierced.putpixel((3, 4), (9, 9, 9, 254))
    for kind in ("PNG", "TIFF"):
        decoded = decode(saved(opaque, kind))
        assert decoded.notes == ("alpha",)
        np.testing.assert_array_equal(decoded.pixels, FIELD)
        assert refusal(saved(pierced, kind)) == "field_transparent"
    one_colour = saved(PICTURE.convert("P"), "PNG", transparency=PICTURE.convert("P").getpixel((0, 0)))
    assert refusal(one_colour) == "field_transparent"


def test_moving_pictures_are_refused() -> None:
    frames = saved(PICTURE, "PNG", save_all=True, append_images=[PICTURE.rotate(90)], duration=100)
    assert refusal(frames) == "field_animated"
    times = saved(PICTURE, "TIFF", save_all=True, append_images=[PICTURE], description="ImageJ=1.54\nframes=2\n")
    assert refusal(times) == "field_animated"


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_a_palette_becomes_colour(kind: str) -> None:
    indexed = PICTURE.convert("P", palette=Image.Palette.ADAPTIVE)
    decoded = decode(saved(indexed, kind))
    assert decoded.notes == ("palette",)
    np.testing.assert_array_equal(decoded.pixels, np.asarray(indexed.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_grey_becomes_colour(kind: str) -> None:
    decoded = decode(saved(PICTURE.convert("L"), kind))
    assert decoded.notes == ("greyscale",)
    np.testing.assert_array_equal(decoded.pixels[..., 0], decoded.pixels[..., 2])
    np.testing.assert_allclose(decoded.pixels[..., 1].astype(int), np.asarray(PICTURE.convert("L")), atol=6)


@pytest.mark.parametrize("mode", ["1", "F", "I", "LAB"])
def test_a_pixel_type_without_a_safe_way_to_8_bits_is_refused(mode: str) -> None:
    assert refusal(saved(Image.new(mode, (WIDTH, HEIGHT)), "TIFF")) == "field_unsupported_mode"


@pytest.mark.parametrize("ending", [".png", ".tiff"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_files_keep_the_ratios_of_intensity(ending: str, bits: int, channels: int) -> None:
    values = np.random.default_rng(1).integers(0, 2**bits, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    source = values if channels == 3 else values[..., 0]
    written = source[..., ::-1] if channels == 3 else source
    decoded = decode(cv2.imencode(ending, written)[1].tobytes())
    expected = source >> (bits - 8)
    assert decoded.notes == (("depth_16_bit",) if channels == 3 else ("depth_16_bit", "greyscale"))
    np.testing.assert_array_equal(decoded.pixels, expected if channels == 3 else np.dstack([expected] * 3))


def test_a_big_endian_16_bit_tiff() -> None:
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)  # up to 4799: 13 bits
    decoded = decode(saved(Image.fromarray(values.astype(">u2")), "TIFF"))
    np.testing.assert_array_equal(decoded.pixels[..., 0], values >> 5)


def test_the_sharpest_full_size_page_is_the_field() -> None:
    planes = [PICTURE, *(Image.fromarray(np.asarray(cv2.GaussianBlur(FIELD, (0, 0), s))) for s in (1.0, 2.0, 4.0))]
    thumbnail = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8))
    ordered = [planes[2], thumbnail, planes[0], planes[3], planes[1]]
    decoded = decode(saved(ordered[0], "TIFF", save_all=True, append_images=ordered[1:]))
    assert decoded.notes == ("page_3_of_5",)
    np.testing.assert_array_equal(decoded.pixels, FIELD)


def test_16_bit_colour_pages_are_read_in_full_depth() -> None:
    deep = FIELD.astype(np.uint16) * 16 + 5  # 12 bits
    blurred = np.asarray(cv2.GaussianBlur(deep, (0, 0), 3))
    data = cv2.imencodemulti(".tiff", [blurred, deep[..., ::-1]])[1].tobytes()
    decoded = decode(data)
    assert decoded.notes == ("depth_16_bit", "page_2_of_2")
    np.testing.assert_array_equal(decoded.pixels, FIELD)


def test_an_endless_stack_of_pages_is_refused() -> None:
    small = Image.new("RGB", (4, 4))
    data = saved(small, "TIFF", save_all=True, append_images=[small] * MAX_PAGES)
    assert refusal(data) == "field_too_many_pages"


UNDO: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}
"""How a field is stored that an EXIF orientation turns back."""


@pytest.mark.parametrize("orientation", UNDO)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_turned_field_is_turned_upright(kind: str, orientation: int) -> None:
    stored = Image.fromarray(np.ascontiguousarray(UNDO[orientation](FIELD)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    decoded = decode(saved(stored, kind, exif=exif, **options))
    assert decoded.notes == (() if orientation == 1 else ("orientation",))
    np.testing.assert_allclose(decoded.pixels.astype(int), FIELD, atol=6)


@pytest.mark.parametrize("orientation", UNDO)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_turned_16_bit_field_is_turned_upright_once(kind: str, orientation: int) -> None:
    stored = np.ascontiguousarray(UNDO[orientation](FIELD.astype(np.uint16) * 256)[..., ::-1])
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = bytearray(cv2.imencode(f".{kind.lower()}", stored, [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1].tobytes())
    if kind == "PNG":
        data[33:33] = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))  # behind IHDR
    else:
        (directory,) = struct.unpack_from("<I", data, 4)
        (entries,) = struct.unpack_from("<H", data, directory)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            if struct.unpack_from("<H", data, at)[0] == 284:  # PlanarConfiguration makes room for Orientation
                struct.pack_into("<HHII", data, at, 274, 3, 1, orientation)
    decoded = decode(bytes(data))
    assert set(decoded.notes) == ({"depth_16_bit"} if orientation == 1 else {"depth_16_bit", "orientation"})
    np.testing.assert_array_equal(decoded.pixels, FIELD)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_cost_the_field() -> None:
    data = saved(PICTURE, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert decode(data).notes == ()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(4))
def test_nothing_but_a_refusal_comes_out_of_damaged_bytes(seed: int) -> None:
    """Cut, overwrite and remove bytes at random; a cut file is never taken for a whole one."""
    deep = FIELD.astype(np.uint16) * 16
    whole = [
        saved(PICTURE, "JPEG"),
        saved(PICTURE, "JPEG", progressive=True, exif=Image.Exif()),
        saved(PICTURE, "PNG"),
        saved(PICTURE.convert("P"), "PNG"),
        saved(PICTURE, "BMP"),
        saved(PICTURE, "TIFF", save_all=True, append_images=[PICTURE]),
        saved(PICTURE, "TIFF", compression="tiff_lzw"),
        saved(PICTURE, "TIFF", compression="jpeg"),
        cv2.imencode(".tiff", deep)[1].tobytes(),
        cv2.imencode(".png", deep)[1].tobytes(),
    ]
    rng = random.Random(seed)  # noqa: S311 - damage that can be repeated
    refused = 0
    for number in range(400):
        data = bytearray(whole[number % len(whole)])
        damage = rng.choice(["cut", "overwrite", "header", "remove"])
        if damage == "cut":
            del data[rng.randrange(len(data)) :]
        elif damage == "remove":
            start = rng.randrange(len(data))
            del data[start : start + rng.randrange(1, 50)]
        else:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data) if damage == "overwrite" else 200)] = rng.randrange(256)
        try:
            pixels = decode(bytes(data)).pixels
        except FieldRefused:
            refused += 1
        else:
            assert damage != "cut"
            assert pixels.ndim == 3
    assert refused > 200
