"""What the log says: each record names the work at hand, its batch, slide, analysis, attempt and release.

The records are those of `logging`; structlog keeps what is bound and writes JSON.
"""

import logging
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Final, Literal

from structlog import contextvars, processors, stdlib

LogFormat = Literal["text", "json"]

_TEXT: Final = "%(asctime)s %(levelname)s %(processName)s%(work)s: %(message)s"


def bind(**names: object) -> None:
    """Have every record from here on name these, until the context ends in which this was called (a task's own)."""
    contextvars.bind_contextvars(**names)


def carried(work: Callable[[], None]) -> Callable[[], None]:
    """`work` for a thread of the same work: what is bound now is bound there, which a new thread does not do."""
    context = copy_context()
    return lambda: context.run(work)


class NamesWork(logging.Filter):
    """Gives each record the attribute `work`: ` [batch=… slide=…]`, or nothing where nothing is bound."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        bound = sorted(contextvars.get_contextvars().items())
        record.work = f" [{' '.join(f'{name}={value}' for name, value in bound)}]" if bound else ""
        return True


def write_as(log_format: LogFormat, handlers: Iterable[logging.Handler]) -> None:
    """Have `handlers` write lines for people, or one JSON object per record; both name what is bound."""
    for handler in handlers:
        if log_format == "json":
            handler.setFormatter(_json_formatter())
        else:
            handler.addFilter(NamesWork())
            handler.setFormatter(logging.Formatter(_TEXT))


def _json_formatter() -> logging.Formatter:
    return stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            contextvars.merge_contextvars,
            stdlib.add_log_level,
            stdlib.add_logger_name,
            processors.TimeStamper(fmt="iso", utc=True),
            processors.CallsiteParameterAdder({processors.CallsiteParameter.PROCESS_NAME}),
        ],
        processors=[
            stdlib.ProcessorFormatter.remove_processors_meta,
            processors.format_exc_info,  # a traceback is one string, `exception`
            processors.EventRenamer("message"),
            processors.JSONRenderer(),
        ],
    )
