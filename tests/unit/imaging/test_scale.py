"""A wrong `um_per_px` is doubted: by what the file says, by the other fields of the slide, and by the heads."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from services.imaging.heads import find_heads
from services.imaging.quality import measure_quality
from services.imaging.scale import (
    FieldScale,
    differs_from_file,
    heads_at_another_scale,
    lengths_um,
    misfits_um,
    of_another_magnification,
    scale_flags,
)
from services.imaging.types import QualityFlag, SetAside, UmPerPx
from tests.places import DATA
from tests.unit.imaging.drawn_heads import Drawn, draw
from tests.unit.imaging.field_files import FIELD, decode, saved, tiff

UM = 0.09
HEADS = [Drawn(6 + 9 * (k % 5), 6 + 9 * (k // 5), angle=37 * k, length=4.2 + 0.1 * (k % 3)) for k in range(15)]
FIELDS = DATA / "stained_fields"
real_fields = pytest.mark.skipif(not FIELDS.is_dir(), reason=f"no real fields in {FIELDS} (MORPHBATCH_DATA)")
OME = "<OME><Image><Pixels SizeX='112' PhysicalSizeX='{}' PhysicalSizeY='{}' {}/></Image></OME>"
SQUARE = {"resolutionunit": 1, "description": "ImageJ=1.53\nunit=micron\n"}

STATED = {
    "png": (saved(FIELD, "PNG", dpi=(254_000, 254_000)), 0.1),
    "jpeg": (saved(FIELD, "JPEG", dpi=(50_800, 50_800)), 0.5),
    "bmp": (saved(FIELD, "BMP", dpi=(254_000, 254_000)), 0.1),
    "tiff in inches": (saved(FIELD, "TIFF", dpi=(254_000, 254_000)), 0.1),
    "tiff in cm": (tiff(FIELD, resolution=(200_000, 200_000), resolutionunit=3), 0.05),
    "imagej": (tiff(FIELD, resolution=(15.5, 15.5), **SQUARE), 1 / 15.5),
    "ome": (tiff(FIELD, description=OME.format(0.065, 0.065, "")), 0.065),
    "ome in nm": (tiff(FIELD, description=OME.format(65, 65, "PhysicalSizeXUnit='nm' PhysicalSizeYUnit='nm'")), 0.065),
}
SAY_NOTHING = {
    **{
        f"{kind} {dpi} dpi": saved(FIELD, kind, dpi=(dpi, dpi)) for kind in ("PNG", "JPEG", "TIFF") for dpi in (72, 300)
    },
    "png": saved(FIELD, "PNG"),
    "bmp": saved(FIELD, "BMP"),
    "tiff of 1 pixel a unit": tiff(FIELD, resolution=(1, 1), resolutionunit=1),
    "imagej in pixels": tiff(FIELD, resolution=(1, 1), resolutionunit=1, description="ImageJ=1.53\nunit=pixel\n"),
    "ome not calibrated": tiff(FIELD, description=OME.format(1.0, 1.0, "")),
    "ome in pixels": tiff(FIELD, description=OME.format(0.5, 0.5, "PhysicalSizeXUnit='pixel'")),
    "not square": tiff(FIELD, description=OME.format(0.065, 0.13, "")),
}


@pytest.mark.parametrize("name", STATED)
def test_the_scale_that_a_file_states_is_read(name: str) -> None:
    data, um_per_px = STATED[name]
    assert decode(data).stated_um_per_px == pytest.approx(um_per_px, rel=1e-3)


@pytest.mark.parametrize("name", SAY_NOTHING)
def test_a_printers_density_or_none_says_nothing(name: str) -> None:
    assert decode(SAY_NOTHING[name]).stated_um_per_px is None


def test_a_file_may_differ_by_a_tenth() -> None:
    assert not differs_from_file(UmPerPx(0.1), None)
    assert not differs_from_file(UmPerPx(0.1), 0.108)
    assert differs_from_file(UmPerPx(0.1), 0.112)
    assert differs_from_file(UmPerPx(0.1), 0.01)


def field(lengths: list[float], size: tuple[int, int] = (1280, 1024)) -> FieldScale:
    return FieldScale(*size, tuple(lengths))


def test_fields_of_another_size_and_of_another_magnification_are_told() -> None:
    usual, other = field([3.8, 4.0, 4.1, 4.2, 4.4]), field([2.4, 2.5, 2.6, 2.7, 2.8])
    turned, small = field([4.0], (1024, 1280)), field([4.0], (640, 512))
    assert scale_flags([usual, usual, turned, FieldScale(1280, 1024)]) == [()] * 4
    assert scale_flags([usual, usual, small])[2] == (QualityFlag.SCALE_NOT_OF_SLIDE,)
    flags = scale_flags([usual, other, usual, other, usual])
    assert [QualityFlag.SCALE_NOT_OF_SLIDE in of_field for of_field in flags] == [False, True, False, True, False]
    assert scale_flags([]) == []


def told(um_per_px: float, fields: list[FieldScale]) -> list[int]:
    return list(of_another_magnification(fields, UmPerPx(um_per_px)))


def at_scale(true_um: float, claimed: float, heads: int = 15) -> FieldScale:
    """A drawn field whose pixels are `true_um` wide, judged as if they were `claimed` wide."""
    pixels, um = draw(HEADS[:heads], true_um, (48, 30)), UmPerPx(claimed)
    found = find_heads(pixels, um)
    return FieldScale(pixels.shape[1], pixels.shape[0], lengths_um(found, um), misfits_um(pixels, um, found))


@pytest.mark.parametrize("factor", [0.5, 0.63, 1.6, 2.0])
def test_fields_of_another_objective_are_told_whichever_are_more(factor: float) -> None:
    here, other = at_scale(UM, UM), at_scale(UM / factor, UM)
    assert here.fits
    assert not here.misfits_um
    assert not other.fits
    if other.lengths_um:  # else it has no cells, and is set aside as such
        assert told(UM, [here, other, here]) == [1]
        assert told(UM, [other, here, other]) == [0, 2]
    assert told(UM, [other, other]) == [], "no field says which scale is right"
    assert told(UM, [here, here]) == []


def test_a_field_of_few_or_unusual_heads_is_not_told() -> None:
    here = field([3.8, 4.0, 4.1, 4.2, 4.4] * 4)
    assert told(UM, [here, field([2.4, 2.5, 2.6])]) == []
    assert told(UM, [here, field([5.6, 5.8, 6.0, 6.2, 6.4, 6.6])]) == [], "at no other scale are they usual heads"
    assert told(UM, [here, FieldScale(640, 512)]) == [], "a part of the camera's picture may be all that is kept"
    assert told(UM, [here, replace(field([]), misfits_um=(2.8, 2.9, 3.0, 3.1))]) == [], "so much may be chance"
    assert told(UM, [here, replace(field([]), misfits_um=(2.3, 2.4, 2.5, 2.6))]) == [1]


def test_the_files_own_scale_tells_where_another_file_confirms_the_slides() -> None:
    here, other = replace(field([]), stated_um_per_px=UM), replace(field([4.0]), stated_um_per_px=UM / 0.63)
    assert told(UM, [here, other]) == [1]
    assert told(UM, [field([]), other]) == [], "nothing shows that this software writes the scale of each picture"
    heads = replace(field([3.8, 4.0, 4.1, 4.2]), stated_um_per_px=UM / 0.63)
    assert told(UM, [here, heads]) == [], "its heads say otherwise"


def lengths_at(um_per_px: float, claimed: float) -> tuple[float, ...]:
    return lengths_um(find_heads(draw(HEADS, um_per_px, (48, 30)), UmPerPx(claimed)), UmPerPx(claimed))


@pytest.mark.parametrize(("factor", "doubted"), [(1.0, False), (1.33, True), (0.75, True), (2.0, True), (0.6, True)])
def test_heads_tell_a_wrong_scale(factor: float, doubted: bool) -> None:
    judged = FieldScale(533, 333, lengths_at(UM, UM * factor))
    assert scale_flags([judged])[0] == ((QualityFlag.SCALE_DOUBTFUL,) if doubted else ())


def test_three_heads_tell_nothing() -> None:
    assert scale_flags([field([5.9, 6.0, 6.1])]) == [()]


@pytest.mark.parametrize("factor", [10.0, 4.0, 0.25, 0.1])
def test_a_slipped_point_is_no_blur_and_no_empty_field(factor: float) -> None:
    pixels = draw(HEADS, UM, (48, 30))
    quality, found = measure_quality(pixels, UmPerPx(UM * factor)), find_heads(pixels, UmPerPx(UM * factor))
    assert quality.unusable is SetAside.OUT_OF_FOCUS or not found.heads
    assert heads_at_another_scale(pixels, UmPerPx(UM * factor))


def test_blur_and_empty_glass_are_no_wrong_scale() -> None:
    pixels = draw(HEADS, UM, (48, 30))
    blurred = np.asarray(cv2.GaussianBlur(pixels, (0, 0), 1.2 / UM)).astype(np.uint8)
    assert not heads_at_another_scale(blurred, UmPerPx(UM))
    assert not heads_at_another_scale(draw([], UM, (48, 30)), UmPerPx(UM))
    assert not heads_at_another_scale(np.zeros((300, 300, 3), np.uint8), UmPerPx(UM))


@real_fields
def test_real_slides_are_doubted_at_a_wrong_scale_only() -> None:
    paths = sorted(FIELDS.glob("*.jpg"))[20:60:10]
    pixels = [np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)).astype(np.uint8) for path in paths]
    for factor in (0.75, 1.0, 1.33):
        scale = UmPerPx(0.045 * factor)
        flags = scale_flags([FieldScale(1280, 1024, lengths_um(find_heads(p, scale), scale)) for p in pixels])
        assert flags == [() if math.isclose(factor, 1) else (QualityFlag.SCALE_DOUBTFUL,)] * len(paths), factor
    assert heads_at_another_scale(pixels[0], UmPerPx(0.45))


@real_fields
def test_real_fields_of_another_objective_are_told_and_those_of_one_slide_are_not() -> None:
    fields = []
    for place, path in enumerate(sorted(FIELDS.glob("*.jpg"))[20:24]):
        whole = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)).astype(np.uint8)
        small = cv2.resize(whole, None, fx=0.63, fy=0.63, interpolation=cv2.INTER_AREA) if place > 1 else whole
        for pixels in (whole, np.asarray(small).astype(np.uint8)):
            found = find_heads(pixels, UmPerPx(0.045))
            misfits = misfits_um(pixels, UmPerPx(0.045), found)
            fields.append(FieldScale(1280, 1024, lengths_um(found, UmPerPx(0.045)), misfits))
    assert told(0.045, fields[::2]) == []
    assert told(0.045, fields[1::2]) == [2, 3]
