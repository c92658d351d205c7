"""The tasks: each knows Celery and calls one function of `services`, which does not."""

import logging

from services.analysis.slide import analyse_slide
from services.batches.closing import close_batch
from services.batches.due import Sweep, make_partitions, publish_due
from services.database.states import SlideMove
from services.deliveries.sending import send_due
from services.dispatch import (
    ANALYSE_SLIDE,
    CLOSE_BATCH,
    INTAKE_BATCH,
    MAKE_PARTITIONS,
    SEND_DELIVERIES,
    SWEEP_DATABASE,
    SWEEP_INCOMING,
    Publisher,
)
from services.errors import NOT_THE_WORKS_FAULT
from services.intake.registration import register_batch
from services.intake.uploads import sweep_incoming
from services.intake.validation import check_names
from services.log_context import bind
from services.tracing import traced
from worker.app import app, settings
from worker.lifecycle import connections
from worker.task import Ended

log = logging.getLogger(__name__)
publisher = Publisher(app)
sweep = Sweep(publisher, settings.republish_seconds, settings.lease_seconds)

# A hint whose task fails is not retried by Celery: the sweeps find the same work again in the database or the store.
hint = {"throws": NOT_THE_WORKS_FAULT, "ignore_result": True}


@app.task(name=ANALYSE_SLIDE, **hint)
def analyse(_: int) -> Ended:
    """Analyse the slide that comes next, whichever was announced; the one that ends last has its batch closed."""
    connected = connections()
    done = analyse_slide(connected.engine, connected.store, connected.networks, settings)
    if done.closing is not None:
        publisher.close_batch(done.closing)
    return Ended.RETRIED if done.step is SlideMove.GIVE_BACK else Ended.COMPLETE


@app.task(name=CLOSE_BATCH, **hint)
def close(batch_key: int) -> None:
    """Write the reports of a finished batch and close it."""
    bind(batch_key=batch_key)
    close_batch(connections().engine, connections().store, batch_key)


@app.task(name=INTAKE_BATCH, **hint)
def intake(lab: str, batch_id: str) -> None:
    """Register one uploaded batch and publish its slides."""
    check_names(lab, batch_id)  # before the log repeats them
    bind(batch=f"{lab}/{batch_id}")
    register_batch(connections().engine, connections().store, lab, batch_id)
    with traced("publish", lab, batch_id):
        publish_due(connections().engine, publisher)


@app.task(name=SWEEP_INCOMING, **hint)
def list_uploads() -> None:
    """Register every batch whose upload no event announced."""
    try:
        sweep_incoming(connections().engine, connections().store)
    finally:  # one batch that could not be registered fails this task, once the others are on their way
        publish_due(connections().engine, publisher)


@app.task(name=SWEEP_DATABASE, **hint)
def publish_what_is_due() -> None:
    """Publish slides and closings that are due."""
    sweep.run(connections().engine)


@app.task(name=SEND_DELIVERIES, **hint)
def deliver() -> None:
    """Send results to the labs' targets."""
    send_due(connections().engine, connections().store)


@app.task(name=MAKE_PARTITIONS, **hint)
def partitions() -> None:
    """Make the cells' partitions ahead of the months."""
    make_partitions(connections().engine)
