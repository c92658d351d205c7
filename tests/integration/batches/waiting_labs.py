"""Labs with batches of slides that wait, and workers that take them: rows only, no image and no network."""

import heapq
import random
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

from services.analysis.leases import claim
from services.database.models import Analysis, Batch, Lab
from services.database.moves import move
from services.database.session import transaction
from services.database.states import SlideMove

RECEIVED = datetime(2026, 11, 23, 20, tzinfo=UTC)


def send(engine: Engine, lab: str, slides: int, batch: str = "night", *, minute: int = 0, urgent: bool = False) -> int:
    """A batch of `lab` with so many slides of one field, received `minute` minutes after the first; its key."""
    with transaction(engine) as session:
        of = session.query(Lab).filter_by(code=lab).one_or_none() or Lab(code=lab)
        session.add(of)
        session.flush()
        row = Batch(lab_id=of.id, batch_id=batch, state="analysing", manifest_sha256="0", manifest_etag="0")
        row.received_at = RECEIVED + timedelta(minutes=minute)
        row.received_on, row.urgent = RECEIVED.date(), urgent
        session.add(row)
        session.flush()
        for statement in (
            "insert into slide (batch_id, position, slide_code, specimen, replicate, stain, um_per_px)"
            " select :batch, n, n::text, 'S-' || n, 1, 'shorr', 0.1 from generate_series(0, :slides - 1) n",
            "insert into field (slide_id, position, key, sha256)"
            " select id, 0, 'f.png', id::text from slide where batch_id = :batch",
            "insert into analysis (slide_id, release_id) select id, 'r1' from slide where batch_id = :batch"
            " order by position",
        ):
            session.execute(text(statement), {"batch": row.id, "slides": slides})
        return row.id


def take(engine: Engine) -> str | None:
    """What a worker takes next, as lab/batch/slide; `None`: nothing may be started."""
    lease = claim(engine, 60)
    return None if lease is None else name_of(engine, lease.analysis_id)


def name_of(engine: Engine, analysis_id: int) -> str:
    with transaction(engine) as session:
        return str(
            session.execute(
                text(
                    "select l.code || '/' || b.batch_code || '/' || s.slide_code from analysis a"
                    " join slide s on s.id = a.slide_id join batch b on b.id = s.batch_id join lab l on l.id = b.lab_id"
                    " where a.id = :id"
                ),
                {"id": analysis_id},
            ).scalar_one()
        )


class Workers:
    """So many workers, by a clock of their own: each takes a slide, ends it 30 to 90 seconds later, takes the next."""

    def __init__(self, engine: Engine, number: int) -> None:
        self._engine = engine
        self._number = number
        self._drawn = random.Random(7)  # noqa: S311 - a simulation
        self._running: list[tuple[float, float, int]] = []
        self.now = 0.0
        self.ended: dict[str, tuple[float, float]] = {}
        """The seconds at which each slide was started and ended, by lab/batch/slide."""

    def work(self, batch: str, slides: int) -> float:
        """Until so many slides of `batch`, as lab/batch, have ended, or nothing may be started; the seconds since 0."""
        while sum(name.startswith(f"{batch}/") for name in self.ended) < slides:
            while len(self._running) < self._number and (lease := claim(self._engine, 3600)) is not None:
                heapq.heappush(self._running, (self.now + self._drawn.uniform(30, 90), self.now, lease.analysis_id))
            if not self._running:
                break
            self.now, began, analysis_id = heapq.heappop(self._running)
            with transaction(self._engine) as session:
                move(session, SlideMove.FINISH, Analysis.id == analysis_id)
            self.ended[name_of(self._engine, analysis_id)] = (began, self.now)
        return self.now
