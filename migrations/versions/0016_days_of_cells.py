"""A cell says when its specimen was collected, and the day by the lab's clock."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

CELL = """
create or replace view reporting.cell as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.slide_code as slide_id, s.specimen,
    s.replicate, s.stain, s.um_per_px, a.release_id, a.release_kind, a.analysis_id, c.number, c.field_id as field_key,
    f.position as field_position, f.key as field, c.x0, c.y0, c.x1, c.y1, c.class_index, m.class_name, m.region,
    c.confidence, c.probabilities, c.efficientnetv2_s_logits, c.resnetv2_50_logits, c.head_outline, c.head_length_um,
    c.head_width_um, c.head_area_um2, c.head_perimeter_um, c.ellipticity, c.elongation, c.roughness, c.regularity,
    c.acrosome_share, c.vacuole_share, c.midpiece_width_um, c.midpiece_angle_deg,
    m.class_code, m.class_name_tr, s.collected_at,
    (coalesce(s.collected_at, b.received_at) at time zone l.time_zone)::date as day
from cell c
join reporting.current_analysis a on a.analysis_id = c.analysis_id
join slide s on s.id = a.slide_key
-- With the day, only that month's partition is read.
join batch b on b.id = s.batch_id and b.received_on = c.received_on
join lab l on l.id = b.lab_id
join field f on f.id = c.field_id
join reporting.morphology_class m on m.class_index = c.class_index
"""
CELL_BEFORE = """
create view reporting.cell as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.slide_code as slide_id, s.specimen,
    s.replicate, s.stain, s.um_per_px, a.release_id, a.release_kind, a.analysis_id, c.number, c.field_id as field_key,
    f.position as field_position, f.key as field, c.x0, c.y0, c.x1, c.y1, c.class_index, m.class_name, m.region,
    c.confidence, c.probabilities, c.efficientnetv2_s_logits, c.resnetv2_50_logits, c.head_outline, c.head_length_um,
    c.head_width_um, c.head_area_um2, c.head_perimeter_um, c.ellipticity, c.elongation, c.roughness, c.regularity,
    c.acrosome_share, c.vacuole_share, c.midpiece_width_um, c.midpiece_angle_deg,
    m.class_code, m.class_name_tr
from cell c
join reporting.current_analysis a on a.analysis_id = c.analysis_id
join slide s on s.id = a.slide_key
-- With the day, only that month's partition is read.
join batch b on b.id = s.batch_id and b.received_on = c.received_on
join lab l on l.id = b.lab_id
join field f on f.id = c.field_id
join reporting.morphology_class m on m.class_index = c.class_index
"""

COMMENTS = {
    "cell.collected_at": "When the specimen was collected, as the manifest says; null: it does not",
    "cell.day": "Day of its collection, else of its receipt, by the lab's clock",
    "slide_day.day": "Day of its collection, else of its receipt, by the lab's clock",
    "slide_day.month": "First day of the month of that day",
}
COMMENTS_BEFORE = {
    "slide_day.day": "Day of that time",
    "slide_day.month": "First day of the month of that time",
}


def upgrade() -> None:
    _execute(CELL)
    for column, comment in COMMENTS.items():
        _comment(f"column reporting.{column}", comment)


def downgrade() -> None:
    # A view loses a column no other way than with all that build on it.
    standing = _views()
    op.execute("drop view reporting.cell cascade")
    there = set(_views())
    for view, (definition, comments) in standing.items():
        if view not in there:
            _execute(CELL_BEFORE if view == "cell" else f"create view reporting.{view} as {definition}")
            for subject, comment in comments.items():
                if subject.removeprefix("column reporting.") not in COMMENTS:
                    _comment(subject, comment)
    for column, comment in COMMENTS_BEFORE.items():
        _comment(f"column reporting.{column}", comment)


def _execute(statement: str) -> None:
    # The driver must not read per cent signs as parameters.
    op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})


def _comment(subject: str, comment: str) -> None:
    quoted = comment.replace("'", "''")
    _execute(f"comment on {subject} is '{quoted}'")


def _views() -> dict[str, tuple[str, dict[str, str]]]:
    """Every view in the order in which they build on each other: its definition, and the comments of it."""
    connection = op.get_bind()
    views = connection.execute(
        sa.text(
            "select oid, relname, pg_get_viewdef(oid), obj_description(oid, 'pg_class') from pg_class"
            " where relnamespace = 'reporting'::regnamespace and relkind = 'v' order by oid"
        )
    ).all()
    of_columns = sa.text(
        "select attname, col_description(attrelid, attnum) from pg_attribute where attrelid = :view and attnum > 0"
    )
    return {
        name: (
            definition,
            {f"view reporting.{name}": comment}
            | {
                f"column reporting.{name}.{column}": said
                for column, said in connection.execute(of_columns, {"view": oid})
            },
        )
        for oid, name, definition, comment in views
    }
