"""Another release becomes the active one: the switch itself, and what has to follow it."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from services.batches.due import publish_now
from services.dispatch import BrokerUnavailable, Publisher
from services.releases.activation import follow_active_release


@dataclass(frozen=True, slots=True)
class Switched:
    """`before` was active until then (may be the same); `slides_moved` were queued and run under the new one now.

    `unpublished` is why their messages wait for the sweep, if they do.
    """

    before: str | None
    slides_moved: int
    restarted: bool
    unpublished: BrokerUnavailable | None


def switch_release(
    engine: Engine,
    publisher: Publisher,
    activate: Callable[[], str | None],
    restart: Callable[[], bool],
) -> Switched:
    """Make a release active and move the queued slides to it; a running one is left alone.

    `activate` makes it active, with its files where Triton reads them, and returns the id of the one before; `restart`
    has Triton serve it and returns whether it had to. They are steps of the place where Triton runs. Slides are
    published after both, so that they do not find the old release served.

    Raises:
        ConfigurationError: `activate` refused; nothing was changed.
    """
    before = activate()
    moved = follow_active_release(engine)
    restarted = restart()
    return Switched(before, moved, restarted, publish_now(engine, publisher))
