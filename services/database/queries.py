"""Conditions that more than one room asks the database."""

from typing import Final

OPEN_SLIDES: Final = (
    "exists (select from analysis join slide on slide.id = analysis.slide_id"
    " where slide.batch_id = batch.id and analysis.state in ('queued', 'running'))"
)
