"""Slides from claim to close on a real Postgres and a real object store; only the networks are a constant."""

import io
import json
import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import Engine, text

from services.analysis.leases import claim
from services.batches.closing import close_batch
from services.batches.due import publish_due, sweep_database
from services.batches.requeue import NothingToRequeue, requeue
from services.database.session import transaction
from services.database.states import BatchState
from services.dispatch import BrokerUnavailable
from services.errors import TransientError
from services.inference.errors import InferenceUnavailable
from services.reporting.queries import slides_of_doubtful_scale
from services.settings import Settings
from services.storage import ObjectStore
from tests.integration.analysis.slides import SETTINGS, ConstantNetworks, Hints, drawn, encode, one, run, submit


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of a few hundred bytes that would decode to 60,000 × 60,000 px."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_a_good_slide_is_done_and_its_batch_closes_with_a_report(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    [first, second] = submit(engine, empty_bucket, {n: {"f1.png": encode(good[..., ::-1])} for n in ("a", "b")})
    assert run(engine, empty_bucket, first) is None
    assert close_batch(engine, empty_bucket, 1) is None, "a slide is still open"
    batch_id = run(engine, empty_bucket, second)
    assert batch_id == 1
    assert close_batch(engine, empty_bucket, batch_id) is BatchState.COMPLETE
    row = one(
        engine,
        "select state, cells_classified, (select count(*) from cell where analysis_id = a.id),"
        " (select sum(cells) from slide_class_count where analysis_id = a.id) from analysis a where id = :id",
        id=first,
    )
    assert row[0] == "done"
    assert row[1] == row[2] == row[3] > 0
    report = json.loads(empty_bucket.get("results/berlin/night-1/report.json", max_bytes=10**7))
    assert report["state"] == "complete"
    assert close_batch(engine, empty_bucket, batch_id) is None, "closed once"


def test_a_second_delivery_finds_the_slide_taken_or_done(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    [analysis] = submit(engine, empty_bucket, {"a": {"f.png": encode(good)}})
    again: list[int | None] = []
    run(engine, empty_bucket, analysis, ConstantNetworks(lambda: again.append(run(engine, empty_bucket, analysis))))
    assert again == [None]
    before = one(engine, "select count(*), max(xmin::text) from cell")
    assert run(engine, empty_bucket, analysis) is None
    assert one(engine, "select count(*), max(xmin::text) from cell") == before
    assert one(engine, "select attempts from analysis").attempts == 1


def test_who_lost_the_lease_writes_nothing(engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]) -> None:
    [analysis] = submit(engine, empty_bucket, {"a": {"f.png": encode(good)}})

    def taken_over() -> None:
        with transaction(engine) as session:
            session.execute(text("update analysis set lease_token = 'another'"))

    assert run(engine, empty_bucket, analysis, ConstantNetworks(taken_over)) is None
    assert one(engine, "select state, lease_token, (select count(*) from cell) from analysis") == (
        "running",
        "another",
        0,
    )


