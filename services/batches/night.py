"""A night as an operator asks for it in the morning: complete or not, what is missing, why, and what to do."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from sqlalchemy import Engine

from services.batches.queries import (
    LabNight,
    NightBatch,
    NightTrouble,
    lab_nights,
    night_batches,
    night_troubles,
    silent_labs,
)
from services.database.session import transaction
from services.database.states import BatchState, Held
from services.deliveries.queries import DeliveriesNow, deliveries_now

_NAMED_AT_MOST: Final = 2
_USUAL_NIGHTS: Final = 3
_ENDED_AS: Final = {
    BatchState.COMPLETE: "complete",
    BatchState.COMPLETE_WITH_ERRORS: "with quarantined slides",
    BatchState.ANALYSING: "not ended",
    BatchState.REJECTED: "rejected",
    BatchState.CANCELLED: "cancelled",
}
_HELD: Final = {
    Held.LAB_PAUSED: "the lab is paused",
    Held.BATCH_PAUSED: "it is paused",
    Held.OUTSIDE_WINDOW: "outside the lab's window",
    Held.BATCH_CANCELLED: "it is cancelled",
}


@dataclass(frozen=True, slots=True)
class Night:
    """The batches received in a night, why slides of them have no result, and labs that should have sent some.

    A night goes from noon to noon by the lab's clock and is named by its evening. While it is another day at some labs,
    the last night is not of one evening at all of them.
    """

    nights: tuple[LabNight, ...]
    batches: tuple[NightBatch, ...]
    troubles: tuple[NightTrouble, ...]
    silent: tuple[str, ...]
    deliveries: DeliveriesNow

    @property
    def is_complete(self) -> bool:
        """Batches were received, and each ended with a result for every slide, or because a person cancelled it."""
        return bool(self.batches) and not self.missing

    @property
    def missing(self) -> tuple[NightBatch, ...]:
        """The batches that did not end so."""
        return tuple(batch for batch in self.batches if batch.state not in (BatchState.COMPLETE, BatchState.CANCELLED))

    def lines(self) -> Iterator[tuple[str, str]]:
        """What to tell an operator: ten lines at most, each with what it is about."""
        verdict = "complete" if self.is_complete else "NOT COMPLETE" if self.batches else "nothing was received"
        yield "night", f"{_when(self.nights)}: {verdict}"
        yield "batches", _batches(self.batches) + _silence(self.silent) + _undelivered(self.deliveries)
        if not self.batches:
            yield "do", "check the uploads: `morphbatch doctor` (uploads), and the LIMS; without any, this is right"
            return
        yield "slides", _slides(self.batches)
        yield "cells", _cells(self.batches)
        for batch in self.missing[:_NAMED_AT_MOST]:
            yield "missing", f"{batch}: {_missing_of(batch)}"
        if more := self.missing[_NAMED_AT_MOST:]:
            yield "missing", f"and {len(more)} more batches: --json lists them"
        for trouble in self.troubles[: _NAMED_AT_MOST - bool(more)]:
            words = trouble.detail.partition("\n")[0]
            yield "why", f"{_counted(trouble.slides, 'slide')} {trouble.state}, {trouble.reason}: {words}"
        for advice in list(_advice(self.missing))[:_NAMED_AT_MOST]:
            yield "do", advice


def read_night(engine: Engine, now: datetime, evening: date | None = None) -> Night:
    """The night of that evening at each lab, as it is now; without an evening, the last night by each lab's clock.

    The last night is the one that is ending in the morning, and is over in the afternoon.
    """
    with transaction(engine) as session:
        return Night(
            tuple(lab_nights(session, now, evening)),
            tuple(night_batches(session, now, evening)),
            tuple(night_troubles(session, now, evening)),
            tuple(silent_labs(session, now, evening, _USUAL_NIGHTS)),
            deliveries_now(session),
        )


def _when(nights: tuple[LabNight, ...]) -> str:
    """The evening and whose clock: of all labs, or of each group of labs that have the same evening."""
    if not nights:
        return "no lab is on record"
    zones = {night.time_zone for night in nights}
    clock = f"the clock of {zones.pop()}" if len(zones) == 1 else "each lab's clock"
    labs: dict[date, list[str]] = defaultdict(list)
    for night in nights:
        labs[night.evening].append(night.lab)
    if len(labs) == 1:
        return f"{nights[0].evening}, noon to noon by {clock}"
    evenings = (f"{evening} at {_listed(codes)}" for evening, codes in sorted(labs.items()))
    return f"{', '.join(evenings)}, noon to noon by {clock}"


def _listed(labs: list[str]) -> str:
    return " and ".join(labs) if len(labs) <= _NAMED_AT_MOST else f"{labs[0]} and {len(labs) - 1} more labs"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _batches(batches: tuple[NightBatch, ...]) -> str:
    labs = {batch.lab for batch in batches}
    states = Counter(batch.state for batch in batches)
    ended = ", ".join(f"{states[state]} {words}" for state, words in _ENDED_AS.items() if states[state])
    urgent = sum(batch.urgent for batch in batches)
    named = f"{len(batches)}{f' ({urgent} urgent)' if urgent else ''} of {_counted(len(labs), 'lab')}"
    return f"{named}: {ended}" if batches else "none"


def _silence(labs: tuple[str, ...]) -> str:
    if not labs:
        return ""
    return f"; nothing from {', '.join(labs[:5])}, which sent on each of the {_USUAL_NIGHTS} nights before"


def _undelivered(now: DeliveriesNow) -> str:
    """Of all nights: what is not delivered is missing at the lab, whenever it was made."""
    parts = [f"{now.stopped} stopped" if now.stopped else "", f"{now.waiting} waiting" if now.waiting else ""]
    said = " and ".join(filter(None, parts))
    return f"; deliveries to LIMS {said}: `morphbatch deliveries`" if said else ""


def _slides(batches: tuple[NightBatch, ...]) -> str:
    states = {
        "done": sum(batch.done for batch in batches),
        "with too few cells": sum(batch.insufficient for batch in batches),
        "quarantined": sum(batch.quarantined for batch in batches),
        "cancelled": sum(batch.cancelled for batch in batches),
        "not ended": sum(batch.open for batch in batches),
    }
    return f"{sum(states.values())}: " + (", ".join(f"{n} {words}" for words, n in states.items() if n) or "none")


def _cells(batches: tuple[NightBatch, ...]) -> str:
    began = [batch.first_started_at for batch in batches if batch.first_started_at]
    ended = [batch.last_finished_at for batch in batches if batch.last_finished_at]
    when = f", from {min(began):%d %b %H:%M} to {max(ended):%d %b %H:%M} UTC" if began and ended else ""
    return f"{sum(batch.cells for batch in batches)} counted{when}"


def _missing_of(batch: NightBatch) -> str:
    if batch.state == BatchState.REJECTED:
        return f"its manifest was rejected, {_counted(batch.problems, 'problem')}"
    parts = [
        f"{_counted(batch.open, 'slide')} not ended" if batch.open else "",
        _HELD[Held(batch.held)] if batch.held else "",
        f"{_counted(batch.quarantined, 'slide')} quarantined" if batch.quarantined else "",
    ]
    return ", ".join(filter(None, parts)) or "its slides have ended, its report is not written yet"


def _is_open(batch: NightBatch) -> bool:
    return batch.open > 0 or batch.state == BatchState.ANALYSING


def _advice(missing: tuple[NightBatch, ...]) -> Iterator[str]:
    """One sentence for each kind of trouble, the gravest first, with a command for a batch that has it."""
    of = "{0.batch_id} --lab {0.lab}"
    if rejected := [batch for batch in missing if batch.state == BatchState.REJECTED]:
        command = f"`morphbatch watch {of.format(rejected[0])}`"
        yield f"the lab sends a corrected manifest; {command} lists what is wrong"
    if paused := [batch for batch in missing if batch.held in (Held.LAB_PAUSED, Held.BATCH_PAUSED)]:
        of_batch = f" {paused[0].batch_id}" if paused[0].held == Held.BATCH_PAUSED else ""
        command = f"`morphbatch resume {paused[0].lab}{of_batch}`"
        yield f"`morphbatch doctor` says who paused it and why; once it may go on: {command}"
    if unended := [batch for batch in missing if batch.held is None and _is_open(batch)]:
        command = f"`morphbatch watch {of.format(unended[0])}`"
        yield f"`morphbatch doctor` says whether anything is down; if not, it goes on by itself: {command}"
    if quarantined := [batch for batch in missing if batch.quarantined]:
        command = f"`morphbatch requeue {of.format(quarantined[0])}`"
        yield f"do what the reason says (a broken field: the lab uploads it again), then {command}"
