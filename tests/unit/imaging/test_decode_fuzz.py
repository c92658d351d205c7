"""Whatever bytes stand where a field should: always the same picture, or a refusal. `make fuzz` tries for minutes."""

import struct
import zlib
from typing import Final

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.imaging.decoding.refusals import FieldRefused
from services.imaging.types import RGB, FieldFault
from tests.unit.imaging.field_files import CORPUS, JPEGS, PNGS, TIFFS, decode, png_chunk, tiff_entries

MAX_PIXELS: Final = 300_000
NUMBERS: Final = st.sampled_from([0, 1, 2, 3, 4, 7, 8, 16, 255, 256, 4096, 65535, 2**31 - 1, 2**31, 2**32 - 1])
TIFF_TAGS: Final = st.sampled_from(
    [254, 256, 257, 258, 259, 262, 270, 273, 274, 277, 278, 279, 281, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347]
)
CLASSIC: Final = [name for name, data in TIFFS.items() if data[:4] == b"II*\0"]


def outcome(data: bytes) -> RGB | None:
    """What decoding makes of `data`, twice, with other memory in between; anything else fails the test."""
    seen: list[RGB | FieldRefused] = []
    for level in (0x55, 0xAA):
        poison = [np.full(size, level, np.uint8) for size in (2**13, 2**16, 2**18)]
        del poison
        try:
            pixels = decode(data, max_pixels=MAX_PIXELS).pixels
        except FieldRefused as error:
            seen.append(error)
        else:
            seen.append(pixels)
    first, second = seen
    if isinstance(first, FieldRefused):
        assert first.reason in set(FieldFault)
        assert str(first).startswith("slide-01/field-001: ")
        assert (type(first), str(first)) == (type(second), str(second))
        return None
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert first.shape[2] == 3
    assert first.size <= 3 * MAX_PIXELS
    np.testing.assert_array_equal(first, second)
    return first


@given(st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0", b"BM"]), st.binary())
def test_any_bytes_behind_a_signature(signature: bytes, data: bytes) -> None:
    assert outcome(signature + data) is None


@given(st.sampled_from(sorted(CORPUS)), st.data())
def test_bytes_changed_at_random(name: str, draw: st.DataObject) -> None:
    data = bytearray(CORPUS[name])
    for _ in range(draw.draw(st.integers(1, 6))):
        # Headers are where most is to be broken.
        end = draw.draw(st.sampled_from([32, 256, len(data)]))
        at = draw.draw(st.integers(0, min(end, len(data)) - 1))
        match draw.draw(st.sampled_from(["set", "flip", "insert", "remove", "repeat"])):
            case "set":
                data[at] = draw.draw(st.integers(0, 255))
            case "flip":
                data[at] ^= 1 << draw.draw(st.integers(0, 7))
            case "insert":
                data[at:at] = draw.draw(st.binary(min_size=1, max_size=20))
            case "remove":
                del data[at : at + draw.draw(st.integers(1, 60))]
            case _:
                data[at:at] = data[at : at + draw.draw(st.integers(1, 2000))]
        if not data:
            break
    outcome(bytes(data))


@given(st.sampled_from(sorted(CORPUS)), st.floats(0, 1))
def test_a_file_that_is_cut_is_refused_or_whole(name: str, share: float) -> None:
    data = CORPUS[name]
    pixels = outcome(data[: int(len(data) * share)])
    if pixels is not None:
        np.testing.assert_array_equal(pixels, decode(data).pixels)


@given(st.sampled_from(CLASSIC), st.data())
def test_tags_of_a_tiff_changed(name: str, draw: st.DataObject) -> None:
    data = bytearray(TIFFS[name])
    entries = list(tiff_entries(bytes(data)).values())
    for _ in range(draw.draw(st.integers(1, 4))):
        entry = draw.draw(st.sampled_from(entries))
        field, form = draw.draw(st.sampled_from([(0, "H"), (2, "H"), (4, "I"), (8, "I")]))
        value = draw.draw(TIFF_TAGS if field == 0 else NUMBERS | st.integers(0, len(data) + 8))
        struct.pack_into(f"<{form}", data, entry + field, value & (0xFFFF if form == "H" else 0xFFFFFFFF))
    outcome(bytes(data))


@given(st.sampled_from(sorted(PNGS)), st.data())
def test_chunks_of_a_png_changed_and_summed_again(name: str, draw: st.DataObject) -> None:
    data, at, chunks = PNGS[name], 8, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    for _ in range(draw.draw(st.integers(1, 3))):
        number = draw.draw(st.integers(0, len(chunks) - 1))
        kind, body = chunks[number]
        match draw.draw(st.sampled_from(["change", "rows", "remove", "repeat", "turn"])):
            case "change" if body:
                place = draw.draw(st.integers(0, len(body) - 1))
                changed = body[:place] + draw.draw(st.binary(min_size=1, max_size=4)) + body[place + 1 :]
                chunks[number] = kind, changed
            case "rows" if kind == b"IDAT":
                rows = draw.draw(st.binary(max_size=300)) * draw.draw(st.integers(0, 120))
                chunks[number] = kind, zlib.compress(rows)
            case "remove" if len(chunks) > 1:
                del chunks[number]
            case "repeat":
                chunks.insert(number, chunks[number])
            case _:
                chunks.reverse()
    outcome(data[:8] + b"".join(png_chunk(*chunk) for chunk in chunks))


@given(st.sampled_from(sorted(JPEGS)), st.data())
def test_segments_of_a_jpeg_changed(name: str, draw: st.DataObject) -> None:
    data = JPEGS[name]
    starts = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] not in (0, 0xFF)]
    pieces = [data[begin:end] for begin, end in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(draw.draw(st.integers(1, 3))):
        number = draw.draw(st.integers(0, len(pieces) - 1))
        match draw.draw(st.sampled_from(["change", "remove", "repeat", "cut"])):
            case "change":
                place = draw.draw(st.integers(0, len(pieces[number]) - 1))
                byte = bytes([draw.draw(st.integers(0, 255))])
                pieces[number] = pieces[number][:place] + byte + pieces[number][place + 1 :]
            case "remove" if len(pieces) > 1:
                del pieces[number]
            case "repeat":
                pieces[number:number] = [pieces[number]] * draw.draw(st.integers(1, 3))
            case _:
                pieces[number] = pieces[number][: draw.draw(st.integers(1, len(pieces[number])))]
    outcome(b"".join(pieces))
