"""The stages of a slide, overlapping: while crops of one field are at the networks, the next fields are being read.

    reader thread ──▶ this thread: decode, detect, crop ──▶ networks (async) ──▶ rows
         ≤ 2 fields waiting        ≤ one request of crops gathering   ≤ in_flight requests

Each arrow is bounded, so memory does not depend on how many fields a slide has.
"""

import queue
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.analysis.copies import SeenFields
from services.analysis.fields import PreparedField, StageClock, copy_of_another, prepare
from services.analysis.queries import FieldWork, SlideWork
from services.errors import PermanentError
from services.fields import FieldLimits, fetch
from services.imaging.types import Head
from services.inference.predictions import Predictions
from services.log_context import carried
from services.releases.served import ServedRelease
from services.storage import ObjectStore

READ_AHEAD = 2


class Classifier(Protocol):
    """What the pipeline needs of the networks; `services.inference.Networks` is the real one."""

    @property
    def batch(self) -> int:
        """Most crops in one request."""

    def served_release(self) -> ServedRelease:
        """The release that is served now."""

    def submit(self, crops: NDArray[np.uint8], release_id: str) -> Future[Predictions]:
        """Send crops `[N, S, S, 3]` for this release alone, in requests of at most `batch`.

        Blocks while too many requests are outstanding.
        """


@dataclass(frozen=True, slots=True)
class FoundCell:
    """A head with its field, and how much of its crop lies in that field, 0 to 1; None: it has no field."""

    field_id: int
    head: Head
    crop_inside_share: float | None


class Sink(Protocol):
    """Where results go, in the order of the fields."""

    def add_field(self, prepared: PreparedField) -> None:
        """A field, used or not."""

    def add_cell(self, cell: FoundCell, predictions: Predictions, row: int) -> None:
        """A classified cell: row `row` of `predictions`."""

    def check(self) -> None:
        """Raise to stop the work between two fields (the lease was lost)."""


@dataclass(slots=True)
class _Gathering:
    """Crops of one or more fields that wait to fill a request."""

    crops: list[NDArray[np.uint8]] = field(default_factory=list)
    cells: list[FoundCell] = field(default_factory=list)


def run_slide(
    slide: SlideWork, store: ObjectStore, networks: Classifier, sink: Sink, limits: FieldLimits, clock: StageClock
) -> list[PermanentError]:
    """Run every field of a slide; returns the faults of its delivery, all of them, empty for a good slide.

    After a first fault nothing more is sent to the networks, since the slide cannot end well; the remaining fields are
    still fetched and decoded, so that one report names everything that must be uploaded again.

    Raises:
        TransientError: the store or the networks failed.
    """
    faults: list[PermanentError] = []
    outstanding: deque[tuple[list[FoundCell], Future[Predictions]]] = deque()
    gathering = _Gathering()
    seen = SeenFields()

    def send(*, rest: bool) -> None:
        """Send what fills whole requests, and with `rest` what is over; else that waits for the next fields' crops.

        The networks run in small sub-batches of fixed size, so that odd requests would have them run on padding.
        """
        nonlocal gathering
        crops, cells = np.concatenate(gathering.crops), gathering.cells
        end = len(crops) if rest else len(crops) // networks.batch * networks.batch
        future = clock.timed("wait_for_networks", partial(networks.submit, crops[:end], slide.release_id))
        outstanding.append((cells[:end], future))
        gathering = _Gathering([crops[end:]], cells[end:])

    def add_cells(cells: list[FoundCell], predictions: Predictions) -> None:
        for row, cell in enumerate(cells):
            sink.add_cell(cell, predictions, row)

    def collect(*, wait: bool) -> None:
        while outstanding and (wait or outstanding[0][1].done()):
            cells, future = outstanding.popleft()
            predictions = clock.timed("wait_for_networks", future.result)
            clock.timed("rows", partial(add_cells, cells, predictions))

    with _reading(slide, store, limits, clock) as arrivals:
        for work, data in arrivals:
            sink.check()
            prepared = _prepared(data, slide, work, limits, clock, seen)
            sink.add_field(prepared)
            if prepared.fault is not None:
                faults.append(prepared.fault)
            elif prepared.crops is not None and len(prepared.crops) and not faults:
                gathering.crops.append(prepared.crops)
                gathering.cells.extend(
                    FoundCell(work.id, head, inside)
                    for head, inside in zip(prepared.found.heads, prepared.inside, strict=True)
                )
                if len(gathering.cells) >= networks.batch:
                    send(rest=False)
            collect(wait=False)
    if gathering.cells and not faults:
        send(rest=True)
    collect(wait=True)
    return faults


def _prepared(
    data: bytes | PermanentError,
    slide: SlideWork,
    work: FieldWork,
    limits: FieldLimits,
    clock: StageClock,
    seen: SeenFields,
) -> PreparedField:
    if work.copy_of is not None:
        return copy_of_another(slide, work, work.copy_of, "has the same bytes as")
    if isinstance(data, PermanentError):
        return PreparedField(work, fault=data)
    try:
        return prepare(data, slide, work, limits, clock, seen)
    except PermanentError as error:
        return PreparedField(work, fault=error)


@contextmanager
def _reading(
    slide: SlideWork, store: ObjectStore, limits: FieldLimits, clock: StageClock
) -> Iterator[Iterator[tuple[FieldWork, bytes | PermanentError]]]:
    """Fetch the fields in a thread, at most `READ_AHEAD` ahead of who consumes them."""
    ready: queue.Queue[tuple[FieldWork, bytes | PermanentError] | BaseException | None] = queue.Queue(READ_AHEAD)
    stop = threading.Event()

    def offer(item: tuple[FieldWork, bytes | PermanentError] | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for work in slide.fields:
                data: bytes | PermanentError = b""
                try:
                    uploaded = slide.uploaded(work)
                    if work.copy_of is None:
                        data = clock.timed("fetch", partial(fetch, store, uploaded, limits))
                except PermanentError as error:
                    data = error
                if not offer((work, data)):
                    return
            offer(None)
        except BaseException as error:  # noqa: BLE001 - handed to the consuming thread, which raises it
            offer(error)

    def arrivals() -> Iterator[tuple[FieldWork, bytes | PermanentError]]:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=carried(read), name=f"reader-{slide.analysis_id}", daemon=True)
    thread.start()
    try:
        yield arrivals()
    finally:
        stop.set()
        thread.join()
