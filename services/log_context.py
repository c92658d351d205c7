"""What the log says of the work at hand: each record written meanwhile names its batch, slide, analysis, attempt."""

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from typing import Final

_BOUND: Final[ContextVar[Mapping[str, object]]] = ContextVar("bound", default={})  # noqa: B039 - never changed in place


def bind(**names: object) -> None:
    """Have every record from here on name these, until the context ends in which this was called (a task's own)."""
    _BOUND.set({**_BOUND.get(), **names})


def carried(work: Callable[[], None]) -> Callable[[], None]:
    """`work` for a thread of the same work: what is bound now is bound there, which a new thread does not do."""
    context = copy_context()
    return lambda: context.run(work)


class NamesWork(logging.Filter):
    """Gives each record the attribute `work`: ` [batch=… slide=…]`, or nothing where nothing is bound."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        bound = _BOUND.get()
        record.work = f" [{' '.join(f'{name}={value}' for name, value in bound.items())}]" if bound else ""
        return True
