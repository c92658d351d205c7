"""cells.geojson: outlines of a slide's heads in pixels of their fields, for QuPath and whatever else draws polygons."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import Row

from services.reporting.palette import REGION_COLOURS
from services.reporting.references import MEASURES
from services.reporting.report import SlideReport
from services.taxonomy import Region

COLUMNS: Final = "field, number, x0, y0, x1, y1, class_name, region, confidence, head_outline, " + ", ".join(
    m.column for m in MEASURES
)


def write_geojson(rows: Iterable[list[Row[Any]]], slide: SlideReport, warning: str | None, path: Path) -> int:
    """Write one feature per cell, with `rows` of `COLUMNS`; returns how many. A cell without an outline has its box."""
    collection = {
        **({"warning": warning} if warning else {}),
        "type": "FeatureCollection",
        "slide_id": slide.slide_id,
        "coordinates": "pixels of the field named in each feature's properties, origin top left, y down",
        "um_per_px": slide.um_per_px,
    }
    written = 0
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(collection, ensure_ascii=False)[:-1] + ', "features": [')
        for part in rows:
            for row in part:
                file.write(",\n" if written else "\n")
                file.write(json.dumps(_feature(row), ensure_ascii=False, separators=(",", ":")))
                written += 1
        file.write("\n]}\n")
    return written


def _feature(row: Row[Any]) -> dict[str, Any]:
    values = row._mapping
    measures = {m.column: values[m.column] for m in MEASURES if values[m.column] is not None}
    region = Region(values["region"])
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [_ring(row)]},
        "properties": {
            "objectType": "detection",
            "name": f"{values['field']} #{values['number']}",
            "field": values["field"],
            "number": values["number"],
            "classification": {"name": values["class_name"], "color": list(REGION_COLOURS[region])},
            "region": region.value,
            "confidence": round(values["confidence"], 4),
            "measurements": {name: round(value, 4) for name, value in measures.items()},
        },
    }


def _ring(row: Row[Any]) -> list[list[int]]:
    """Closed, as RFC 7946 asks, and with the interior on the left of its way as seen with y up."""
    if row.head_outline is not None and len(row.head_outline) >= 12:
        points = np.frombuffer(row.head_outline, "<u2").reshape(-1, 2).astype(np.int64)
    else:
        points = np.array([[row.x0, row.y0], [row.x1, row.y0], [row.x1, row.y1], [row.x0, row.y1]])
    x, y = points[:, 0], points[:, 1]
    if (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() < 0:
        points = points[::-1]
    ring: list[list[int]] = [*points.tolist(), points[0].tolist()]
    return ring
