"""The Celery application and its delivery contract.

A message carries ids and is only a hint; Postgres decides what is done (`services.analysis.leases`). So a message
may be lost (the sweep publishes it again) or come twice (the second finds the slide taken), and no result backend is
needed.
"""

import sys

from celery import Celery

from services.dispatch import ANALYSE_SLIDE, CONTROL, SLIDES
from services.errors import ConfigurationError
from services.settings import load_settings
from worker import heartbeat
from worker.schedule import beat_schedule

try:
    settings = load_settings()
except ConfigurationError as error:
    sys.exit(f"it does not start: {error}")  # one line, where Celery would show a traceback

app = Celery(
    "morphbatch",
    broker=settings.broker_url,
    include=["worker.tasks", "worker.lifecycle"],
    task_cls="worker.task:MeasuredTask",
)
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    task_queues={SLIDES: {}, CONTROL: {}},
    task_default_queue=CONTROL,
    task_routes={ANALYSE_SLIDE: {"queue": SLIDES}},
    # A message leaves Redis when its task has ended; one whose process was killed comes back.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_acks_on_failure_or_timeout=True,
    task_time_limit=settings.task_time_limit_s,
    # What waits stays in Redis, where every worker can take it, and not in the memory of a busy one.
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    worker_concurrency=settings.worker_concurrency,
    worker_soft_shutdown_timeout=settings.soft_shutdown_seconds,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_hijack_root_logger=True,
    worker_redirect_stdouts=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,  # Redis that refuses is as good as gone: it is asked again until it is back
    broker_transport="worker.broker:Transport",
    broker_transport_options={
        "visibility_timeout": settings.visibility_timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "socket_connect_timeout": 5,
    },
    beat_schedule=beat_schedule(settings),
    timezone="UTC",
)
if settings.heartbeat_file is not None:
    heartbeat.install(app, settings.heartbeat_file)
