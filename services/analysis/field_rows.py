"""What was found of each field of a slide, kept until the slide ends: only then is known which fields fit together."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from services.analysis.fields import PreparedField
from services.analysis.queries import SlideWork
from services.analysis.rows import CopySpool
from services.imaging.scale import FieldScale, of_another_magnification, scale_flags
from services.imaging.types import SetAside

_COLUMNS: Final = (
    *("analysis_id", "field_id", "width_px", "height_px", "cells", "on_border"),
    *("reason", "detail", "quality", "rejected", "signature"),
)


@dataclass(slots=True)
class _Row:
    """A row of `field_result`."""

    field_id: int
    key: str
    width: int | None
    height: int | None
    cells: int
    on_border: int
    reason: str | None
    detail: str | None
    quality: dict[str, Any]
    rejected: list[dict[str, Any]]
    scale: FieldScale | None
    signature: bytes | None


class FieldRows:
    """The rows of `field_result` of one analysis. Of a field it keeps no pixels, crops or heads."""

    def __init__(self, slide: SlideWork) -> None:
        self._slide = slide
        self._rows: list[_Row] = []

    @property
    def on_border(self) -> int:
        """Heads that a field's border cuts."""
        return sum(row.on_border for row in self._rows)

    @property
    def rejected(self) -> int:
        """Objects that are no whole heads, but for those on a border."""
        return sum(len(row.rejected) - row.on_border for row in self._rows)

    def add(self, prepared: PreparedField) -> None:
        """Note what was found of a field."""
        found, fault = prepared.found, prepared.fault
        self._rows.append(
            _Row(
                field_id=prepared.work.id,
                key=prepared.work.key,
                width=prepared.width,
                height=prepared.height,
                cells=len(found.heads),
                on_border=found.on_border,
                reason=fault.reason if fault else prepared.set_aside,
                detail=str(fault) if fault else prepared.detail,
                quality=prepared.quality,
                rejected=[{"box": list(r.box), "reason": r.reason} for r in found.rejected],
                scale=prepared.scale,
                signature=None if prepared.signature is None else prepared.signature.tobytes(),
            )
        )

    def judge_scale(self) -> list[int]:
        """Note what only all fields together tell of their scale; the ids of the fields that are set aside for it."""
        judged = [(row, row.scale) for row in self._rows if row.scale is not None]
        scales = [scale for _, scale in judged]
        for (row, _), flags in zip(judged, scale_flags(scales), strict=True):
            row.quality["flags"] += flags
        left_out = []
        for place, why in of_another_magnification(scales, self._slide.um_per_px).items():
            row, _ = judged[place]
            if row.reason is None:
                row.reason, row.cells, row.on_border, row.rejected = SetAside.OTHER_MAGNIFICATION, 0, 0, []
                row.detail = (
                    f"{self._slide}: field {row.key}: {why}; send fields of another objective or camera as a slide of"
                    " their own, with its um_per_px"
                )
                left_out.append(row.field_id)
        return left_out

    def write(self, session: Session) -> None:
        """COPY the rows within the session's transaction."""
        spool = CopySpool("field_result", _COLUMNS)
        try:
            for row in self._rows:
                spool.add(
                    (
                        *(self._slide.analysis_id, row.field_id, row.width, row.height, row.cells, row.on_border),
                        *(row.reason, row.detail, row.quality, row.rejected, row.signature),
                    )
                )
            spool.write(session)
        finally:
            spool.close()
