"""Outlines against an independent reader of polygons: valid, inside their field, and of the head's measured area."""

import numpy as np
import pytest

from services.imaging.heads import find_heads
from services.imaging.types import Box, UmPerPx
from services.reporting.exports.geojson import head_polygon
from services.smears.field import FieldSpec, draw_field

Polygon = pytest.importorskip("shapely.geometry").Polygon  # an environment older than this test has none


@pytest.mark.parametrize("um_per_px", [0.045, 0.09, 0.18])
def test_an_outline_is_the_heads_edge_and_holds_its_area(um_per_px: float) -> None:
    pixels = draw_field(np.random.default_rng(5), FieldSpec(um_per_px=um_per_px, cells=15)).pixels
    heads = find_heads(pixels, um_per_px=UmPerPx(um_per_px)).heads
    assert len(heads) >= 8
    for head in heads:
        assert head.outline is not None
        assert head.measures.area_um2 is not None
        area = head.measures.area_um2 / um_per_px**2
        edge = Polygon(head_polygon(head.outline.astype("<u2").tobytes(), head.box, area))
        middles = Polygon(head.outline + 0.5)
        assert edge.is_valid
        assert edge.area == pytest.approx(area, rel=0.01)
        assert middles.area < 0.99 * area  # what made the outline too small
        assert middles.exterior.hausdorff_distance(edge.exterior) < 1.5
        x0, y0, x1, y1 = edge.bounds
        assert min(x0, y0) >= 0
        assert x1 <= pixels.shape[1]
        assert y1 <= pixels.shape[0]


@pytest.mark.parametrize("outline", [None, b"", np.array([[5, 5], [5, 5], [6, 5]], "<u2").tobytes()])
def test_without_an_outline_there_is_the_box(outline: bytes | None) -> None:
    assert Polygon(head_polygon(outline, Box(2, 3, 10, 9), 40.0)).bounds == (2, 3, 10, 9)


def test_an_area_that_no_edge_can_hold_leaves_the_pixels_own_edge() -> None:
    square = np.array([[10, 10], [19, 10], [19, 19], [10, 19]], "<u2").tobytes()
    for area in (None, 4000.0, 1.0):
        assert Polygon(head_polygon(square, Box(10, 10, 20, 20), area)).area == pytest.approx(100)
