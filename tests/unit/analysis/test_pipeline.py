"""The pipeline's order, bounds and faults, with a store and networks in memory."""

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import date

import cv2
import numpy as np
import pytest

from services.analysis.fields import PreparedField, StageClock
from services.analysis.pipeline import READ_AHEAD, FoundCell, run_slide
from services.analysis.queries import FieldWork, SlideWork
from services.fields import FieldLimits
from services.imaging.decoding.channel_files import channel_files
from services.imaging.types import Box
from services.inference.predictions import Predictions
from services.releases.served import ServedRelease
from services.storage import ObjectMissing, ObjectTooLarge, StoreUnavailable
from services.taxonomy import CLASS_NAMES
from tests.waiting import wait_until

LIMITS = FieldLimits(max_bytes=10**7, max_pixels=10**7)


def field_image(seed: int) -> bytes:
    """A readable field with some contrast in it."""
    noise = np.random.default_rng(seed).integers(170, 230, (300, 400, 3), dtype=np.uint8)
    centre = (60 + 70 * seed % 290, 60 + 110 * seed % 190)  # one that shows the same as another is not counted
    cv2.ellipse(noise, centre, (40, 26), 20, 0, 360, (90, 40, 80), -1)
    return cv2.imencode(".png", cv2.GaussianBlur(noise, (0, 0), 1.5))[1].tobytes()


def slide_of(images: list[bytes], boxes: tuple[Box, ...]) -> SlideWork:
    fields = tuple(
        FieldWork(number, f"f{number}.png", hashlib.sha256(data).hexdigest(), is_crop=False, given=boxes)
        for number, data in enumerate(images)
    )
    return SlideWork(1, 1, "lab", "batch", "slide", 0.1, date(2026, 11, 1), "r1", 64, 16.0, fields)


class MemoryStore:
    def __init__(self, slide: SlideWork, images: list[bytes]) -> None:
        self.objects = {slide.uploaded(work).object_key: data for work, data in zip(slide.fields, images, strict=True)}
        self.reads = 0

    def get(self, key: str, *, max_bytes: int) -> bytes:
        self.reads += 1
        if key not in self.objects:
            raise ObjectMissing(key)
        if len(self.objects[key]) > max_bytes:
            raise ObjectTooLarge(key)
        return self.objects[key]


class CountingNetworks:
    """Echoes the mean of each crop as every logit; counts what is under way."""

    batch = 4

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def served_release(self) -> ServedRelease:
        raise NotImplementedError

    def submit(self, crops: np.ndarray, release_id: str) -> Future[Predictions]:
        self.sizes.append(len(crops))

        def classify() -> Predictions:
            self.gate.wait(10)
            values = crops.mean(axis=(1, 2, 3), dtype=np.float32)[:, np.newaxis].repeat(len(CLASS_NAMES), 1)
            return Predictions(values, values, values)

        return self.pool.submit(classify)


class ListSink:
    def __init__(self) -> None:
        self.fields: list[PreparedField] = []
        self.cells: list[tuple[int, Box]] = []

    def add_field(self, prepared: PreparedField) -> None:
        self.fields.append(prepared)

    def add_cell(self, cell: FoundCell, predictions: Predictions, row: int) -> None:
        assert 0 <= row < len(predictions.probabilities)
        self.cells.append((cell.field_id, cell.head.box))

    def check(self) -> None:
        pass


BOXES = (Box(150, 100, 250, 200), Box(10, 10, 60, 50), Box(300, 200, 360, 260))


def test_cells_come_out_in_order_of_field_then_y_and_requests_are_filled_across_fields() -> None:
    images = [field_image(n) for n in range(5)]
    slide = slide_of(images, BOXES)
    networks, sink = CountingNetworks(), ListSink()
    faults = run_slide(slide, MemoryStore(slide, images), networks, sink, LIMITS, StageClock())
    assert faults == []
    assert sink.cells == [(n, box) for n in range(5) for box in sorted(BOXES, key=lambda b: (b.y0, b.x0))]
    assert networks.sizes == [4, 4, 4, 3]  # whole requests: what is left of a field waits for the next


def test_a_field_of_many_cells_is_sent_in_whole_requests_at_once() -> None:
    images = [field_image(n) for n in range(2)]
    slide = slide_of(images, BOXES * 3)
    networks, sink = CountingNetworks(), ListSink()
    run_slide(slide, MemoryStore(slide, images), networks, sink, LIMITS, StageClock())
    assert networks.sizes == [8, 8, 2]
    assert [number for number, _ in sink.cells] == [0] * 9 + [1] * 9


