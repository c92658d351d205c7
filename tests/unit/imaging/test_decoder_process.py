"""Decoding apart: the same pixels, and whatever a file does to its decoder stays there."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.imaging.decoding import apart
from services.imaging.decoding.apart import Decoder, DecoderUnavailable
from services.imaging.decoding.refusals import FieldDecoderKilled, FieldRefused
from services.imaging.types import DecodedField
from tests.places import CHECKOUT
from tests.unit.imaging.field_files import CORPUS, FIELD, decode, saved

LIMITS = {"max_bytes": 8_000_000, "max_pixels": 120_000_000}
SMALL = saved(FIELD, "PNG")


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    one = Decoder()
    yield one
    one.close()


@pytest.fixture(scope="module")
def slow() -> bytes:
    """Within all bounds, and takes more than a second: 30 even pages of 15 megapixels each."""
    page = Image.new("RGB", (5000, 3000), (200, 190, 180))
    out = io.BytesIO()
    page.save(out, "TIFF", compression="zstd", save_all=True, append_images=[page] * 29)
    return out.getvalue()


def pid_of(decoder: Decoder) -> int:
    assert decoder.pid is not None
    return decoder.pid


def test_pixels_and_notes_are_those_of_this_process(decoder: Decoder) -> None:
    pids = set()
    for name, data in CORPUS.items():
        field, here = decoder.decode(data, name, **LIMITS), decode(data, name)
        np.testing.assert_array_equal(field.pixels, here.pixels, err_msg=name)
        assert field.notes == here.notes
        del field
        pids.add(pid_of(decoder))
    assert len(pids) == 1


def test_the_time_it_takes_there_is_told(decoder: Decoder) -> None:
    assert decoder.decode(saved(np.tile(FIELD, (20, 20, 1)), "PNG"), "f", **LIMITS).cpu_s > 0.001


def test_a_refusal_is_the_same_refusal(decoder: Decoder) -> None:
    for data in (b"", b"<html>", SMALL[:200], saved(FIELD[:8], "PNG"), bytes(LIMITS["max_bytes"] + 1)):
        with pytest.raises(FieldRefused) as here:
            decode(data, "a/f.png")
        with pytest.raises(FieldRefused) as there:
            decoder.decode(data, "a/f.png", **LIMITS)
        assert type(there.value) is type(here.value)
        assert str(there.value) == str(here.value)


def test_pixels_that_are_still_held_are_left_alone(decoder: Decoder) -> None:
    first = decoder.decode(SMALL, "f", **LIMITS).pixels[4:9]
    for turned in range(1, 4):
        decoder.decode(saved(np.rot90(FIELD, turned), "PNG"), "f", **LIMITS)
    np.testing.assert_array_equal(first, FIELD[4:9])


def test_too_much_time_is_the_fields_fault(decoder: Decoder, slow: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "CPU_S", 0)
    with pytest.raises(FieldDecoderKilled, match=r"^a/f\.tif: .*takes more than 0 s.*requeue") as caught:
        decoder.decode(slow, "a/f.tif", **LIMITS)
    assert caught.value.reason == "field_decoder_killed"
    monkeypatch.undo()
    np.testing.assert_array_equal(decoder.decode(SMALL, "f", **LIMITS).pixels, FIELD)


def test_too_much_memory_is_the_fields_fault(decoder: Decoder, slow: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder.decode(SMALL, "f", **LIMITS)
    status = Path(f"/proc/{pid_of(decoder)}/status").read_text()
    in_use = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmSize"))
    more = apart._MEMORY_PER_PIXEL * LIMITS["max_pixels"] + 2 * LIMITS["max_bytes"]
    monkeypatch.setattr(apart, "_LEAST_MEMORY", in_use + 20 * 2**20 - more)
    with pytest.raises(FieldDecoderKilled, match=r"^a/f\.tif: it needs more memory.*requeue"):
        decoder.decode(slow, "a/f.tif", **LIMITS)
    monkeypatch.undo()
    np.testing.assert_array_equal(decoder.decode(SMALL, "f", **LIMITS).pixels, FIELD)


def decoded_meanwhile(decoder: Decoder, data: bytes, meanwhile: threading.Event) -> list[DecodedField | Exception]:
    results: list[DecodedField | Exception] = []

    def run() -> None:
        try:
            results.append(decoder.decode(data, "a/f.tif", **LIMITS))
        except FieldRefused as error:
            results.append(error)
        finally:
            meanwhile.set()

    threading.Thread(target=run).start()
    return results


def test_a_decoder_that_somebody_kills_costs_nothing(decoder: Decoder) -> None:
    decoder.decode(SMALL, "f", **LIMITS)
    first = pid_of(decoder)
    os.kill(first, signal.SIGSTOP)  # so that it is killed with the request unanswered
    ended = threading.Event()
    results = decoded_meanwhile(decoder, SMALL, ended)
    os.kill(first, signal.SIGKILL)
    assert ended.wait(60)
    assert isinstance(results[0], DecodedField)
    np.testing.assert_array_equal(results[0].pixels, FIELD)
    assert pid_of(decoder) != first


def test_a_field_that_ends_its_decoder_twice_is_refused(decoder: Decoder, slow: bytes) -> None:
    ended = threading.Event()
    results = decoded_meanwhile(decoder, slow, ended)
    killed: set[int] = set()
    while not ended.wait(0.005):
        if (pid := decoder.pid) is not None and pid not in killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    assert isinstance(results[0], FieldDecoderKilled)
    assert "ended the decoder's process twice (exit code -9)" in str(results[0])
    assert len(killed) == 2
    np.testing.assert_array_equal(decoder.decode(SMALL, "f", **LIMITS).pixels, FIELD)


def test_signals_that_stop_a_worker_let_its_field_end(decoder: Decoder) -> None:
    decoder.decode(SMALL, "f", **LIMITS)
    first = pid_of(decoder)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        os.kill(first, number)
        np.testing.assert_array_equal(decoder.decode(SMALL, "f", **LIMITS).pixels, FIELD)
    assert pid_of(decoder) == first


def test_a_decoder_that_cannot_be_started_is_an_outage(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("/nowhere/python", "/bin/false"):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(DecoderUnavailable):
            decoder.decode(SMALL, "f", **LIMITS)
    monkeypatch.undo()
    np.testing.assert_array_equal(decoder.decode(SMALL, "f", **LIMITS).pixels, FIELD)


def test_the_decoder_is_given_no_secret(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPHBATCH_S3_SECRET_KEY", "do-not-tell")
    decoder.decode(SMALL, "f", **LIMITS)
    assert b"do-not-tell" not in Path(f"/proc/{pid_of(decoder)}/environ").read_bytes()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_decoder_ends_with_its_parent() -> None:
    code = (
        "import sys, time; from services.imaging.decoding import apart; data = sys.stdin.buffer.read();"
        " apart.decode_apart(data, 'f', max_bytes=10**7, max_pixels=10**6);"
        " print(apart._decoder.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(SMALL)
        parent.stdin.close()
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    deadline = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


def test_a_forked_process_has_a_decoder_of_its_own() -> None:
    code = """
import os, sys
from services.imaging.decoding import apart
data = sys.stdin.buffer.read()
def pid():
    apart.decode_apart(data, "f", max_bytes=10**7, max_pixels=10**6)
    return apart._decoder.pid
before = pid()
child = os.fork()
if child == 0:
    nothing_inherited = apart._decoder.pid is None
    os._exit(0 if nothing_inherited and pid() != before else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert pid() == before
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=CHECKOUT, input=SMALL, check=True)
