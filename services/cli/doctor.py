"""What `morphbatch doctor` looks at: every dependency, asked the way the service asks it."""

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import redis
import urllib3

from migrations.run import head_revision, require_head
from services.batches.progress import count_work
from services.batches.queries import batches_sent_twice, held_back, waiting_slides
from services.database.queries import (
    clock_ahead_s,
    connections_left,
    has_role,
    months_ahead,
    readable_views,
    server_version,
    try_to_write,
)
from services.database.session import Engine, make_engine, transaction
from services.database.states import SlideState
from services.deliveries.queries import deliveries_now
from services.dispatch import CONTROL, SLIDES, connect_publisher
from services.errors import ConfigurationError, MorphbatchError
from services.inference.known_answers import require_known_answers
from services.inference.networks import Networks
from services.intake.uploads import unusable_uploads
from services.local.control import is_running, read_state
from services.releases.activation import require_known_release
from services.releases.queries import active_release
from services.releases.registry import recorded_release
from services.settings import Settings
from services.storage import StoreRefused, connect_store

# Analyses carry times of this machine and of Postgres; a signature of S3 is refused at 15 minutes.
_MOST_SKEW_S: Final = 5.0
_LEAST_FREE_BYTES: Final = 2 * 2**30
_DAYS_BACK: Final = 30
_LONGEST_DELIVERY_S: Final = 3600.0
_START: Final = "`morphbatch up` starts what is missing; `morphbatch status` names the log of each service"
_MORE_CONNECTIONS: Final = "raise max_connections of Postgres: 5 for each slide analysed at once, 30 for the rest"
_PLACE_OF_STORE: Final = "ask whoever runs the object store"
_LEAST_CONNECTIONS: Final = 10
_INSTALL: Final = (
    "run `morphbatch release activate ID` (`morphbatch release list` names them): Triton is restarted with it"
)
_WRITES: Final = "its own log says why; what waits for it goes on by itself once it takes writes again"
_ANSWERS: Final = "`make setup` restores Triton's environment; then `morphbatch release install`, and restart Triton"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: whether it passed, what was found, and how to fix it."""

    check: str
    ok: bool
    found: str
    fix: str | None = None

    def as_record(self) -> dict[str, Any]:
        """As JSON values."""
        return {"check": self.check, "ok": self.ok, "found": self.found, "fix": self.fix}


class Unwell(ConfigurationError):
    """A check that failed, found without an exception of the service itself."""

    reason = "unwell"


def examine(settings: Settings, home: Path) -> list[Finding]:
    """Look at everything, in the order in which things depend on each other. Writes one probe object and removes it."""
    engine = make_engine(settings.database_url)
    networks = Networks(settings.triton_endpoint, batch=settings.inference_batch, in_flight=1, timeout_s=30)
    checks = (
        # what, how, which earlier checks it stands on, how to fix it
        ("stack", lambda: _stack(home), (), _START),
        ("database", lambda: _database(engine), (), f"check MORPHBATCH_DATABASE_URL; {_START}"),
        ("revision", lambda: _revision(engine), ("database",), "run `morphbatch migrate`"),
        ("database writes", lambda: _writes(engine), ("revision",), _WRITES),
        ("connections", lambda: _connections(engine), ("database",), _MORE_CONNECTIONS),
        ("waiting slides", lambda: _waiting(engine), ("revision",), "they go on by themselves once the cause is gone"),
        ("paused", lambda: _paused(engine), ("revision",), "run `morphbatch migrate`"),
        (
            "deliveries",
            lambda: _deliveries(engine),
            ("revision",),
            "`morphbatch deliveries` says what each target said",
        ),
        ("sent twice", lambda: _sent_twice(engine), ("revision",), "run `morphbatch migrate`"),
        ("reporting views", lambda: _views(engine), ("revision",), "run `morphbatch migrate`"),
        ("partitions", lambda: _partitions(engine), ("revision",), "beat and a control worker create them: start both"),
        ("object store", lambda: _store(settings), (), f"check MORPHBATCH_S3_* and the bucket's rights; {_START}"),
        ("versions of objects", lambda: _versions(settings), ("object store",), _PLACE_OF_STORE),
        ("uploads", lambda: _uploads(settings), ("object store",), "rename the folder, or remove its objects"),
        ("broker", lambda: _broker(settings), (), f"check MORPHBATCH_BROKER_URL; {_START}"),
        ("broker's memory", lambda: _broker_memory(settings), ("broker",), "set its maxmemory-policy to noeviction"),
        ("workers", lambda: _workers(engine, settings), ("broker", "revision"), _START),
        ("triton", lambda: _triton(networks, settings), (), f"check MORPHBATCH_TRITON_ENDPOINT; {_START}"),
        ("class order", lambda: _classes(networks), ("triton",), _INSTALL),
        ("release", lambda: _release(engine, networks), ("revision", "class order"), _INSTALL),
        ("answers", lambda: _answers(engine, networks, settings), ("release", "object store"), _ANSWERS),
        ("http service", lambda: _api(settings), (), _START),
        ("clock: database", lambda: _database_clock(engine), ("database",), "synchronise both machines' clocks by NTP"),
        (
            "clock: object store",
            lambda: _store_clock(settings),
            (),  # not on the store, which refuses everything where the clocks differ
            "synchronise both machines' clocks by NTP",
        ),
        ("disk: home", lambda: _disk(home), (), "free disk space, or move MORPHBATCH_HOME"),
        ("disk: temporary", lambda: _disk(Path(tempfile.gettempdir())), (), "free disk space, or set TMPDIR"),
    )
    findings: dict[str, Finding] = {}
    try:
        for check, ask, needs, fix in checks:
            broken = [need for need in needs if not findings[need].ok]
            findings[check] = (
                Finding(check, ok=False, found=f"skipped: depends on {', '.join(broken)}")
                if broken
                else _look(check, ask, fix)
            )
    finally:
        networks.close()
        engine.dispose()
    return list(findings.values())


def _look(check: str, ask: Callable[[], str], fix: str) -> Finding:
    try:
        return Finding(check, ok=True, found=ask())
    except (MorphbatchError, redis.RedisError, urllib3.exceptions.HTTPError, OSError) as error:
        found = str(error).strip().splitlines()[0]
        # A refusal of the object store says itself what to do about it.
        return Finding(check, ok=False, found=found, fix=None if isinstance(error, StoreRefused) else fix)


def _stack(home: Path) -> str:
    if not is_running(home):
        if (home / "stack.json").exists():
            raise Unwell(f"the embedded stack in {home} is down")
        return "no embedded stack here; the services run elsewhere"
    services = read_state(home)["services"]
    unwell = [f"{name} is {report['state']}" for name, report in services.items() if report["state"] != "ready"]
    if unwell:
        raise Unwell(f"{', '.join(unwell)}; logs in {home / 'logs'}")
    restarts = sum(report["restarts"] for report in services.values())
    return f"{len(services)} services run in {home}, {restarts} restarts"


def _database(engine: Engine) -> str:
    with transaction(engine) as session:
        return f"PostgreSQL {server_version(session)}"


def _revision(engine: Engine) -> str:
    require_head(engine)
    return head_revision()


def _writes(engine: Engine) -> str:
    with transaction(engine) as session:
        try_to_write(session)
    return "a row was written and taken back"


def _connections(engine: Engine) -> str:
    with transaction(engine) as session:
        left, most = connections_left(session)
    if left < _LEAST_CONNECTIONS:
        raise Unwell(f"only {left} of {most} connections are free")
    return f"{left} of {most} are free"


def _waiting(engine: Engine) -> str:
    with transaction(engine) as session:
        waiting = waiting_slides(session)
    if waiting:
        raise Unwell("; ".join(f"{row.slides} slides wait, {row.reason}: {row.detail}" for row in waiting))
    return "no slide waits to be tried again"


def _paused(engine: Engine) -> str:
    """A warning, no failure: a person has done it, and may have forgotten it."""
    with transaction(engine) as session:
        paused = held_back(session)
    if paused:
        return (
            f"WARNING: {'; '.join(map(str, paused[:5]))}; `morphbatch resume LAB [BATCH]` lets its slides start again"
        )
    return "no lab and no batch is paused"


def _deliveries(engine: Engine) -> str:
    with transaction(engine) as session:
        now = deliveries_now(session)
    if now.stopped or now.oldest_s > _LONGEST_DELIVERY_S:
        raise Unwell(
            f"{now.stopped} deliveries are stopped and {now.waiting} wait, the oldest for {now.oldest_s / 60:.0f} min"
        )
    return f"{now.waiting} wait to be sent, none is stopped"


def _sent_twice(engine: Engine) -> str:
    """A warning, no failure: the installation is well, and it may have been meant."""
    with transaction(engine) as session:
        twice = batches_sent_twice(session, _DAYS_BACK)
    if twice:
        named = (f"{row.lab}/{row.batch_id} has {row.fields} images of {row.first_batch_id}" for row in twice[:5])
        return (
            f"WARNING: {len(twice)} batches share images with another, which count twice: {'; '.join(named)};"
            " `morphbatch void BATCH --why …` takes one out of every count"
        )
    return f"no image of the last {_DAYS_BACK} days came in two batches"


def _views(engine: Engine) -> str:
    with transaction(engine) as session:
        views = readable_views(session)
        analysts = has_role(session, "morphbatch_analyst")
    if not views:
        raise Unwell("schema reporting has no views")
    if not analysts:
        raise Unwell("the analysts' role morphbatch_analyst is missing")
    return f"{len(views)} views, role morphbatch_analyst"


def _partitions(engine: Engine) -> str:
    with transaction(engine) as session:
        months = {f"{first_day:%Y-%m}": covered for first_day, covered in months_ahead(session, 2).items()}
    if missing := [month for month, covered in months.items() if not covered]:
        raise Unwell(f"table cell has no partition for {', '.join(missing)}")
    return f"for {' and '.join(months)}"


def _store(settings: Settings) -> str:
    connect_store(settings).check()
    return f"bucket {settings.s3_bucket} at {settings.s3_endpoint}: write, read and delete work"


def _versions(settings: Settings) -> str:
    """A warning, no failure: many keep backups instead."""
    try:
        kept = connect_store(settings).keeps_versions()
    except StoreRefused as error:
        return f"WARNING: it does not say whether it keeps them ({str(error).splitlines()[0]})"
    if kept:
        return f"bucket {settings.s3_bucket} keeps what is overwritten or deleted"
    return f"WARNING: bucket {settings.s3_bucket} keeps none; what a LIMS overwrites is gone unless there is a backup"


def _uploads(settings: Settings) -> str:
    if unusable := unusable_uploads(connect_store(settings)):
        raise Unwell(f"{len(unusable)} folders have names that cannot be used: {', '.join(unusable[:5])}")
    return "every folder of uploads has a name that can be used"


def _redis(settings: Settings) -> redis.Redis:
    return redis.Redis.from_url(settings.broker_url, socket_connect_timeout=3, socket_timeout=3)


def _broker(settings: Settings) -> str:
    with closing(_redis(settings)) as client:
        client.ping()
        version = client.info("server")["redis_version"]
        waiting = {queue: client.llen(queue) for queue in (SLIDES, CONTROL)}
    return f"Redis {version}; waiting: " + ", ".join(f"{count} in {queue}" for queue, count in waiting.items())


def _broker_memory(settings: Settings) -> str:
    with closing(_redis(settings)) as client:
        memory = client.info("memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise Unwell(f"when its memory is full it drops messages ({policy}) instead of refusing them")
    limit = memory.get("maxmemory") or 0
    used = memory["used_memory"]
    allowed = f"{limit / 2**20:.0f} MiB allowed" if limit else "no limit"
    return f"{used / 2**20:.0f} MiB used, {allowed}; no message is dropped"


def _workers(engine: Engine, settings: Settings) -> str:
    queues = connect_publisher(settings.broker_url).queues_in_work()
    taken = {queue for names in queues.values() for queue in names}
    idle = {SLIDES, CONTROL} - taken
    if idle == {SLIDES} and not _open_slides(engine):
        # Where a scaler decides how many there are.
        return f"{', '.join(sorted(queues))}; none for slides, and no slide waits"
    if idle:
        raise Unwell(f"no worker serves {' and '.join(sorted(idle))} (answering: {', '.join(queues) or 'none'})")
    return ", ".join(f"{node} ({', '.join(names)})" for node, names in sorted(queues.items()))


def _open_slides(engine: Engine) -> int:
    slides = count_work(engine)["slides"]
    return slides.get(SlideState.QUEUED, 0) + slides.get(SlideState.RUNNING, 0)


def _triton(networks: Networks, settings: Settings) -> str:
    if not networks.is_ready():
        raise Unwell(f"Triton at {settings.triton_endpoint} is down, or one of its models is not ready")
    return f"all models are ready at {settings.triton_endpoint}"


def _release(engine: Engine, networks: Networks) -> str:
    with transaction(engine) as session:
        active = active_release(session)
    if active is None:
        raise Unwell("no release is active")
    served = networks.served_release()
    require_known_release(engine, served)
    if served.release_id != active.release_id:
        raise Unwell(f"Triton serves {served.release_id}, the active release is {active.release_id}")
    return f"{active.release_id} ({active.kind}) is active and served as {served.form}"


def _answers(engine: Engine, networks: Networks, settings: Settings) -> str:
    served = networks.served_release()
    release = recorded_release(engine, served.release_id)
    return require_known_answers(networks, release, served.form, connect_store(settings))


def _classes(networks: Networks) -> str:
    return f"Triton's {len(networks.served_release().classes)} classes are those of this version, in its order"


def _api(settings: Settings) -> str:
    url = f"http://{settings.api_host}:{settings.api_port}/health/live"
    answer = urllib3.request("GET", url, timeout=3.0, retries=False)
    if answer.status != 200:
        raise Unwell(f"{url} answers {answer.status}")
    return f"{url} answers"


def _database_clock(engine: Engine) -> str:
    with transaction(engine) as session:
        return _skew(clock_ahead_s(session))


def _store_clock(settings: Settings) -> str:
    answer = urllib3.request("GET", settings.s3_endpoint, timeout=3.0, retries=False)
    stamp = answer.headers.get("Date")
    if stamp is None:
        return "the object store sends no Date header"
    # The header has whole seconds, cut off.
    return _skew(parsedate_to_datetime(stamp).timestamp() + 0.5 - time.time())


def _skew(seconds: float) -> str:
    if abs(seconds) > _MOST_SKEW_S:
        raise Unwell(f"its clock is {seconds:+.1f} s off this machine's")
    return f"within {max(abs(seconds), 0.1):.1f} s of this machine's"


def _disk(folder: Path) -> str:
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE_BYTES:
        raise Unwell(
            f"{free / 2**30:.1f} GiB free in {folder}; at least {_LEAST_FREE_BYTES / 2**30:.0f} GiB are required"
        )
    return f"{free / 2**30:.1f} GiB free in {folder}"
