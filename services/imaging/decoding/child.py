"""The decoder's process: one field at a time, under limits of memory and processor time, until its input ends.

    python -m services.imaging.decoding.child BUFFER

Requests and answers are lines of JSON on stdin and stdout; the bytes of the file, and the pixels after them, are in the
shared memory whose file descriptor is BUFFER. It imports no more than decoding takes, and holds no secret.
"""

import json
import mmap
import os
import resource
import signal
import sys
import time
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import DTypeLike

from services.imaging.decoding.decode import decode_field
from services.imaging.decoding.refusals import FieldRefused
from services.imaging.types import RGB

_PAGE: Final = mmap.PAGESIZE
_MOST_FILES: Final = 64


class _Buffer:
    """Shared memory: the file from 0 on, the pixels from the next page on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None
        self.offset = 0

    def read(self, size: int) -> bytes:
        """The file's bytes."""
        self.offset = -(-size // _PAGE) * _PAGE
        return os.pread(self._descriptor, size, 0)

    def canvas(self, shape: tuple[int, int, int], dtype: DTypeLike, /) -> RGB:
        """Room for the pixels behind the file."""
        end = self.offset + shape[0] * shape[1] * shape[2]
        if self._map is None or len(self._map) < end:
            if os.fstat(self._descriptor).st_size < end:
                os.ftruncate(self._descriptor, end)
            self._map = mmap.mmap(self._descriptor, 0)
        pixels: RGB = np.frombuffer(self._map, dtype, end - self.offset, self.offset).reshape(shape)
        return pixels


def _answer(request: dict[str, Any], buffer: _Buffer) -> dict[str, Any]:
    start = time.process_time()
    soft = int(start) + 1 + request["cpu_s"]
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_AS, (request["memory"], resource.RLIM_INFINITY))
    try:
        field = decode_field(
            buffer.read(request["size"]),
            request["name"],
            max_bytes=request["max_bytes"],
            max_pixels=request["max_pixels"],
            canvas=buffer.canvas,
        )
    except FieldRefused as error:
        return {"refused": error.reason, "message": str(error)}
    height, width = field.pixels.shape[:2]
    return {
        "height": height,
        "width": width,
        "offset": buffer.offset,
        "notes": field.notes,
        "stated_um_per_px": field.stated_um_per_px,
        "cpu_s": time.process_time() - start,
    }


def main(descriptor: int) -> None:
    """Serve until stdin is closed; a crash ends the process, and its parent sees that."""
    # Whoever stops the worker lets it end its field; the decoder ends with its parent.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_FILES, _MOST_FILES))
    cv2.setNumThreads(1)
    buffer = _Buffer(descriptor)
    _write("ready")
    while line := sys.stdin.buffer.readline():
        try:
            answer = _answer(json.loads(line), buffer)
        except MemoryError:
            answer = {"failed": "it needs more memory than it may have"}
        _write(answer)


def _write(document: object) -> None:
    sys.stdout.buffer.write(json.dumps(document).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
