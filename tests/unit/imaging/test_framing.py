"""Whatever stands around a picture or is drawn into it, its heads are found: as many as without."""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
import pytest

from services.imaging.framing import specimen_of
from services.imaging.heads import find_heads
from services.imaging.quality import measure_quality
from services.imaging.types import RGB, RejectReason, UmPerPx
from tests.places import DATA
from tests.unit.imaging.drawn_heads import Drawn, draw

UM: Final = UmPerPx(0.09)
FIELDS = DATA / "stained_fields"
real_fields = pytest.mark.skipif(not FIELDS.is_dir(), reason=f"no real fields in {FIELDS} (MORPHBATCH_DATA)")
FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
HEADS: Final = [Drawn(15 + 9 * (k % 4), 12 + 9 * (k // 4), angle=40 * k, length=4.1 + 0.1 * (k % 4)) for k in range(11)]


def with_noise(pixels: RGB) -> RGB:
    return (pixels + np.random.default_rng(1).normal(0, 2, pixels.shape)).clip(0, 255).astype(np.uint8)


FIELD: Final = with_noise(draw(HEADS, UM, (58, 46)))


FINE_UM: Final = UmPerPx(0.045)
FINE: Final = with_noise(draw(HEADS, FINE_UM, (50, 41)))


def margin(level: int) -> Callable[[RGB], RGB]:
    return lambda x: np.asarray(
        cv2.copyMakeBorder(x, 30, 30, 40, 40, cv2.BORDER_CONSTANT, value=(level,) * 3), np.uint8
    )


def noisy_margin(x: RGB) -> RGB:
    wide = margin(128)(x)
    noise = np.random.default_rng(2).normal(0, 5, wide.shape)
    noise[30:-30, 40:-40] = 0
    return (wide + noise).clip(0, 255).astype(np.uint8)


def eyepiece(x: RGB) -> RGB:
    height, width = x.shape[:2]
    disc = cv2.circle(np.zeros((height, width), np.uint8), (width // 2, height // 2), height // 2 - 4, 255, -1)
    inside = cv2.GaussianBlur(disc, (0, 0), 3)[..., np.newaxis] / 255
    return (x * inside + 12 * (1 - inside)).astype(np.uint8)


def drawn_in(paint: Callable[[RGB], object]) -> Callable[[RGB], RGB]:
    def change(x: RGB) -> RGB:
        x = x.copy()
        paint(x)
        return x

    return change


def screenshot(x: RGB) -> RGB:
    height, width = x.shape[:2]
    page = np.full((height + 90, width + 120, 3), 240, np.uint8)
    page[:40] = (32, 90, 180)
    cv2.putText(page, "Capture - field 12", (10, 28), FONT, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
    page[60 : 60 + height, 60 : 60 + width] = x
    return page


def bar(y: RGB) -> None:
    height, width = y.shape[:2]
    cv2.rectangle(y, (width - 130, height - 30), (width - 20, height - 18), (0, 0, 0), -1)
    cv2.putText(y, "10 um", (width - 120, height - 36), FONT, 0.6, (0, 0, 0), 2, cv2.LINE_AA)


def plate(y: RGB) -> None:
    cv2.rectangle(y, (0, y.shape[0] - 45), (y.shape[1], y.shape[0]), (0, 0, 0), -1)
    cv2.putText(y, "100x 2024-03-08", (10, y.shape[0] - 12), FONT, 1.1, (255, 255, 255), 3)


COVERED: Final[dict[str, Callable[[RGB], RGB]]] = {
    "black margin": margin(0),
    "grey margin": margin(128),
    "white margin": margin(255),
    "eyepiece": eyepiece,
    "screenshot": screenshot,
    "legend": drawn_in(plate),
}
DRAWN_OVER: Final[dict[str, Callable[[RGB], RGB]]] = {
    "noisy margin": noisy_margin,
    "pen": drawn_in(lambda y: cv2.circle(y, (322, 256), 248, (20, 20, 160), 12, cv2.LINE_AA)),
    "measuring frame": drawn_in(lambda y: cv2.rectangle(y, (30, 20), (610, 490), (0, 0, 0), 3)),
}


@pytest.mark.parametrize("kind", [*COVERED, *DRAWN_OVER])
def test_eleven_heads_stay_eleven(kind: str) -> None:
    assert len(find_heads(FIELD, UM).heads) == len(HEADS)
    specimen = specimen_of({**COVERED, **DRAWN_OVER}[kind](FIELD), UM)
    assert len(find_heads(specimen.pixels, UM, specimen.covered).heads) == len(HEADS)
    assert measure_quality(specimen.pixels, UM).unusable is None
    assert specimen.framed == (kind in COVERED)


def test_an_ordinary_field_is_left_as_it_is() -> None:
    light = np.linspace(0.25, 1, FIELD.shape[1])[:, np.newaxis]
    shaded = with_noise((draw(HEADS, UM, (58, 46)) * light).astype(np.uint8))
    for pixels in (
        FIELD,
        shaded,
        np.zeros_like(FIELD),
        np.full_like(FIELD, 225),
        draw(HEADS, UM, (58, 46)),
        FIELD[:20, :20],
    ):
        specimen = specimen_of(pixels, UM)
        assert not specimen.framed
        assert specimen.pixels is pixels


def test_a_head_that_a_frame_cuts_is_at_the_border() -> None:
    covered = FIELD.copy()
    covered[:, round(HEADS[3].x / UM) :] = 0
    specimen = specimen_of(covered, UM)
    found = find_heads(specimen.pixels, UM, specimen.covered)
    assert len(find_heads(FIELD, UM).heads) > len(found.heads)
    assert found.on_border > 0


def dots(y: RGB) -> None:
    for x in range(80, 1000, 250):
        cv2.circle(y, (x, 850), 30, (60, 20, 150), -1, cv2.LINE_AA)


def stamp(y: RGB) -> None:
    cv2.putText(y, "08:52", (20, 860), FONT, 3, (200, 20, 20), 9, cv2.LINE_AA)


@pytest.mark.parametrize(("paint", "least"), [(bar, 0), (dots, 4), (stamp, 2)])
def test_what_is_drawn_into_a_picture_is_no_head(paint: Callable[[RGB], None], least: int) -> None:
    found = find_heads(drawn_in(paint)(FINE), FINE_UM)
    assert len(found.heads) == len(HEADS)
    assert sum(item.reason is RejectReason.MARK for item in found.rejected) >= least


@pytest.mark.parametrize(("paint", "least"), [(dots, 4), (stamp, 2)])
def test_what_is_drawn_into_a_coarse_picture_is_no_head(paint: Callable[[RGB], None], least: int) -> None:
    small = np.asarray(cv2.resize(drawn_in(paint)(FINE), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    found = find_heads(small, UM)
    assert len(found.heads) == len(HEADS)
    assert sum(item.reason is RejectReason.MARK for item in found.rejected) >= least


def test_heads_that_the_camera_clips_are_not_drawn() -> None:
    clipped = ((FIELD.astype(np.float32) - 110) * 1.8).clip(0, 255).astype(np.uint8)
    found = find_heads(clipped, UM)
    assert not any(item.reason is RejectReason.MARK for item in found.rejected)


@real_fields
def test_a_real_field_keeps_its_heads_in_a_frame() -> None:
    path = sorted(FIELDS.glob("*.jpg"))[21]
    field = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)).astype(np.uint8)
    scale = UmPerPx(0.045)
    heads = len(find_heads(field, scale).heads)
    assert heads == 11
    assert not specimen_of(field, scale).framed
    for kind in ("black margin", "grey margin", "white margin"):
        specimen = specimen_of(COVERED[kind](field), scale)
        assert len(find_heads(specimen.pixels, scale, specimen.covered).heads) == heads, kind


@real_fields
def test_a_head_near_the_dark_round_an_eyepiece_is_whole() -> None:
    disc = cv2.circle(np.zeros((1024, 1280), np.uint8), (640, 512), 500, 255, -1, cv2.LINE_AA)
    inside = cv2.GaussianBlur(disc, (0, 0), 2)[..., np.newaxis] / 255
    heads = 0
    for number in (20, 21, 4):  # 20 heads lie within, one of them at its rim
        field = np.asarray(cv2.imread(str(sorted(FIELDS.glob("*.jpg"))[number]), cv2.IMREAD_COLOR_RGB))
        specimen = specimen_of((field * inside + 12 * (1 - inside)).astype(np.uint8), UmPerPx(0.045))
        heads += len(find_heads(specimen.pixels, UmPerPx(0.045), specimen.covered).heads)
    assert heads >= 19
