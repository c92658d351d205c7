"""A lab may ask in SQL, by a role of its own that reads the rows of that lab alone."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

VIEWS = {
    "batch_overview": (
        """
select batch_key, lab, batch_id, state, received_on, received_at, closed_at, slides, slides_done,
    slides_insufficient, slides_quarantined, slides_open, fields, fields_used, cells, on_border, objects_rejected,
    release_ids, not_for_use, seconds, slides_pending, voided_at, voided_by, void_why, cells_not_counted
""",
        "One row per batch of the lab",
    ),
    "slide_result": (
        """
select batch_key, lab, batch_id, received_on, slide_key, position, slide_id, specimen, replicate, stain, um_per_px,
    analysis_id, release_id, release_kind, state, reason, detail, attempts, started_at, finished_at, cells,
    on_border, objects_rejected, fields, fields_used, fields_set_aside, normal_cells, normal_pct, normal_low_pct,
    normal_high_pct, fewer_than_200_cells, seconds, timings, version, later_version, later_state, later_reason,
    later_detail, cells_not_counted, not_counted_by_reason
""",
        "One row per slide of the lab: its state and its normal forms. Not a diagnosis",
    ),
    "class_distribution": (
        """
select batch_key, lab, batch_id, received_on, slide_id, specimen, replicate, stain, analysis_id, release_id,
    release_kind, class_index, class_name, region, cells, cells_total, pct, low_pct, high_pct, class_code,
    class_name_tr, cells_not_counted
""",
        "Cells of each class by slide of the lab",
    ),
    "specimen_distribution": (
        """
select batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind, slides, replicates,
    class_index, class_name, region, cells, cells_total, pct, low_pct, high_pct, replicate_1_cells,
    replicate_1_total, replicate_2_cells, replicate_2_total, replicates_agree, class_code, class_name_tr,
    cells_not_counted
""",
        "Cells of each class by specimen of the lab",
    ),
    "analysis_history": (
        """
select batch_key, lab, batch_id, received_on, slide_key, slide_id, specimen, replicate, stain, analysis_id, version,
    counts, state, reason, detail, queued_at, asked_by, why, started_at, finished_at, release_id, release_kind,
    fused_from, software, detector, form, settings, made_with_sha256, cells, on_border, objects_rejected,
    normal_cells, normal_pct, normal_low_pct, normal_high_pct, cells_not_counted, not_counted_by_reason
""",
        "Every version of each slide's analysis of the lab",
    ),
    "cell": (
        """
select batch_key, lab, batch_id, received_on, slide_id, specimen, replicate, stain, um_per_px, release_id,
    release_kind, analysis_id, number, field_key, field_position, field, x0, y0, x1, y1, class_index, class_name,
    region, confidence, probabilities, efficientnetv2_s_logits, resnetv2_50_logits, head_outline, head_length_um,
    head_width_um, head_area_um2, head_perimeter_um, ellipticity, elongation, roughness, regularity, acrosome_share,
    vacuole_share, midpiece_width_um, midpiece_angle_deg, class_code, class_name_tr, collected_at, day,
    crop_inside_share, not_counted
""",
        "Every classified cell of the lab",
    ),
}
BORDER = "lab = substr(session_user, 5) and starts_with(session_user, 'lab_')"


def upgrade() -> None:
    """The schema, its views, and the group of the roles that read them."""
    op.execute(
        "do $$ begin"
        " if not exists (select from pg_roles where rolname = 'morphbatch_lab') then"
        " raise exception 'the role morphbatch_lab is missing: run migrations/roles.sql as a superuser first';"
        " end if; end $$"
    )
    op.execute("create schema lab_reporting")
    for name, (columns, comment) in VIEWS.items():
        rows = f"{columns} from reporting.{name} where {BORDER}"
        op.execute(f"create view lab_reporting.{name} with (security_barrier) as {rows}")
        quoted = comment.replace("'", "''")
        op.execute(f"comment on view lab_reporting.{name} is '{quoted}'")
    op.execute(
        "do $$ begin execute format('grant connect on database %I to morphbatch_lab', current_database()); end $$"
    )
    op.execute("grant usage on schema lab_reporting to morphbatch_lab")
    op.execute("grant select on all tables in schema lab_reporting to morphbatch_lab")
    # A view calls functions with the rights of its reader, who cannot name those of a schema that is closed to them.
    op.execute("grant execute on all functions in schema reporting to morphbatch_lab")


def downgrade() -> None:
    """Without them; the roles are the server's."""
    op.execute("drop schema lab_reporting cascade")
    op.execute("revoke execute on all functions in schema reporting from morphbatch_lab")
    op.execute(
        "do $$ begin execute format('revoke connect on database %I from morphbatch_lab', current_database()); end $$"
    )
