"""Traces of OpenTelemetry, one a batch, from upload to report; nothing without the extra `tracing` or an endpoint.

A batch's trace is found by its name: its id, and that of its first span, are made of the lab and the batch id. So
neither a message nor a row carries them, and whoever works at a batch, at any time, adds to the same trace.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from services.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import SpanContext

_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_provider: "TracerProvider | None" = None


class TracingMissing(ConfigurationError):
    """Traces are to be sent, and what sends them is not installed."""

    reason = "tracing_missing"


def wanted() -> bool:
    """Whether the environment names a collector.

    Raises:
        TracingMissing: it does, and the extra `tracing` is not installed.
    """
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return False
    try:
        import_module("opentelemetry.sdk.trace.export")
        import_module(_EXPORTER)
    except ModuleNotFoundError as error:
        raise TracingMissing(
            f"{' or '.join(ENDPOINTS)} is set, and {error.name} is not installed: pip install 'morphbatch[tracing]',"
            " or unset it"
        ) from error
    return True


def start_tracing() -> None:
    """Send this process's spans to the collector, if there is one. After a fork, not before.

    Raises:
        TracingMissing: the extra `tracing` is not installed.
    """
    if wanted():
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        send_to(BatchSpanProcessor(import_module(_EXPORTER).OTLPSpanExporter()))


def send_to(processor: "SpanProcessor") -> None:
    """Have spans from here on go to `processor`."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    global _provider
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "morphbatch")})
    _provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
    _provider.add_span_processor(processor)


def stop_tracing() -> None:
    """Send what has not been sent, and no more."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
        _provider = None


def begin_batch(lab: str, batch_id: str, since_ns: int, **about: str | int) -> None:
    """The first span of a batch that has been taken in: `intake`, from `since_ns` (of `time.time_ns`) until now."""
    if _provider is None:
        return
    from opentelemetry.context import Context

    first = _first_span(lab, batch_id)
    tracer = _provider.get_tracer(f"{__name__}.intake")  # no other step's: it names its spans itself
    tracer.id_generator = _Named(first)  # type: ignore[attr-defined]
    span = tracer.start_span("intake", Context(), start_time=since_ns, attributes={**_names(lab, batch_id), **about})
    span.end()


@contextmanager
def traced(step: str, lab: str, batch_id: str, **about: str | int) -> Iterator[None]:
    """A span of the batch's trace, within the step of it at hand, if any; it tells by which error it ended."""
    if _provider is None:
        yield
        return
    from opentelemetry.trace import NonRecordingSpan, get_current_span, set_span_in_context

    first, at_hand = _first_span(lab, batch_id), get_current_span()
    within = at_hand if at_hand.get_span_context().trace_id == first.trace_id else NonRecordingSpan(first)
    with _provider.get_tracer(__name__).start_as_current_span(
        step, set_span_in_context(within), attributes={**_names(lab, batch_id), **about}
    ):
        yield


def tell(**about: str | int) -> None:
    """Say more of the step at hand."""
    if _provider is not None:
        from opentelemetry.trace import get_current_span

        get_current_span().set_attributes(about)


def tell_stages(stages: Mapping[str, tuple[float, float]], seconds: Mapping[str, float]) -> None:
    """A span each for the stages of the step at hand: from the first begin to the last end (`time.perf_counter`).

    A stage of many fields has pauses in between: `seconds` says how long it was at work.
    """
    if _provider is None:
        return
    tracer = _provider.get_tracer(__name__)
    epoch_ns = time.time_ns() - time.perf_counter_ns()
    for stage, (begun, ended) in sorted(stages.items(), key=lambda item: item[1]):
        at = {"seconds": round(seconds[stage], 3)}
        span = tracer.start_span(stage, start_time=epoch_ns + int(begun * 1e9), attributes=at)
        span.end(epoch_ns + int(ended * 1e9))


def _names(lab: str, batch_id: str) -> dict[str, Any]:
    return {"lab": lab, "batch": batch_id}


def _first_span(lab: str, batch_id: str) -> "SpanContext":
    from opentelemetry.trace import SpanContext, TraceFlags

    digest = hashlib.sha256(f"{lab}/{batch_id}".encode()).digest()
    trace, span = int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])
    return SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


class _Named:
    """Gives a span the ids that the batch's name makes."""

    def __init__(self, first: "SpanContext") -> None:
        self._first = first

    def generate_span_id(self) -> int:
        return self._first.span_id

    def generate_trace_id(self) -> int:
        return self._first.trace_id

    def is_trace_id_random(self) -> bool:
        return False
