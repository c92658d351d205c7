"""Decoding in a process of its own: what no check foresees costs that process, and one field, and nobody else.

The file and its pixels pass through shared memory. Memory is bounded by the kernel; the limit of time is of processor
time, so that a busy machine refuses no field. A process that ends for another reason has its field tried once more in a
fresh one, since whoever killed it may have meant another.
"""

import atexit
import contextlib
import fcntl
import json
import logging
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.errors import OutageError, TransientError
from services.imaging.decoding.refusals import CONVERT, FieldDecoderKilled, FieldRefused, FieldTooLarge
from services.imaging.types import DecodedField

log = logging.getLogger(__name__)

CPU_S: Final = 30
"""Processor time for one field; the most expensive that the other bounds allow take half of it."""
_WALL_S: Final = 300.0
_START_S: Final = 120.0
_LEAST_MEMORY: Final = 2**30
_MEMORY_PER_PIXEL: Final = 24  # a progressive JPEG takes 9 bytes, a 16-bit PNG 18
_KEPT_BYTES: Final = 128 * 2**20
_ENVIRONMENT: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "HOME", "TMPDIR")
_ROOT: Final = Path(__file__).resolve().parents[3]
_REFUSALS: Final = {refusal.reason: refusal for refusal in FieldRefused.__subclasses__()}


class DecoderUnavailable(OutageError):
    """The decoder's process cannot be started; the field had no part in it."""

    reason = "decoder_unavailable"


class DecoderStuck(TransientError):
    """The decoder does not answer, and does not spend its processor time either: the machine is to blame."""

    reason = "decoder_stuck"


class _Died(Exception):
    """The process ended with this exit code before it answered; a negative one is a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Decoder:
    """One process that decodes, started when it is first needed and again after it died. Threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: _Process | None = None

    @property
    def pid(self) -> int | None:
        """The process that decodes now, if there is one."""
        return self._process.pid if self._process else None

    def decode(self, data: bytes, name: str, *, max_bytes: int, max_pixels: int) -> DecodedField:
        """As `decode_field`, within the limits; `cpu_s` of the result is what it took there.

        The pixels stay in the memory that is shared with the process. Whoever still has them when the next field is
        decoded keeps them, and makes that field wait for a fresh process.

        Raises:
            FieldRefused: `FieldDecoderKilled` where it exceeded its limits or crashed, else as `decode_field`.
            DecoderUnavailable, DecoderStuck: the field had no part in it; try again later.
        """
        if len(data) > max_bytes:  # not worth a copy
            raise FieldTooLarge(f"{name}: {len(data):,} bytes, {max_bytes:,} are allowed; {CONVERT}")
        request = {
            "name": name,
            "size": len(data),
            "max_bytes": max_bytes,
            "max_pixels": max_pixels,
            "cpu_s": CPU_S,
            "memory": _LEAST_MEMORY + _MEMORY_PER_PIXEL * max_pixels + 2 * max_bytes,
        }
        with self._lock:
            try:
                return self._decoded(data, request)
            except _Died as death:
                log.warning("%s: the decoder ended with %d; the field is tried once more", name, death.code)
            try:
                return self._decoded(data, request)
            except _Died as death:
                raise FieldDecoderKilled(
                    f"{name}: decoding it ended the decoder's process twice (exit code {death.code}); {CONVERT}"
                ) from death

    def close(self) -> None:
        """End the process; a later field starts another."""
        with self._lock:
            self._end()

    def forget(self) -> None:
        """In a process that was forked: the decoder is the parent's."""
        if self._process is not None:
            self._process.let_go()
            self._process = None

    def _decoded(self, data: bytes, request: dict[str, Any]) -> DecodedField:
        if self._process is not None and not (self._process.is_alive() and self._process.is_free()):
            self._end()
        if self._process is None:
            self._process = _Process()
        try:
            field = self._process.decode(data, request)
        except FieldDecoderKilled:
            self._end()  # with what it has of the field
            raise
        except FieldRefused:
            raise
        except BaseException:
            self._end()  # what it answered later would be taken for the next field
            raise
        if self._process.shared_bytes > _KEPT_BYTES:
            self._end()
        return field

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


