"""Crops hold what they promise: a fixed size in µm, the head's box in the middle, background beyond the border."""

import time

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from services.imaging.crops import crop_cells, crop_inside_shares, crop_of_cell_image
from services.imaging.types import RGB, Box

UM_PER_PX = 0.045
BACKGROUND = (226, 230, 235)


def empty_field(height: int = 300, width: int = 400) -> RGB:
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def with_spots(field: RGB, spots: list[tuple[float, float]], sigma: float) -> RGB:
    """Dark Gaussian spots at continuous positions x, y: pixel i covers i to i + 1."""
    y, x = np.mgrid[: field.shape[0], : field.shape[1]] + 0.5
    light = np.ones(field.shape[:2])
    for spot_x, spot_y in spots:
        light -= 0.8 * np.exp(-((x - spot_x) ** 2 + (y - spot_y) ** 2) / (2 * sigma**2))
    return (field * light[..., np.newaxis]).round().astype(np.uint8)


def centre_of_darkness(crop: NDArray[np.uint8]) -> tuple[float, float]:
    dark = np.clip(BACKGROUND[1] - 2 - crop[..., 1].astype(float), 0, None)
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]] + 0.5
    return float((dark * x).sum() / dark.sum()), float((dark * y).sum() / dark.sum())


SCALES = pytest.mark.parametrize(
    ("crop_um", "size_px"),
    [(16.0, 128), (16.0, 224), (12.0, 267), (9.0, 100), (5.0, 224), (3.0, 200)],
    ids=["shrink-2.8", "shrink-1.6", "same", "shrink-2", "enlarge-2", "enlarge-3"],
)


@SCALES
@pytest.mark.parametrize("box", [Box(180, 140, 220, 170), Box(181, 140, 220, 171), Box(150, 97, 167, 180)])
def test_the_middle_of_the_box_is_the_middle_of_the_crop(crop_um: float, size_px: int, box: Box) -> None:
    middle = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    field = with_spots(empty_field(), [middle], sigma=8)
    crop = crop_cells(field, [box], um_per_px=UM_PER_PX, crop_um=crop_um, size_px=size_px)[0]
    assert centre_of_darkness(crop) == pytest.approx((size_px / 2, size_px / 2), abs=0.1)


