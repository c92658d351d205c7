"""Conditions that more than one room asks the database."""

from typing import Final

from sqlalchemy import Integer, column, table

OPEN_SLIDES: Final = (
    "exists (select from analysis join slide on slide.id = analysis.slide_id"
    " where slide.batch_id = batch.id and analysis.state in ('queued', 'running'))"
)

CURRENT_ANALYSIS: Final = table(
    "current_analysis", column("analysis_id", Integer), column("slide_key", Integer), schema="reporting"
)
"""The view of the one analysis of each slide that counts."""
