"""Slides uploaded, registered and analysed against real servers; only networks and broker are stand-ins."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from services.analysis.slide import analyse_slide
from services.database.session import transaction
from services.dispatch import BrokerUnavailable, Publisher
from services.inference.predictions import Predictions
from services.intake.registration import register_batch
from services.releases.served import ServedRelease
from services.settings import Settings
from services.smears.field import FieldSpec, draw_field
from services.storage import ObjectStore
from services.taxonomy import CLASS_NAMES

SETTINGS = Settings(
    max_attempts=2, retry_base_seconds=0.01, outage_delay_seconds=0.01, lease_seconds=60, minimum_cells=1
)
DOCUMENT = {"crop_px": 64, "crop_um": 24.0, "fusion": {"alpha": 0.5, "temperatures": {}}}


class ConstantNetworks:
    """Says `Normal` of every crop, after `before` was called."""

    batch = 16

    def __init__(self, before: Callable[[], None] = lambda: None, release_id: str = "r1") -> None:
        self._before = before
        self._release_id = release_id

    def served_release(self) -> ServedRelease:
        return ServedRelease(self._release_id, CLASS_NAMES, 64, 24.0, "openvino-fp32")

    def submit(self, crops: NDArray[np.uint8], release_id: str) -> Future[Predictions]:
        assert release_id == self._release_id
        self._before()
        assert crops.shape[1:] == (64, 64, 3)
        values = np.full((len(crops), len(CLASS_NAMES)), 0.01, np.float32)
        values[:, 7] = 0.83
        done: Future[Predictions] = Future()
        done.set_result(Predictions(values, values, values))
        return done


class Hints(Publisher):
    """Keeps the messages; the broker can be taken away."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.taken = 0  # of the slides' messages, by workers
        self.down = False

    def analyse_slide(self, analysis_id: int) -> None:
        self._note("slide", analysis_id)

    def slides_announced(self) -> int:
        if self.down:
            raise BrokerUnavailable("down")
        return sum(what == "slide" for what, _ in self.sent) - self.taken

    def close_batch(self, batch_id: int) -> None:
        self._note("close", batch_id)

    def _note(self, what: str, number: int) -> None:
        if self.down:
            raise BrokerUnavailable("down")
        self.sent.append((what, number))


def drawn(seed: int) -> NDArray[np.uint8]:
    """A field as `good`, of other cells: a turned one would be the same picture."""
    return draw_field(np.random.default_rng(seed), FieldSpec(um_per_px=0.1, cells=6, bacteria=0)).pixels


def encode(pixels: NDArray[Any], suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, pixels)[1].tobytes())


def submit(
    engine: Engine,
    store: ObjectStore,
    slides: dict[str, dict[str, bytes]],
    *,
    batch_id: str = "night-1",
    replicates: dict[str, int] | None = None,
    specimens: dict[str, str] | None = None,
    release: dict[str, Any] | None = None,
    **field: Any,
) -> list[int]:
    """Upload slides of fields by name as one batch and register it; the ids of the analyses.

    Of one specimen, where `specimens` names no other for a slide.

    `release` is what its document says beside the usual.
    """
    with transaction(engine) as session:
        document = json.dumps(DOCUMENT | (release or {}))
        session.execute(text("update model_release set document = cast(:d as jsonb)"), {"d": document})
    manifest = {
        "schema": "morphbatch.manifest/1", "lab": "berlin", "batch_id": batch_id,
        "slides": [
            {
                "slide_id": slide, "specimen": (specimens or {}).get(slide, "S-1"),
                "replicate": (replicates or {}).get(slide, 1),
                "stain": "diff-quik", "um_per_px": 0.1,
                "fields": [
                    {"key": f"{slide}/{name}", "sha256": hashlib.sha256(data).hexdigest(), **field}
                    for name, data in fields.items()
                ],
            }
            for slide, fields in slides.items()
        ],
    }  # fmt: skip
    for slide, fields in slides.items():
        for name, data in fields.items():
            store.put(f"incoming/berlin/{batch_id}/{slide}/{name}", data, "image/jpeg")
    store.put(f"incoming/berlin/{batch_id}/manifest.json", json.dumps(manifest).encode(), "application/json")
    return list(register_batch(engine, store, "berlin", batch_id).analysis_ids)


def one(engine: Engine, query: str, **values: Any) -> Any:
    with transaction(engine) as session:
        return session.execute(text(query), values).one()


def run(
    engine: Engine, store: ObjectStore, analysis_id: int, networks: Any = None, settings: Settings = SETTINGS
) -> int | None:
    """The key of the batch to close, if the slide was its last."""
    return analyse_slide(engine, store, networks or ConstantNetworks(), settings, analysis_id).closing
