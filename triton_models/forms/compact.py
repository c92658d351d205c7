"""A file of a form that is kept without what the release's ONNX file holds already.

A release may store its weights as int8, and then its int8 form has the same codes: kept twice, they would be half of
all its bytes. So `model.bin` is kept as `model.bin.parts`: where which stretch of the ONNX file goes, and what stands
between them. The form's document names the whole file's checksum, so that what is put together is proven.
"""

import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from services.atomic import whole_file
from services.errors import ConfigurationError

PARTS: Final = ".parts"


class PartsBroken(ConfigurationError, ValueError):
    """The parts of a file do not fit together, or not to the ONNX file."""

    reason = "form_broken"


def parts_of(path: Path) -> Path:
    """Where the parts of the file `path` are kept."""
    return path.with_name(path.name + PARTS)


def make_compact(path: Path, onnx: Path, stretches: Iterable[Sequence[bytes]]) -> None:
    """Replace the file `path` by its parts. What it has of `stretches` of the file `onnx` is not kept.

    A stretch comes in rows: where the whole of it is not there, as one weight was rounded otherwise, its rows may be.
    """
    whole, source = path.read_bytes(), onnx.read_bytes()
    found = sorted(place for rows in stretches for place in _places(whole, source, rows))
    taken: list[tuple[int, int, int]] = []
    rest, end = [], 0
    for at, origin, length in found:
        if at >= end:
            rest.append(whole[end:at])
            taken.append((at, origin, length))
            end = at + length
    rest.append(whole[end:])
    with whole_file(parts_of(path)) as draft, draft.open("wb") as file:
        np.savez_compressed(
            file,
            size=np.int64(len(whole)),
            taken=np.array(taken, np.int64).reshape(-1, 3),
            rest=np.frombuffer(b"".join(rest), np.uint8),
        )
    path.unlink()


def _places(whole: bytes, source: bytes, rows: Sequence[bytes]) -> Iterator[tuple[int, int, int]]:
    """Where a stretch is in `whole`, where in `source`, and its length."""
    stretch = b"".join(rows)
    origin = source.find(stretch)
    if origin < 0:
        return
    if (at := whole.find(stretch)) >= 0:
        yield at, origin, len(stretch)
        return
    after = 0
    for row in rows:
        # Its neighbours are next to it: searching all of the file for each row would take minutes.
        if (at := whole.find(row, after, after + 4 * len(stretch) if after else None)) >= 0:
            yield at, origin, len(row)
            after = at + len(row)
        origin += len(row)


def put_together(parts: Path, onnx: Path) -> bytes:
    """The whole file of which `parts` are kept, with what the file `onnx` holds of it.

    Raises:
        PartsBroken: they are damaged, or of another ONNX file.
    """
    source = np.frombuffer(onnx.read_bytes(), np.uint8)
    try:
        with np.load(io.BytesIO(parts.read_bytes()), allow_pickle=False) as kept:
            size, taken, rest = int(kept["size"]), kept["taken"].tolist(), kept["rest"]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise PartsBroken(f"{parts} cannot be read ({error})") from error
    pieces, end, read = [], 0, 0
    for at, origin, length in taken:
        pieces += [rest[read : read + at - end], source[origin : origin + length]]
        read, end = read + at - end, at + length
    whole = np.concatenate([*pieces, rest[read:]])
    if whole.size != size:
        raise PartsBroken(f"{parts} and {onnx} give {whole.size} bytes, not {size}")
    return whole.tobytes()
