"""What was found of each field of a slide, kept until the slide ends: only then is its scale known to be doubtful."""

from typing import Any, Final

from sqlalchemy.orm import Session

from services.analysis.fields import PreparedField
from services.analysis.rows import CopySpool
from services.imaging.scale import FieldScale, scale_flags

_COLUMNS: Final = (
    *("analysis_id", "field_id", "width_px", "height_px", "cells", "on_border"),
    *("reason", "detail", "quality", "rejected"),
)


class FieldRows:
    """The rows of `field_result` of one analysis. Of a field it keeps no pixels, crops or heads."""

    def __init__(self, analysis_id: int) -> None:
        self._analysis_id = analysis_id
        self._rows: list[tuple[object, ...]] = []
        self._scales: list[tuple[dict[str, Any], FieldScale]] = []

    def add(self, prepared: PreparedField) -> None:
        """Note what was found of a field."""
        found, fault = prepared.found, prepared.fault
        self._rows.append(
            (
                *(self._analysis_id, prepared.work.id, prepared.width, prepared.height),
                *(len(found.heads), found.on_border),
                fault.reason if fault else prepared.set_aside,
                str(fault) if fault else prepared.detail,
                prepared.quality,
                [{"box": list(r.box), "reason": r.reason} for r in found.rejected],
            )
        )
        if prepared.scale is not None:
            self._scales.append((prepared.quality, prepared.scale))

    def write(self, session: Session) -> None:
        """COPY the rows within the session's transaction, with what only all fields together tell of their scale."""
        for (quality, _), flags in zip(self._scales, scale_flags([scale for _, scale in self._scales]), strict=True):
            quality["flags"] += flags
        spool = CopySpool("field_result", _COLUMNS)
        try:
            for row in self._rows:
                spool.add(row)
            spool.write(session)
        finally:
            spool.close()
