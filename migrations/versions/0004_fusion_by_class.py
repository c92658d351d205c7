"""A release may weigh its networks by class: then `fusion_alpha` is null and `fusion_alpha_by_class` tells."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

RELEASE = """
create {replaced} view reporting.release as
select r.id as release_id, r.kind, r.active, r.created_at, {alpha} as fusion_alpha,
    (r.document ->> 'crop_um')::float8 as crop_um, (r.document ->> 'crop_px')::integer as crop_px,
    r.document ->> 'git_commit' as git_commit, r.document ->> 'data_fingerprint' as data_fingerprint,
    r.document -> 'metrics' as metrics, (select count(*) from analysis a where a.release_id = r.id) as slides{more}
from model_release r
"""
ANY_ALPHA = "(r.document -> 'fusion' ->> 'alpha')::float8"
ONE_ALPHA = f"case jsonb_typeof(r.document -> 'fusion' -> 'alpha') when 'number' then {ANY_ALPHA} end"
BY_CLASS = """,
    case jsonb_typeof(r.document -> 'fusion' -> 'alpha') when 'array' then array(
        select share::float8 from jsonb_array_elements_text(r.document -> 'fusion' -> 'alpha')
            with ordinality given(share, place) order by place
    ) end as fusion_alpha_by_class"""
COMMENT = "One row a release of the networks; `untrained` and `demonstration` say nothing"
COLUMN_COMMENTS = {
    "release_id": "Release of the networks",
    "kind": "untrained, demonstration or trained",
    "active": "New slides are analysed under it",
    "created_at": "When it was recorded",
    "fusion_alpha": "Weight of EfficientNetV2-S in the fused logits, 0 to 1",
    "crop_um": "Side of a crop, µm",
    "crop_px": "Side of a crop, pixels",
    "git_commit": "Commit of the training code; null: untrained",
    "data_fingerprint": "SHA-256 of the training data's list; null: no data was used",
    "metrics": "Metrics of the release, with the data they were measured on",
    "slides": "Slides analysed under it, open ones among them",
}


def upgrade() -> None:
    op.execute(RELEASE.format(replaced="or replace", alpha=ONE_ALPHA, more=BY_CLASS))
    op.execute(
        "comment on column reporting.release.fusion_alpha is"
        " 'Weight of EfficientNetV2-S in the fused logits, 0 to 1; null: one a class'"
    )
    op.execute(
        "comment on column reporting.release.fusion_alpha_by_class is"
        " 'Its weight for each class, in class index order; null: one for all'"
    )


def downgrade() -> None:
    op.execute("drop view reporting.release")  # a view loses a column no other way, and its comments with it
    op.execute(RELEASE.format(replaced="", alpha=ANY_ALPHA, more=""))
    op.execute(f"comment on view reporting.release is '{COMMENT}'")
    for column, comment in COLUMN_COMMENTS.items():
        quoted = comment.replace("'", "''")
        op.execute(f"comment on column reporting.release.{column} is '{quoted}'")
