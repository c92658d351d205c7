"""One batch is one trace, from intake to report, whoever worked at it; and nothing is made where nobody listens."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import Engine

from services import tracing
from services.batches.closing import close_batch
from services.inference.errors import InferenceUnavailable
from services.storage import ObjectStore
from tests.integration.analysis.slides import ConstantNetworks, drawn, encode, run, submit


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Where this process's spans go."""
    kept = InMemorySpanExporter()
    tracing.send_to(SimpleSpanProcessor(kept))
    yield kept
    tracing.stop_tracing()


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def test_a_batch_is_one_trace_from_intake_to_report(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8], spans: InMemorySpanExporter
) -> None:
    first, second = submit(
        engine,
        empty_bucket,
        {"a": {"f1.png": encode(good)}, "b": {"f1.png": encode(drawn(3)), "f2.png": encode(drawn(4))}},
    )
    other = submit(engine, empty_bucket, {"a": {"f1.png": encode(drawn(5))}}, batch_id="night-2")
    run(engine, empty_bucket, first)
    closing = run(engine, empty_bucket, second)
    assert closing is not None
    close_batch(engine, empty_bucket, closing)

    intake, of_other = named(spans, "intake")
    assert intake.parent is None
    assert intake.attributes == {"lab": "berlin", "batch": "night-1", "slides": 2}
    assert of_other.context.trace_id != intake.context.trace_id
    traces = {span.context.trace_id for span in spans.get_finished_spans()}
    assert traces == {intake.context.trace_id, of_other.context.trace_id}
    ids = [span.context.span_id for span in spans.get_finished_spans()]
    assert len(ids) == len(set(ids))

    slides = named(spans, "slide")
    assert [span.attributes["slide"] for span in slides if span.attributes] == ["a", "b"]
    for slide in slides:
        assert slide.parent is not None
        assert slide.parent.span_id == intake.context.span_id
        assert slide.attributes is not None
        assert (slide.attributes["state"], slide.attributes["release"]) == ("done", "r1")
        stages = [
            span for span in spans.get_finished_spans() if span.parent and span.parent.span_id == slide.context.span_id
        ]
        assert {"fetch", "decode", "detect", "wait_for_networks", "write"} <= {span.name for span in stages}
        for stage in stages:
            assert slide.start_time - 1e6 < stage.start_time <= stage.end_time < slide.end_time + 1e6
    (close,), (report,) = named(spans, "close"), named(spans, "report")
    assert close.parent is not None
    assert close.parent.span_id == intake.context.span_id
    assert report.parent is not None
    assert report.parent.span_id == close.context.span_id
    assert len(other) == 1


def test_a_slide_that_is_given_back_says_why(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8], spans: InMemorySpanExporter
) -> None:
    [only] = submit(engine, empty_bucket, {"a": {"f1.png": encode(good)}})

    def down() -> None:
        raise InferenceUnavailable("Triton is down")

    run(engine, empty_bucket, only, ConstantNetworks(down))
    (slide,) = named(spans, "slide")
    assert not slide.status.is_ok
    assert any("Triton is down" in str(event.attributes) for event in slide.events)


def test_nothing_is_made_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)  # whoever imports it fails
    tracing.start_tracing()
    tracing.begin_batch("berlin", "night-1", 0, slides=1)
    with tracing.traced("slide", "berlin", "night-1"):
        tracing.tell(state="done")
        tracing.tell_stages({"fetch": (0.0, 1.0)}, {"fetch": 1.0})
    monkeypatch.setenv(tracing.ENDPOINTS[0], "http://127.0.0.1:4318")
    with pytest.raises(tracing.TracingMissing, match=r"morphbatch\[tracing\]"):
        tracing.start_tracing()
