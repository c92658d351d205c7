"""Field quality on drawn fields of known blur, light and stain, and on real ones."""

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from services.imaging.decoding.decode import decode_field
from services.imaging.quality import OUT_OF_FOCUS_UM, SOFT_FOCUS_UM, measure_quality
from services.imaging.types import RGB
from tests.places import DATA

UM_PER_PX = 0.045
FIELDS = DATA / "stained_fields"
real_fields = pytest.mark.skipif(not FIELDS.is_dir(), reason=f"no real fields in {FIELDS} (MORPHBATCH_DATA)")

BACKGROUND = 225.0


def drawn(
    um_per_px: float = 0.09, *, blur_um: float = 0.12, density: float = 1.0, heads: int = 8, noise: float = 1.5
) -> RGB:
    """A field of 58 × 46 µm: ellipses of 4.2 × 2.8 µm, a nucleus in each, at optical density `density`."""
    fine = 0.045
    size = 1280, 1024
    rng = np.random.default_rng(5)
    optical = np.zeros((size[1], size[0]), np.float32)
    for number in range(heads):
        middle = 120 + 280 * (number % 4) + int(rng.integers(0, 120)), 220 + 430 * (number // 4) + int(rng.integers(60))
        angle = float(rng.integers(0, 180))
        cv2.ellipse(optical, (middle, (4.2 / fine, 2.8 / fine), angle), 0.6 * density, -1)
        cv2.ellipse(optical, (middle, (2.2 / fine, 2.4 / fine), angle), density, -1)
    light = BACKGROUND * 10 ** -np.asarray(cv2.GaussianBlur(optical, (0, 0), blur_um / fine))
    scale = um_per_px / fine
    light = np.asarray(cv2.resize(light, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA))
    light = light + rng.normal(0, noise, light.shape)
    return as_rgb(np.dstack([light, light, light + 10]))


def as_rgb(light: NDArray[Any]) -> RGB:
    return np.clip(light, 0, 255).round().astype(np.uint8)


def blurred(pixels: RGB, sigma_um: float, um_per_px: float = UM_PER_PX) -> RGB:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma_um / um_per_px)).astype(np.uint8)


def test_a_good_field_has_its_figures_and_no_flag() -> None:
    quality = measure_quality(drawn(), 0.09)
    assert quality.flags == ()
    assert quality.unusable is None
    assert quality.background_pct == pytest.approx(100 * BACKGROUND / 255, abs=1)
    assert quality.exposure_pct == pytest.approx(quality.background_pct, abs=4)
    assert quality.clipped_pct < 0.1
    assert quality.unevenness_pct < 2
    assert quality.focus is not None
    assert quality.focus < 0.7


@pytest.mark.parametrize("sigma_um", [0.3, 0.4, 0.5, 0.6])
def test_focus_is_the_width_of_an_edge_in_um(sigma_um: float) -> None:
    """The edge of a large plate, blurred by a known σ: √(2π)·σ."""
    plate = np.full((800, 800, 3), 220, np.uint8)
    plate[300:500, 300:500] = 60
    quality = measure_quality(blurred(plate, sigma_um), UM_PER_PX)
    assert quality.focus == pytest.approx((2 * np.pi) ** 0.5 * sigma_um, rel=0.08)


@pytest.mark.parametrize("um_per_px", [0.045, 0.09, 0.15, 0.25])
def test_focus_means_the_same_at_any_magnification(um_per_px: float) -> None:
    verdicts = {s: measure_quality(drawn(um_per_px, blur_um=s), um_per_px) for s in (0.12, 0.5, 0.8, 1.5)}
    widths = [q.focus for q in verdicts.values()]
    assert widths == sorted(widths, key=lambda width: width or 0)
    assert [q.unusable for q in verdicts.values()] == [None, None, "field_out_of_focus", "field_out_of_focus"]
    assert "soft_focus" not in verdicts[0.12].flags
    assert "soft_focus" in verdicts[0.5].flags


def test_noise_does_not_make_a_blurred_field_sharp() -> None:
    for noise in (0.0, 4.0, 6.0):
        assert measure_quality(drawn(blur_um=1.5, noise=noise), 0.09).unusable == "field_out_of_focus"
        assert measure_quality(drawn(blur_um=0.12, noise=noise), 0.09).flags == ()


def test_black_and_white_fields() -> None:
    rng = np.random.default_rng(0)
    for level, unusable in ((0, "field_black"), (9, "field_black"), (252, "field_white"), (255, "field_white")):
        quality = measure_quality(as_rgb(level + rng.normal(0, 1, (512, 640, 3))), 0.09)
        assert quality.unusable == unusable, level
    assert measure_quality(np.zeros((512, 640, 3), np.uint8), 0.09).focus is None
    assert measure_quality(as_rgb(drawn() * 0.05), 0.09).unusable == "field_black"


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_an_empty_field_is_usable_and_says_so(noise: float) -> None:
    quality = measure_quality(drawn(heads=0, noise=noise), 0.09)
    assert quality.unusable is None
    assert quality.flags == ("no_stained_objects",)
    assert quality.focus is None
    assert quality.stain_od is None


