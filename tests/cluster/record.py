"""What was seen on the cluster: replicas and slides each second, and what each disturbance did."""

import json
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from tests.cluster.kubectl import Api

_OUTSTANDING = text(
    "select coalesce(sum(slides_queued), 0)::int, coalesce(sum(slides_running), 0)::int from operations.outstanding"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One look, `at` seconds after the first; `None`: the cluster or Postgres did not answer."""

    at: float
    wanted: int | None
    ready: int | None
    queued: int | None
    running: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One night: what was done to it, what was seen of that, and how it ended. Times in seconds."""

    disturbance: str
    seen: str
    night_s: float
    slides: int
    cells: int
    attempts: int
    most_attempts: int


@dataclass(slots=True)
class Record:
    """Of one run of the test. `events` are the disturbances with their moments."""

    samples: list[Sample] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def event(self, what: str) -> None:
        """Something is done to the cluster now."""
        self.events.append((self.now(), what))

    def as_json(self) -> dict[str, Any]:
        """All of it, as `record.json` holds it."""
        return {
            "events": self.events,
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            "samples": [asdict(sample) for sample in self.samples],
        }

    def write(self, folder: Path) -> None:
        """`record.json`, and the outcomes as a table for a page."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").write_text(json.dumps(self.as_json()) + "\n", encoding="utf-8")
        rows = [
            f"| {o.disturbance} | {o.seen} | {o.night_s / 60:.1f} min | {o.slides} | {o.cells} | {o.attempts} |"
            for o in self.outcomes
        ]
        head = "| done | seen | the whole night | slides | cells | attempts |\n|---|---|---|---|---|---|\n"
        events = [f"{number}. {at / 60:.1f} min: {what}" for number, (at, what) in enumerate(self.events, start=1)]
        page = "\n".join((head.rstrip(), *rows, "", *events, ""))
        (folder / "disturbances.md").write_text(page, encoding="utf-8")


class Watch:
    """A thread that looks once each second, from `start` to `stop`."""

    def __init__(self, record: Record, api: Api, engine: Engine) -> None:
        self._record, self._api, self._engine = record, api, engine
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        due = time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            due += 1.0
            at = self._record.now()
            wanted = ready = queued = running = None
            try:
                wanted, ready = self._api.workers()
            except (URLError, TimeoutError):
                wanted = ready = None  # a gap in the record
            try:
                with self._engine.connect() as connection:
                    queued, running = connection.execute(_OUTSTANDING).one()
            except DBAPIError:
                queued = running = None
            self._record.samples.append(Sample(at, wanted, ready, queued, running))