@SCALES
def test_a_length_in_the_crop_is_its_length_in_um(crop_um: float, size_px: int) -> None:
    x, y, apart = 200.25, 150.5, 0.5 * crop_um / UM_PER_PX
    field = with_spots(empty_field(), [(x - apart / 2, y), (x + apart / 2, y)], sigma=4)
    crop = crop_cells(field, [Box(200, 150, 201, 151)], um_per_px=UM_PER_PX, crop_um=crop_um, size_px=size_px)[0]
    left, _ = centre_of_darkness(crop[:, : size_px // 2])
    right, _ = centre_of_darkness(crop[:, size_px // 2 :])
    assert right + size_px // 2 - left == pytest.approx(size_px / 2, rel=0.01)


@pytest.mark.parametrize(("crop_um", "size_px"), [(16.0, 128), (16.0, 224), (18.0, 100), (27.0, 64)])
def test_a_pattern_finer_than_the_crop_becomes_grey_and_not_stripes(crop_um: float, size_px: int) -> None:
    field = empty_field(700, 700)
    field[::2] = 40
    crop = crop_cells(field, [Box(340, 340, 360, 360)], um_per_px=UM_PER_PX, crop_um=crop_um, size_px=size_px)[0]
    # The mean over the area of a crop's pixel leaves a quarter of it at 1.6, picking single pixels all of it.
    assert np.ptp(crop[..., 1].astype(int)) < 0.26 * (BACKGROUND[1] - 40)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_shrinking_by_a_whole_number_is_the_mean_of_the_pixels(factor: int) -> None:
    field = np.random.default_rng(0).integers(0, 255, (301, 403, 3)).astype(np.uint8)
    side, size_px = 60 * factor, 60
    x, y = 7 * factor, 2 * factor
    box = Box(x + side // 2 - 5, y + side // 2 - 9, x + side // 2 + 5, y + side // 2 + 9)
    crop = crop_cells(field, [box], um_per_px=0.1, crop_um=0.1 * side, size_px=size_px)[0]
    window = field[y : y + side, x : x + side]
    expected = np.asarray(cv2.resize(window, (size_px, size_px), interpolation=cv2.INTER_AREA)).astype(int)
    np.testing.assert_allclose(crop.astype(int), expected, atol=1)


def test_any_other_shrinking_is_close_to_the_mean_of_the_area() -> None:
    rough = np.random.default_rng(0).integers(0, 255, (700, 700, 3)).astype(np.uint8)
    field = np.asarray(cv2.GaussianBlur(rough, (0, 0), 3)).astype(np.uint8)  # finest detail of a microscope: 0.25 µm
    side, size_px = 356, 128
    crop = crop_cells(field, [Box(340, 340, 360, 360)], um_per_px=1.0, crop_um=side, size_px=size_px)[0]
    window = field[350 - side // 2 : 350 + side // 2, 350 - side // 2 : 350 + side // 2]
    expected = np.asarray(cv2.resize(window, (size_px, size_px), interpolation=cv2.INTER_AREA)).astype(int)
    difference = np.abs(crop.astype(int) - expected)
    assert difference.mean() < 0.1 * expected.std()


def test_beyond_the_border_lies_the_background_of_the_field() -> None:
    field = with_spots(empty_field(), [(40, 30)], sigma=9)
    field[100:, 250:] = 20  # a quarter of the field is dark
    size_px, crop_um = 128, 16.0
    crop = crop_cells(field, [Box(0, 0, 40, 30)], um_per_px=UM_PER_PX, crop_um=crop_um, size_px=size_px)[0]
    step = crop_um / UM_PER_PX / size_px
    outside_x, outside_y = int(size_px / 2 - 20 / step) - 2, int(size_px / 2 - 15 / step) - 2
    assert outside_x > 40
    assert (crop[:outside_y] == BACKGROUND).all()
    assert (crop[:, :outside_x] == BACKGROUND).all()
    assert centre_of_darkness(crop) == pytest.approx((size_px / 2 + 20 / step, size_px / 2 + 15 / step), abs=0.1)


def test_the_field_reaches_its_last_pixel() -> None:
    """401 × 299 pixels are no whole number of blocks; the last column must neither stretch nor vanish."""
    field = np.full((299, 401, 3), 90, np.uint8)
    crop = crop_cells(field, [Box(391, 289, 411, 309)], um_per_px=0.1, crop_um=12.0, size_px=60)[0]
    assert (crop[:30, :30] == 90).all()
    bright = empty_field(299, 401)
    bright[-3:, -3:] = 0
    crop = crop_cells(bright, [Box(391, 289, 411, 309)], um_per_px=0.1, crop_um=12.0, size_px=120)[0]
    assert (crop[57:60, 57:60] == 0).all()
    assert (crop[60:, 60:] == BACKGROUND).all()


def test_crops_come_in_the_order_of_the_boxes_and_none_is_fine() -> None:
    field = empty_field()
    field[:, 200:] = (200, 20, 30)
    crops = crop_cells(field, [Box(340, 90, 360, 110), Box(40, 90, 60, 110)], um_per_px=0.1, crop_um=5, size_px=32)
    assert crops.shape == (2, 32, 32, 3)
    assert crops.dtype == np.uint8
    assert (crops[0] == (200, 20, 30)).all()
    assert (crops[1] == BACKGROUND).all()
    assert crop_cells(field, [], um_per_px=0.1, crop_um=5, size_px=32).shape == (0, 32, 32, 3)


@pytest.mark.parametrize(("height", "width"), [(91, 101), (180, 170), (420, 500)])
def test_an_image_of_one_cell_is_centred_at_the_same_scale(height: int, width: int) -> None:
    image = with_spots(empty_field(height, width), [(width / 2, height / 2)], sigma=10)
    image[height // 2 :, width // 2 + 20 : width // 2 + 24] = (90, 80, 150)  # a tail leaves through the rim
    crop = crop_of_cell_image(image, um_per_px=UM_PER_PX, crop_um=16.0, size_px=128)
    field = np.full((900, 900, 3), BACKGROUND, np.uint8)
    top, left = 450 - height // 2, 450 - width // 2
    field[top : top + height, left : left + width] = image
    box = Box(left, top, left + width, top + height)
    expected = crop_cells(field, [box], um_per_px=UM_PER_PX, crop_um=16.0, size_px=128)[0]
    assert np.abs(crop.astype(int) - expected).mean() < 1.0
    assert crop.shape == (128, 128, 3)


def test_three_thousand_cells_are_cropped_at_400_a_second_or_more() -> None:
    field = np.random.default_rng(0).integers(0, 255, (1024, 1280, 3)).astype(np.uint8)
    corners = np.random.default_rng(1).integers(0, 1000, (3000, 2)).tolist()
    boxes = [Box(x, y, x + 90, y + 60) for x, y in corners]
    began = time.process_time()
    crops = crop_cells(field, boxes, um_per_px=UM_PER_PX, crop_um=16.0, size_px=128)
    assert len(crops) / (time.process_time() - began) > 400


def inside(box: Box, crop_um: float, covered: NDArray[np.uint8] | None = None) -> float:
    """The share of one crop on an empty field of 400 × 300 px at 0.1 µm a pixel."""
    [share] = crop_inside_shares([box], (400, 300), um_per_px=0.1, crop_um=crop_um, covered=covered)
    return share


@pytest.mark.parametrize(
    ("box", "share"),
    [
        (Box(190, 140, 210, 160), 1.0),  # 100 px around (200, 150)
        (Box(40, 140, 60, 160), 1.0),  # it ends where the field does
        (Box(0, 140, 20, 160), 0.6),
        (Box(0, 0, 20, 20), 0.36),
        (Box(380, 280, 400, 300), 0.36),
        (Box(0, 0, 21, 20), 0.363),
    ],
)
def test_the_share_of_a_crop_that_lies_in_its_field(box: Box, share: float) -> None:
    assert inside(box, 10.0) == pytest.approx(share, abs=1e-4)


def test_a_crop_larger_than_its_field_is_never_whole() -> None:
    assert inside(Box(190, 140, 210, 160), 50.0) == pytest.approx(400 * 300 / 500**2, abs=1e-4)


def test_what_a_frame_covers_is_not_of_the_field() -> None:
    covered = np.zeros((300, 400), np.uint8)
    covered[:, :175] = 1
    assert inside(Box(190, 140, 210, 160), 10.0, covered) == 0.75
    assert inside(Box(340, 140, 360, 160), 10.0, covered) == 1.0
    covered[:] = 1
    assert inside(Box(0, 0, 20, 20), 10.0, covered) == 0.0
