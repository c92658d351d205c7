"""What the stack consists of, in the order in which it is started."""

from pathlib import Path

from services.local.application import api, beat, control_worker, migrate_step, release_step, slide_worker
from services.local.broker import redis_service
from services.local.installation import Installation
from services.local.object_store import s3_service
from services.local.postgres import postgres_service
from services.local.service import Planned, Step
from services.local.settings import LocalSettings
from services.local.triton import triton_service
from services.settings import Settings


def make_plan(
    installation: Installation, settings: Settings, minio: Path | None, local: LocalSettings
) -> list[tuple[Planned | Step, ...]]:
    """Every service and step, each after those it needs; those of one tuple are started together."""
    return [
        (
            Planned("postgres", lambda: postgres_service(installation)),
            Planned("redis", lambda: redis_service(installation)),
            Planned("s3", lambda: s3_service(installation, settings, minio)),
        ),
        (migrate_step(),),
        (release_step(),),
        (
            Planned("triton", lambda: triton_service(installation, local.triton_env, local.triton_form)),
            Planned("control", lambda: control_worker(installation, settings)),
            Planned("beat", lambda: beat(installation)),
            Planned("api", lambda: api(installation)),
            Planned("worker", lambda: slide_worker(installation, settings)),  # its preflight waits for Triton
        ),
    ]
