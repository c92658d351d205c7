"""cells-<n>.geojson: the heads of one field in its own pixels, for QuPath and whatever else draws polygons."""

import json
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row

from services.imaging.types import Box
from services.reporting.palette import REGION_COLOURS
from services.reporting.references import MEASURES
from services.reporting.report import SlideReport
from services.taxonomy import CLASSES, Language

COLUMNS: Final = ", ".join(
    (
        *("field_position", "field", "number", "x0", "y0", "x1", "y1", "class_index", "confidence", "head_outline"),
        *("crop_inside_share", "not_counted"),
        *(m.column for m in MEASURES),
    )
)
ORDER: Final = "field_position, number"

_MOST_PX: Final = 2.0  # an outline lies half a pixel inside the head's edge, and a rounding


def write_geojson(
    rows: Iterable[list[Row[Any]]], slide: SlideReport, warning: str | None, language: Language, folder: Path
) -> Iterator[Path]:
    """Write one file per field that has cells, one feature per cell, and yield its path once it is complete.

    `rows` of `COLUMNS` in `ORDER`. Coordinates are those of QuPath: a pixel reaches from its number to the next. A cell
    without an outline has its box.
    """
    for position, cells in groupby(chain.from_iterable(rows), lambda row: row.field_position):
        path = folder / f"cells-{position + 1:03d}.geojson"
        first = next(cells)
        collection = {
            **({"warning": warning} if warning else {}),
            "type": "FeatureCollection",
            "slide_id": slide.slide_id,
            "field": first.field,
            "coordinates": "pixels of this field, origin at its upper left corner, y down",
            "um_per_px": slide.um_per_px,
        }
        with path.open("w", encoding="utf-8") as file:
            file.write(json.dumps(collection, ensure_ascii=False)[:-1] + ', "features": [')
            for number, row in enumerate(chain([first], cells)):
                file.write(",\n" if number else "\n")
                feature = _feature(row, slide.um_per_px, language)
                file.write(json.dumps(feature, ensure_ascii=False, separators=(",", ":")))
            file.write("\n]}\n")
        yield path


def _feature(row: Row[Any], um_per_px: float, language: Language) -> dict[str, Any]:
    known, values = CLASSES[row.class_index], row._mapping
    measured = {name: values[name] for name in ("confidence", "crop_inside_share", *(m.column for m in MEASURES))}
    area = None if row.head_area_um2 is None else row.head_area_um2 / um_per_px**2
    polygon = head_polygon(row.head_outline, Box(row.x0, row.y0, row.x1, row.y1), area)
    ring = np.round(polygon, 3).tolist()
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {
            "objectType": "detection",
            "name": f"#{row.number}",
            "classification": {"name": known.display(language), "color": list(REGION_COLOURS[known.region])},
            "class_code": known.code,
            "region": known.region.value,
            "not_counted": row.not_counted,
            # As all versions of QuPath read them.
            "measurements": [
                {"name": name, "value": round(value, 4)} for name, value in measured.items() if value is not None
            ],
        },
    }


def head_polygon(outline: bytes | None, box: Box, area_px: float | None) -> NDArray[np.float64]:
    """The edge of a head, `[n, 2]` x, y, where a pixel reaches from its number to the next.

    Its interior is on the left of its way as seen with y up (RFC 7946). A traced outline runs through the middles of
    the head's outermost pixels; it is moved outwards, by the same distance everywhere, until it holds `area_px`, the
    head's measured area.
    """
    points = np.array([], np.float64) if outline is None else np.frombuffer(outline, "<u2").reshape(-1, 2) + 0.5
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)] if len(points) else points
    if len(points) < 3:
        x0, y0, x1, y1 = box
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)
    if _area(points, points) < 0:
        points = points[::-1]
    way = np.roll(points, -1, axis=0) - points
    normals = np.stack([way[:, 1], -way[:, 0]], axis=1) / np.hypot(*way.T)[:, None]
    before = np.roll(normals, 1, axis=0)
    # Where two edges meet at a sharp angle, their corner would run far away.
    outwards = (before + normals) / np.maximum(1 + (before * normals).sum(axis=1), 0.5)[:, None]
    moved: NDArray[np.float64] = points + _distance(points, outwards, area_px) * outwards
    return moved


def _distance(points: NDArray[np.float64], outwards: NDArray[np.float64], area_px: float | None) -> float:
    """Pixels by which `points` move for the polygon to hold `area_px`: its area is a square function of them."""
    if area_px is None:
        return 0.5
    roots = np.roots([
        _area(outwards, outwards),
        _area(points, outwards) + _area(outwards, points),
        _area(points, points) - area_px,
    ])  # fmt: skip
    near = [float(root.real) for root in roots if abs(root.imag) < 1e-9 and abs(root) <= _MOST_PX]
    return min(near, key=abs, default=0.5)


def _area(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    following = np.roll(b, -1, axis=0)
    return float((a[:, 0] * following[:, 1] - a[:, 1] * following[:, 0]).sum() / 2)