def test_bacteria_and_tails_are_no_stained_objects() -> None:
    field = drawn(heads=0)
    for number in range(40):
        at = (37 * number % 600, 53 * number % 480)
        cv2.circle(field, at, 4, (60, 60, 160), -1)  # 0.8 µm
        cv2.line(field, at, (at[0] + 90, at[1] + 40), (60, 60, 160), 4)
    assert "no_stained_objects" in measure_quality(field, 0.09).flags


def test_one_head_is_enough_to_be_something() -> None:
    assert measure_quality(drawn(heads=1), 0.09).flags == ()


@pytest.mark.parametrize("density", [0.5, 0.8, 1.2])
def test_stain_is_measured_in_optical_density(density: float) -> None:
    for gain in (1.0, 0.6):  # less light is not more stain
        quality = measure_quality(as_rgb(drawn(density=density, blur_um=0.1, noise=0.5) * gain), 0.09)
        assert quality.stain_od == pytest.approx(density, rel=0.1)
    assert quality.unusable is None


def test_a_pale_stain_is_flagged() -> None:
    assert measure_quality(drawn(density=0.3), 0.09).flags == ("weak_stain",)


def test_a_stain_that_absorbs_red_counts_like_one_that_absorbs_green() -> None:
    field = drawn()
    swapped = field.copy()
    field[..., 0] = 215
    swapped[..., 1] = 215
    first, second = measure_quality(field, 0.09), measure_quality(swapped, 0.09)
    assert first.stain_od == pytest.approx(second.stain_od, rel=0.01)
    assert first.focus == pytest.approx(second.focus, rel=0.01)


def test_light_is_flagged() -> None:
    field = drawn()
    assert measure_quality(as_rgb(field * 0.45), 0.09).flags == ("dark",)
    assert measure_quality(as_rgb(field * 1.2), 0.09).flags == ("bright", "clipped")
    height, width = field.shape[:2]
    ramp = np.linspace(1, 0.6, width)[np.newaxis, :, np.newaxis] * np.ones((height, 1, 1))
    quality = measure_quality(as_rgb(field * ramp), 0.09)
    assert quality.flags == ("uneven",)
    assert quality.unevenness_pct == pytest.approx(100 * 0.9 * 0.4 / 0.9, abs=5)


def eyepiece(field: RGB) -> RGB:
    """Light only in a circle with a sharp rim, a third of the field or so."""
    height, width = field.shape[:2]
    y, x = np.mgrid[:height, :width]
    inside = np.clip((0.44 * height - np.hypot(x - width / 2, y - height / 2)) / 4, 0, 1)
    return as_rgb(field * inside[..., np.newaxis])


def test_the_rim_of_an_eyepiece_is_no_edge_of_a_cell() -> None:
    sharp = measure_quality(eyepiece(drawn()), 0.09)
    assert sharp.flags == ("uneven",)
    assert sharp.unusable is None
    assert sharp.background_pct > 80
    assert measure_quality(eyepiece(drawn(blur_um=1.5)), 0.09).unusable == "field_out_of_focus"


def test_a_small_picture_is_measured_too() -> None:
    quality = measure_quality(drawn()[100:180, 60:150], 0.09)
    assert 0 <= quality.exposure_pct <= 100
    assert measure_quality(np.full((1, 1, 3), 200, np.uint8), 0.09).unusable is None


def read(path: Path) -> RGB:
    return decode_field(path.read_bytes(), path.name, max_bytes=2**26, max_pixels=2**26).pixels


@real_fields
def test_every_real_field_is_usable_and_sharp() -> None:
    fields = sorted(FIELDS.glob("*.jpg"))
    assert len(fields) == len((FIELDS / "annotations.jsonl").read_text().splitlines())
    for path in fields:
        quality = measure_quality(read(path), UM_PER_PX)
        assert quality.unusable is None, (path.name, quality)
        assert quality.flags == (), (path.name, quality)


@real_fields
def test_spoilt_real_fields_are_found() -> None:
    lines = (FIELDS / "annotations.jsonl").read_text().splitlines()[::32]
    for name in (json.loads(line)["image"] for line in lines):
        field = read(FIELDS / name)
        for sigma, usable in ((0.1, True), (0.2, True), (1.0, False), (1.5, False)):
            quality = measure_quality(blurred(field, sigma), UM_PER_PX)
            assert (quality.unusable is None) == usable, (name, sigma, quality)
            assert quality.unusable in (None, "field_out_of_focus")
        assert "soft_focus" in measure_quality(blurred(field, 0.4), UM_PER_PX).flags
        assert "dark" in measure_quality(as_rgb(field * 0.3), UM_PER_PX).flags
        assert measure_quality(as_rgb(field * 0.05), UM_PER_PX).unusable == "field_black"
        assert "clipped" in measure_quality(as_rgb(field * 1.3), UM_PER_PX).flags


def test_the_limits_are_in_order() -> None:
    assert SOFT_FOCUS_UM < OUT_OF_FOCUS_UM


def test_a_field_is_measured_in_milliseconds() -> None:
    field = np.asarray(cv2.resize(drawn(), (1280, 1024))).astype(np.uint8)
    times = []
    for _ in range(15):
        began = time.process_time()
        measure_quality(field, UM_PER_PX)
        times.append(time.process_time() - began)
    assert min(times) < 0.015  # 4 ms on an idle core