class _Process:
    """The process, its pipes and the memory that it shares."""

    def __init__(self) -> None:
        self._buffer = os.memfd_create("field", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(self._buffer, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # or reading it could end this process
        self._map: mmap.mmap | None = None
        self._lent: weakref.ref[NDArray[np.uint8]] | None = None
        self._received = b""
        kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}  # no secret is among them
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "services.imaging.decoding.child", str(self._buffer)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[self._buffer],
                env={**kept, "PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            os.close(self._buffer)
            raise DecoderUnavailable(f"the decoder's process cannot be started: {error}") from error
        try:
            self._line(_START_S)  # that it is ready
        except (_Died, TimeoutError) as error:
            self.end()
            raise DecoderUnavailable(f"the decoder's process does not start ({error!r}); its log says why") from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def shared_bytes(self) -> int:
        """Size of the shared memory."""
        return os.fstat(self._buffer).st_size

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def is_free(self) -> bool:
        """Whether nobody has the pixels of the last field, or a view of them, any more."""
        return self._lent is None or self._lent() is None

    def decode(self, data: bytes, request: dict[str, Any]) -> DecodedField:
        """Have the file `data` decoded.

        Raises:
            FieldRefused, DecoderStuck, _Died
        """
        os.pwrite(self._buffer, data, 0)
        answer = self._ask(request)
        if "refused" in answer:
            raise _REFUSALS[answer["refused"]](answer["message"])
        if "failed" in answer:
            raise FieldDecoderKilled(f"{request['name']}: {answer['failed']}; {CONVERT}")
        shape, offset = (answer["height"], answer["width"], 3), answer["offset"]
        size = shape[0] * shape[1] * shape[2]
        if self._map is None or len(self._map) < offset + size:
            self._map = mmap.mmap(self._buffer, 0)
        pixels = np.frombuffer(self._map, np.uint8, size, offset)
        self._lent = weakref.ref(pixels)  # every view keeps this array
        return DecodedField(pixels.reshape(shape), tuple(answer["notes"]), answer["cpu_s"], answer["stated_um_per_px"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = self._line(_WALL_S)
        except BrokenPipeError:
            raise _Died(self._process.wait()) from None
        except TimeoutError:
            raise DecoderStuck(f"{request['name']}: the decoder does not answer within {_WALL_S:.0f} s") from None
        except _Died as death:
            if death.code != -signal.SIGXCPU:
                raise
            raise FieldDecoderKilled(
                f"{request['name']}: decoding it takes more than {request['cpu_s']} s; {CONVERT}"
            ) from death
        return answer

    def _line(self, seconds: float) -> Any:
        """The next line of its output, as JSON."""
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + seconds
        while b"\n" not in self._received:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            part = os.read(descriptor, 65536)
            if not part:
                raise _Died(self._process.wait())
            self._received += part
        line, self._received = self._received.split(b"\n", 1)
        return json.loads(line)

    def end(self) -> None:
        """Kill it: what it still does is not wanted."""
        self._process.kill()
        self._process.wait()
        self.let_go()

    def let_go(self) -> None:
        """Close its pipes and its memory, here."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # noqa: S101 - both are pipes
            with contextlib.suppress(BrokenPipeError):  # of a request that it did not live to read
                pipe.close()
        os.close(self._buffer)
        self._map = None
        self._process.returncode = self._process.returncode or 0  # nobody here will wait for it any more


_decoder = Decoder()


def decode_apart(data: bytes, name: str, *, max_bytes: int, max_pixels: int) -> DecodedField:
    """`Decoder.decode` by the one decoder of this process.

    Raises:
        FieldRefused, DecoderUnavailable, DecoderStuck
    """
    return _decoder.decode(data, name, max_bytes=max_bytes, max_pixels=max_pixels)


def _after_fork() -> None:
    global _decoder
    _decoder.forget()
    _decoder = Decoder()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _decoder.close())
