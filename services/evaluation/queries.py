"""What is asked of a batch whose truth is known: the cells that were stored."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from services.database.queries import read_rows


@dataclass(frozen=True, slots=True)
class StoredCell:
    """A cell of the analysis that counts: the key of its field, its head box in pixels, and what the networks gave."""

    field: str
    x0: int
    y0: int
    x1: int
    y1: int
    probabilities: list[float]
    efficientnetv2_s_logits: list[float]
    resnetv2_50_logits: list[float]
    crop_inside_share: float | None
    not_counted: str | None


def releases_of(session: Session, batch_key: int) -> list[str]:
    """The releases under which the analyses of a batch stand that count."""
    rows = session.execute(
        text(
            "select distinct latest.release_id from slide join reporting.current_analysis latest"
            " on latest.slide_key = slide.id where slide.batch_id = :key order by 1"
        ),
        {"key": batch_key},
    )
    return list(rows.scalars())


def stored_cells(session: Session, batch_key: int) -> list[StoredCell]:
    """The cells of a batch, field by field, in the order of their numbers."""
    return read_rows(
        session,
        StoredCell,
        "select field.key as field, x0, y0, x1, y1, probabilities, efficientnetv2_s_logits, resnetv2_50_logits,"
        " crop_inside_share, not_counted from batch join slide on slide.batch_id = batch.id"
        " join reporting.current_analysis latest on latest.slide_key = slide.id"
        " join cell on cell.analysis_id = latest.analysis_id and cell.received_on = batch.received_on"
        " join field on field.id = cell.field_id where batch.id = :key order by field.id, cell.number",
        key=batch_key,
    )
