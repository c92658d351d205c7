"""The same picture in two slides of a batch is found in other files too; one that is set aside takes no cells away."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

SAME_IMAGE = """
create view reporting.same_image as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.id as slide_key,
    s.slide_code as slide_id, s.specimen, s.replicate, f.id as field_key, f.key as field, ob.id as other_batch_key,
    ob.batch_code as other_batch_id, os.id as other_slide_key, os.slide_code as other_slide_id,
    os.specimen as other_specimen, os.replicate as other_replicate, o.id as other_field_key, o.key as other_field
from field f
join slide s on s.id = f.slide_id
join batch b on b.id = s.batch_id
join lab l on l.id = b.lab_id
-- For each field, so that a question about one batch never reads the fields of all others.
cross join lateral (
    select copy.id, copy.key, copy.slide_id from field copy where copy.sha256 = f.sha256
    union
    select copy.id, copy.key, copy.slide_id
    from same_picture mine
    join same_picture shows on shows.first_field_id = mine.first_field_id
    join field copy on copy.id = shows.field_id
    where mine.field_id = f.id
) o
join slide os on os.id = o.slide_id and os.id <> s.id
join batch ob on ob.id = os.batch_id and ob.lab_id = b.lab_id
where b.voided_at is null and ob.voided_at is null
"""
SAME_IMAGE_COMMENT = (
    "One row per image and image of another slide of the lab: the same bytes, or in a closed batch the same picture"
)
SAME_IMAGE_COLUMNS = {
    "batch_key": "Internal key of the batch; joins the views",
    "lab": "Code of the laboratory",
    "batch_id": "batch_id of the manifest; unique within a lab",
    "received_on": "Day of receipt, UTC; cells are partitioned by its month",
    "slide_key": "Internal key of the slide",
    "slide_id": "slide_id of the manifest; unique within a batch",
    "specimen": "Pseudonym of the specimen",
    "replicate": "1 or 2",
    "field_key": "Internal key of the field",
    "field": "Object key of the image, relative to the batch",
    "other_batch_key": "Key of the batch that has the other image",
    "other_batch_id": "batch_id of the batch that has the other image",
    "other_slide_key": "Internal key of the slide that has the other image",
    "other_slide_id": "slide_id of the slide that has the other image",
    "other_specimen": "Specimen of the slide that has the other image",
    "other_replicate": "Replicate of the slide that has the other image",
    "other_field_key": "Internal key of the other image; the lower of the two was sent first",
    "other_field": "Object key of the other image, relative to its batch",
}
SHARED_FIELD = """
create or replace view reporting.shared_field as
select batch_key, lab, batch_id, received_on, slide_id, specimen, replicate, field_key, field,
    other_batch_key as first_batch_key, other_batch_id as first_batch_id, other_slide_id as first_slide_id,
    other_specimen as first_specimen, other_replicate as first_replicate
from reporting.same_image i
where other_field_key < field_key
    and other_field_key = (select min(other_field_key) from reporting.same_image e where e.field_key = i.field_key)
"""
SHARED_FIELD_COMMENT = (
    "One row per field whose image the lab had sent before, in another slide: it may be counted twice"
)
REPEATED_FIELDS = """
create or replace view reporting.repeated_fields as
select i.batch_key, i.received_on, i.slide_id, a.analysis_id,
    array_agg(distinct i.field_key order by i.field_key) as field_keys
from reporting.same_image i
join slide s on s.id = i.slide_key
join slide e on e.id = i.other_slide_key and e.stain = s.stain
join reporting.current_analysis a on a.slide_key = s.id and a.state in ('done', 'insufficient')
join reporting.current_analysis ea on ea.slide_key = e.id and ea.state in ('done', 'insufficient')
    and ea.release_id = a.release_id
-- Where it is set aside there, its cells are counted here alone.
join field_result er on er.analysis_id = ea.analysis_id and er.field_id = i.other_field_key and er.reason is null
where i.other_field_key < i.field_key and i.other_batch_key = i.batch_key and i.other_specimen = i.specimen
group by i.batch_key, i.received_on, i.slide_id, a.analysis_id
"""

SHARED_FIELD_BEFORE = """
create or replace view reporting.shared_field as
select b.id as batch_key, l.code as lab, b.batch_code as batch_id, b.received_on, s.slide_code as slide_id, s.specimen,
    s.replicate, f.id as field_key, f.key as field, o.batch_key as first_batch_key, o.batch_id as first_batch_id,
    o.slide_id as first_slide_id, o.specimen as first_specimen, o.replicate as first_replicate