def test_the_reader_stays_a_bounded_number_of_fields_ahead() -> None:
    images = [field_image(0)] * 40
    slide = slide_of(images, BOXES)
    store, sink = MemoryStore(slide, images), ListSink()
    bound = READ_AHEAD + 2  # one taken, READ_AHEAD waiting in the queue, one more in the reader's hands
    ahead: list[int] = []

    def check() -> None:
        if not sink.fields:  # this thread stands still until the reader does
            wait_until(lambda: store.reads >= bound, what="the reader reads ahead")
        ahead.append(store.reads - len(sink.fields))

    sink.check = check  # type: ignore[method-assign]
    run_slide(slide, store, CountingNetworks(), sink, LIMITS, StageClock())
    assert max(ahead) == bound


def test_every_fault_of_a_slide_is_named_and_nothing_more_is_classified_after_the_first() -> None:
    images = [field_image(n) for n in range(6)]
    slide = slide_of(images, BOXES)
    store, networks = MemoryStore(slide, images), CountingNetworks()
    del store.objects[slide.uploaded(slide.fields[0]).object_key]
    store.objects[slide.uploaded(slide.fields[2]).object_key] = b"other bytes"
    sink = ListSink()
    faults = run_slide(slide, store, networks, sink, LIMITS, StageClock())
    assert [fault.reason for fault in faults] == ["field_missing", "checksum_mismatch"]
    assert "lab lab, batch batch, slide slide: field f0.png" in str(faults[0])
    assert len(sink.fields) == 6
    assert networks.sizes == []


def test_a_store_that_fails_stops_the_slide_with_its_own_error() -> None:
    images = [field_image(0)] * 3
    slide = slide_of(images, BOXES)
    store = MemoryStore(slide, images)

    def down(key: str, *, max_bytes: int) -> bytes:
        raise StoreUnavailable("503")

    store.get = down  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        run_slide(slide, store, CountingNetworks(), ListSink(), LIMITS, StageClock())
    assert not [t for t in threading.enumerate() if t.name.startswith("reader")]


def test_a_box_beyond_the_field_is_a_fault_of_that_slide() -> None:
    images = [field_image(0)]
    slide = slide_of(images, (Box(350, 10, 420, 60),))
    faults = run_slide(slide, MemoryStore(slide, images), CountingNetworks(), ListSink(), LIMITS, StageClock())
    assert [fault.reason for fault in faults] == ["cell_outside_field"]
    assert "[350, 10, 420, 60]" in str(faults[0])


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def named(slide: SlideWork, *names: str) -> SlideWork:
    channels = channel_files(names)
    return replace(
        slide,
        fields=tuple(
            replace(work, key=name, named_as_channel=name in channels)
            for work, name in zip(slide.fields, names, strict=True)
        ),
    )


def faults_of(slide: SlideWork, images: list[bytes]) -> list[tuple[str, str]]:
    faults = run_slide(slide, MemoryStore(slide, images), CountingNetworks(), ListSink(), LIMITS, StageClock())
    return [(fault.reason, str(fault)) for fault in faults]


def test_files_that_are_channels_of_one_picture_are_not_fields() -> None:
    colour = cv2.imdecode(np.frombuffer(field_image(0), np.uint8), cv2.IMREAD_COLOR)
    grey = [png(colour[..., channel]) for channel in range(3)]
    names = ("s/a_ch00.png", "s/a_ch01.png", "s/a_ch02.png")
    assert [reason for reason, _ in faults_of(named(slide_of(grey, BOXES), *names), grey)] == [
        "field_separate_channels"
    ] * 3
    # In colour, or numbered, they are fields.
    coloured = [field_image(number) for number in range(3)]
    assert faults_of(named(slide_of(coloured, BOXES), *names), coloured) == []
    assert faults_of(named(slide_of(grey, BOXES), "s/a_1.png", "s/a_2.png", "s/a_3.png"), grey) == []


def test_a_field_of_a_size_that_cannot_be_worked_on_is_named_with_its_scale() -> None:
    images = [field_image(0), png(np.full((16, 2000, 3), 200, np.uint8)), field_image(1)]
    slide = slide_of(images, ())
    narrow, coarse = replace(slide, um_per_px=0.1), replace(slide, um_per_px=2.0)
    ((reason, message),) = faults_of(narrow, images)
    assert reason == "field_too_small"
    assert message.startswith("lab lab, batch batch, slide slide: field f1.png: 2,000 × 16 pixels of 0.1 µm")
    assert {reason for reason, _ in faults_of(coarse, images)} == {"field_too_coarse"}


def test_a_field_of_too_many_bytes_is_named_as_a_field() -> None:
    images = [field_image(0), png(np.zeros((3000, 3000, 3), np.uint8)) + bytes(LIMITS.max_bytes)]
    ((reason, message),) = faults_of(slide_of(images, BOXES), images)
    assert reason == "field_too_large"
    assert message.startswith("lab lab, batch batch, slide slide: field f1.png: more than the 10,000,000 bytes allowed")