def test_an_outage_waits_uncounted_and_another_failure_ends_in_quarantine(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    [analysis] = submit(engine, empty_bucket, {"a": {"f.png": encode(good)}})

    def raising(error: Exception) -> ConstantNetworks:
        def fail() -> None:
            raise error

        return ConstantNetworks(fail)

    for _ in range(5):
        assert run(engine, empty_bucket, analysis, raising(InferenceUnavailable("down"))) is None
    assert one(engine, "select state, attempts, reason from analysis") == ("queued", 0, InferenceUnavailable.reason)
    assert run(engine, empty_bucket, analysis, raising(TransientError("hm"))) is None
    assert one(engine, "select state, attempts from analysis") == ("queued", 1)
    assert run(engine, empty_bucket, analysis, raising(MemoryError("out of memory"))) == 1
    row = one(engine, "select state, attempts, reason, detail from analysis")
    assert (row.state, row.attempts, row.reason) == ("quarantined", 2, "unexpected_MemoryError")
    assert "2 attempts" in row.detail


def test_the_sweep_takes_back_a_dead_workers_slide_and_gives_up_after_enough_deaths(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    [analysis] = submit(engine, empty_bucket, {"a": {"f.png": encode(good)}})
    hints = Hints()
    for _ in range(SETTINGS.max_attempts):
        assert claim(engine, 60) is not None  # and its worker dies here
        with transaction(engine) as session:
            session.execute(text("update analysis set lease_until = now() - interval '1 s'"))
        sweep_database(engine, hints, republish_s=60)
        hints.taken += 1
        assert one(engine, "select state, reason from analysis") == ("queued", "lease_expired")
    assert hints.sent == [("slide", analysis)] * SETTINGS.max_attempts
    assert run(engine, empty_bucket, analysis) == 1
    assert one(engine, "select state, reason from analysis") == ("quarantined", "too_many_attempts")


def test_there_are_as_many_messages_as_slides_that_may_be_started(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    ids = submit(engine, empty_bucket, {n: {"f.png": encode(good)} for n in ("a", "b", "c")})
    hints = Hints()
    hints.down = True
    with pytest.raises(BrokerUnavailable):
        publish_due(engine, hints)
    hints.down = False
    assert publish_due(engine, hints) == 3
    assert publish_due(engine, hints) == 0
    assert sorted(hints.sent) == [("slide", n) for n in ids]
    hints.taken = 3  # by workers that die with two of them, or by a Redis that loses them
    assert claim(engine, 60) is not None
    assert publish_due(engine, hints) == 2
    hints.taken = 5
    with transaction(engine) as session:
        session.execute(
            text("update analysis set publish_at = now() + interval '1 min' where id = :id"), {"id": ids[1]}
        )
    assert publish_due(engine, hints) == 1, "one is not tried again yet"


def test_a_closing_whose_message_was_lost_is_published_again(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    [analysis] = submit(engine, empty_bucket, {"a": {"f.png": encode(good)}})
    assert run(engine, empty_bucket, analysis) == 1  # and the message to close is lost
    hints = Hints()
    sweep_database(engine, hints, republish_s=60)
    assert hints.sent == [], "not yet overdue"
    with transaction(engine) as session:
        session.execute(text("update batch set close_at = now()"))
    sweep_database(engine, hints, republish_s=60)
    assert hints.sent == [("close", 1)]


def test_two_slides_that_end_at_once_close_the_batch_once(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    ids = submit(engine, empty_bucket, {f"s{n}": {"f.png": encode(good)} for n in range(4)})
    together = threading.Barrier(len(ids))
    closes: list[int | None] = []

    def work(analysis: int) -> None:
        closes.append(run(engine, empty_bucket, analysis, ConstantNetworks(lambda: together.wait(30) and None)))

    threads = [threading.Thread(target=work, args=(n,)) for n in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(closes, key=str) == [1, None, None, None]


BAD_FIELDS: dict[str, tuple[Callable[[NDArray[np.uint8]], bytes], str]] = {
    "zero bytes": (lambda _: b"", "field_empty"),
    "truncated": (lambda good: encode(good, ".jpg")[:20_000], "field_truncated"),
    "text named .jpg": (lambda _: b"Dear lab, the camera is broken.\n" * 30, "field_not_an_image"),
    "bomb": (lambda _: bomb(), "field_too_many_pixels"),
    "CMYK": (lambda good: saved(Image.fromarray(good).convert("CMYK"), "JPEG"), "field_cmyk"),
    "alpha": (
        lambda good: saved(Image.fromarray(np.dstack([good, np.full(good.shape[:2], 9, np.uint8)])), "PNG"),
        "field_transparent",
    ),
    "animated": (
        lambda good: saved(Image.fromarray(good), "PNG", save_all=True, append_images=[Image.fromarray(255 - good)]),
        "field_animated",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_FIELDS)
def test_a_broken_field_quarantines_its_slide_and_the_rest_goes_on(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8], what: str
) -> None:
    make, reason = BAD_FIELDS[what]
    fine = encode(good[..., ::-1])
    bad, other = submit(engine, empty_bucket, {"bad": {"a.png": fine, "b.jpg": make(good)}, "other": {"a.png": fine}})
    run(engine, empty_bucket, bad)
    batch_id = run(engine, empty_bucket, other)
    assert batch_id is not None
    assert close_batch(engine, empty_bucket, batch_id) is BatchState.COMPLETE_WITH_ERRORS
    row = one(engine, "select state, reason, detail, cells_classified from analysis where id = :id", id=bad)
    assert (row.state, row.reason, row.cells_classified) == ("quarantined", reason, 0)
    assert "b.jpg" in row.detail
    assert one(engine, "select reason from field_result join field on field.id = field_id where key = 'bad/b.jpg'") == (
        reason,
    )
    assert one(engine, "select state from analysis where id = :id", id=other) == ("done",)


FINDINGS: dict[str, tuple[Callable[[NDArray[np.uint8]], bytes], str]] = {
    "black": (lambda good: encode(np.zeros_like(good)), "field_black"),
    "white": (lambda good: encode(np.full_like(good, 255)), "field_white"),
    "out of focus": (lambda good: encode(cv2.GaussianBlur(good[..., ::-1], (0, 0), 25)), "field_out_of_focus"),
    "no cells": (lambda x: encode(np.random.default_rng(0).integers(211, 220, x.shape, np.uint8)), "field_no_cells"),
}  # fmt: skip


@pytest.mark.parametrize("what", FINDINGS)
def test_a_readable_field_without_use_is_set_aside_and_its_slide_goes_on(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8], what: str
) -> None:
    make, reason = FINDINGS[what]
    with_rest, alone = submit(
        engine, empty_bucket, {"a": {"x.png": make(good), "y.png": encode(good[..., ::-1])}, "b": {"x.png": make(good)}}
    )
    run(engine, empty_bucket, with_rest)
    run(engine, empty_bucket, alone)
    assert one(engine, "select state from analysis where id = :id", id=with_rest) == ("done",)
    assert one(engine, "select state, reason from analysis where id = :id", id=alone) == (
        "insufficient",
        "too_few_cells",
    )
    assert one(engine, "select reason from field_result join field on field.id = field_id where key = 'a/x.png'") == (
        reason,
    )


COPIES: dict[str, tuple[Callable[[NDArray[np.uint8]], bytes], str]] = {
    "the same bytes": (encode, "has the same bytes as field a/1.png"),
    "as TIFF": (lambda good: encode(good, ".tif"), "shows the same as field a/1.png"),
    "as JPEG": (lambda good: encode(good, ".jpg"), "shows the same as field a/1.png"),
    "upside down": (lambda good: encode(good[::-1, ::-1]), "shows the same as field a/1.png"),
    "a little smaller": (lambda good: encode(cv2.resize(good, None, fx=0.9, fy=0.9)), "shows the same as"),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_field_that_comes_twice_is_counted_once_and_the_first_is_named(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8], how: str
) -> None:
    make, says = COPIES[how]
    twice, once = submit(
        engine, empty_bucket, {"a": {"1.png": encode(good), "2.png": make(good)}, "b": {"1.png": encode(good)}}
    )
    run(engine, empty_bucket, twice)
    run(engine, empty_bucket, once)
    cells = "select cells_classified from analysis where id = :id"
    assert one(engine, cells, id=twice) == one(engine, cells, id=once)
    second = one(engine, "select r.reason, r.detail, r.cells from field_result r join field f on f.id = r.field_id"
                 " where f.key = 'a/2.png'")  # fmt: skip
    assert (second.reason, second.cells) == ("field_duplicate", 0)
    assert says in second.detail
    assert "lab berlin, batch night-1, slide a: field a/2.png" in second.detail


def test_a_field_of_another_objective_is_taken_out_with_its_cells(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    other = cv2.resize(drawn(4), None, fx=1.6, fy=1.6, interpolation=cv2.INTER_CUBIC)
    fields = {"1.png": encode(other), "2.png": encode(good)}
    mixed, alone = submit(engine, empty_bucket, {"a": fields, "b": {"2.png": encode(good)}})
    run(engine, empty_bucket, mixed)
    run(engine, empty_bucket, alone)
    of_slide = (
        "select a.cells_classified, a.cells_on_border, a.objects_rejected, (select sum(cells) from slide_class_count"
        " where analysis_id = a.id), (select array_agg(number order by number) from cell where analysis_id = a.id)"
        " from analysis a where id = :id"
    )
    assert one(engine, of_slide, id=mixed) == one(engine, of_slide, id=alone)
    out = one(engine, "select r.* from field_result r join field f on f.id = r.field_id where f.key = 'a/1.png'")
    assert (out.reason, out.cells, out.on_border, out.rejected) == ("field_um_per_px_not_of_slide", 0, 0, [])
    assert "field a/1.png: at 0.1 µm a pixel, its heads are" in out.detail
    assert one(engine, "select count(*) from cell where field_id = :id", id=out.field_id) == (0,)


READABLE: dict[str, Callable[[NDArray[np.uint8]], tuple[str, bytes]]] = {
    "palette": lambda good: ("x.png", saved(Image.fromarray(good).convert("P", palette=Image.Palette.ADAPTIVE), "PNG")),
    "depth_16_bit": lambda good: ("x.tif", encode(good[..., ::-1].astype(np.uint16) * 257, ".tif")),
    "content_not_as_named": lambda good: ("x.bmp", encode(good[..., ::-1], ".png")),
}  # fmt: skip


@pytest.mark.parametrize("note", READABLE)
def test_an_odd_but_readable_field_is_used_and_noted(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8], note: str
) -> None:
    name, data = READABLE[note](good)
    [analysis] = submit(engine, empty_bucket, {"a": {name: data}})
    run(engine, empty_bucket, analysis)
    row = one(
        engine, "select state, cells_classified, quality from analysis join field_result on analysis_id = analysis.id"
    )
    assert row.state == "done"
    assert row.cells_classified >= 4
    assert note in row.quality["notes"]


def test_a_doubtful_scale_is_told_with_each_field_and_for_the_slide(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    second, third = drawn(4), drawn(5)
    small = np.asarray(cv2.resize(third, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)).astype(np.uint8)
    fields = {"x.png": encode(good[..., ::-1]), "y.png": saved(Image.fromarray(second), "PNG", dpi=(127_000, 127_000))}
    one_scale, two_scales = submit(
        engine, empty_bucket, {"a": fields, "b": {**fields, "z.png": encode(small[..., ::-1])}}
    )
    batch_key = run(engine, empty_bucket, one_scale) or run(engine, empty_bucket, two_scales)
    with transaction(engine) as session:
        flags = session.execute(text("select field, flags from reporting.quality_by_field order by field")).all()
        assert slides_of_doubtful_scale(session, batch_key or 0) == ["a", "b"]
    scale = {field: [flag for flag in raised if "um_per_px" in flag] for field, raised in flags}
    assert scale == {
        **{"a/x.png": [], "a/y.png": ["um_per_px_not_of_file"], "b/x.png": [], "b/y.png": ["um_per_px_not_of_file"]},
        "b/z.png": ["um_per_px_not_of_slide"],
    }


def test_three_thousand_given_cells_in_one_field(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    boxes = [{"box": [x, y, x + 20, y + 16]} for y in range(0, 1000, 17) for x in range(0, 1250, 24)][:3000]
    [analysis] = submit(engine, empty_bucket, {"a": {"f.png": encode(good)}}, cells=boxes)
    run(engine, empty_bucket, analysis)
    assert one(engine, "select state, cells_classified from analysis") == ("done", 3000)
    assert one(engine, "select count(*), max(number) from cell") == (3000, 3000)


@pytest.mark.parametrize(("cells", "state"), [(199, "insufficient"), (200, "done")])
def test_a_slide_of_fewer_than_200_cells_is_insufficient_unless_set_otherwise(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8], cells: int, state: str
) -> None:
    boxes = [{"box": [x, y, x + 20, y + 16]} for y in range(0, 1000, 50) for x in range(0, 1250, 50)][:cells]
    [analysis] = submit(engine, empty_bucket, {"a": {"f.png": encode(good)}}, cells=boxes)
    run(engine, empty_bucket, analysis, settings=Settings())
    assert one(engine, "select state, cells_classified from analysis") == (state, cells)


@pytest.mark.parametrize(
    ("minimum", "state", "counted"), [(None, "done", 200), (0.0, "done", 200), (0.8, "insufficient", 150)]
)
def test_cells_cut_by_the_border_are_kept_and_not_counted_where_the_release_says_so(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8], minimum: float | None, state: str, counted: int
) -> None:
    """A crop has 240 × 240 pixels: of 50 heads at the left border, 132 × 240 lie in the field."""
    at_the_border = [{"box": [2, y, 22, y + 16]} for y in range(200, 800, 12)]
    in_the_middle = [{"box": [x, y, x + 20, y + 16]} for x in range(200, 950, 50) for y in range(200, 700, 50)]
    [analysis] = submit(
        *(engine, empty_bucket, {"a": {"f.png": encode(good)}}),
        cells=at_the_border + in_the_middle,
        release={} if minimum is None else {"minimum_crop_inside_share": minimum},
    )
    run(engine, empty_bucket, analysis, settings=Settings())
    row = one(
        engine,
        "select state, cells, cells_not_counted, not_counted_by_reason, normal_cells, detail"
        " from reporting.slide_result",
    )
    left = 200 - counted
    assert row[:5] == (state, counted, left, {"cut_by_border": left} if left else {}, counted)
    if left:
        assert "150 cells in 1 fields, at least 200 required; not counted: 50 cut by border" in row.detail
    kept = one(
        engine,
        "select count(*), count(not_counted), round(min(crop_inside_share)::numeric, 4), max(crop_inside_share)"
        " from reporting.cell",
    )
    assert (kept[0], kept[1], float(kept[2]), kept[3]) == (200, left, 0.55, 1.0)
    assert one(engine, "select cells from reporting.confidence_by_slide") == (counted,)
    assert one(engine, "select sum(cells), min(cells_total) from reporting.class_distribution") == (counted, counted)


def test_a_mended_slide_goes_round_again_and_the_batch_ends_complete(
    engine: Engine, empty_bucket: ObjectStore, good: NDArray[np.uint8]
) -> None:
    data = encode(good[..., ::-1])
    [analysis] = submit(engine, empty_bucket, {"a": {"f.png": data}})
    empty_bucket.delete("incoming/berlin/night-1/a/f.png")
    assert run(engine, empty_bucket, analysis) == 1
    assert one(engine, "select reason from analysis") == ("field_missing",)
    close_batch(engine, empty_bucket, 1)
    empty_bucket.put("incoming/berlin/night-1/a/f.png", data, "image/png")
    with pytest.raises(NothingToRequeue, match="typo"):
        requeue(engine, 1, ["a", "typo"], by="tester")
    assert requeue(engine, 1, by="tester") == ["a"]
    assert one(engine, "select state from batch") == ("analysing",)
    assert run(engine, empty_bucket, analysis) is None, "it has ended, and stays"
    [again] = one(engine, "select max(id) from analysis")
    assert run(engine, empty_bucket, again) == 1
    assert close_batch(engine, empty_bucket, 1) is BatchState.COMPLETE
    with pytest.raises(NothingToRequeue):
        requeue(engine, 1, by="tester")