from batch b
join lab l on l.id = b.lab_id
join slide s on s.batch_id = b.id
join field f on f.slide_id = s.id
cross join lateral (
    select eb.id as batch_key, eb.batch_code as batch_id, e.slide_code as slide_id, e.specimen, e.replicate
    from field earlier
    join slide e on e.id = earlier.slide_id
    join batch eb on eb.id = e.batch_id
    where earlier.sha256 = f.sha256 and earlier.id < f.id and e.id <> s.id and eb.lab_id = b.lab_id
        and eb.voided_at is null
    order by earlier.id limit 1
) o
where b.voided_at is null
"""
SHARED_FIELD_COMMENT_BEFORE = (
    "One row per field whose bytes the lab had sent before, in another slide: it may be counted twice"
)
REPEATED_FIELDS_BEFORE = """
create or replace view reporting.repeated_fields as
select b.id as batch_key, b.received_on, s.slide_code as slide_id, a.analysis_id,
    array_agg(distinct f.id order by f.id) as field_keys
from field f
join field o on o.sha256 = f.sha256 and o.id < f.id
join slide s on s.id = f.slide_id
join slide e on e.id = o.slide_id and e.id <> s.id and e.batch_id = s.batch_id and e.specimen = s.specimen
    and e.stain = s.stain
join batch b on b.id = s.batch_id
join reporting.current_analysis a on a.slide_key = s.id and a.state in ('done', 'insufficient')
join reporting.current_analysis ea on ea.slide_key = e.id and ea.state in ('done', 'insufficient')
    and ea.release_id = a.release_id
group by b.id, b.received_on, s.slide_code, a.analysis_id
"""


def upgrade() -> None:
    # Of the fields on record nobody knows it, and nothing is told of them but by their bytes.
    shows = "What it shows, to be told again in another file; null: too little, or older"
    op.add_column("field_result", sa.Column("signature", sa.LargeBinary(), comment=shows))
    first = "The first of the batch that shows it, itself among them"
    op.create_table(
        "same_picture",
        sa.Column("field_id", sa.Integer(), nullable=False),
        sa.Column("first_field_id", sa.Integer(), nullable=False, comment=first),
        sa.ForeignKeyConstraint(["field_id"], ["field.id"], name="fk_same_picture_field_id"),
        sa.ForeignKeyConstraint(["first_field_id"], ["field.id"], name="fk_same_picture_first_field_id"),
        sa.PrimaryKeyConstraint("field_id", name="pk_same_picture"),
    )
    op.create_index("ix_same_picture_first_field_id", "same_picture", ["first_field_id"])
    _execute("grant select, insert, delete on same_picture to morphbatch_service")
    _execute(SAME_IMAGE)
    _comment("view reporting.same_image", SAME_IMAGE_COMMENT)
    for column, comment in SAME_IMAGE_COLUMNS.items():
        _comment(f"column reporting.same_image.{column}", comment)
    _execute(SHARED_FIELD)
    _comment("view reporting.shared_field", SHARED_FIELD_COMMENT)
    _execute(REPEATED_FIELDS)


def downgrade() -> None:
    if op.get_bind().execute(sa.text("select from same_picture")).first() is not None:
        raise RuntimeError(
            "some slides share a picture in other files, whose cells would count twice again: restore a backup of that"
            " version instead"
        )
    _execute(SHARED_FIELD_BEFORE)
    _comment("view reporting.shared_field", SHARED_FIELD_COMMENT_BEFORE)
    _execute(REPEATED_FIELDS_BEFORE)
    _execute("drop view reporting.same_image")
    op.drop_table("same_picture")
    op.drop_column("field_result", "signature")


def _execute(statement: str) -> None:
    # The driver must not read per cent signs as parameters.
    op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})


def _comment(subject: str, comment: str) -> None:
    quoted = comment.replace("'", "''")
    _execute(f"comment on {subject} is '{quoted}'")
