-- What a lab itself may ask in SQL. A login role `lab_<code>`, member of `morphbatch_lab`, reads these views and nothing
-- else; each has the rows of that one lab. `session_user` is the role that logged in: no `set role` changes it.
-- A barrier: what the reader asks is computed after the border, so that no function or error of a query tells of other rows.

create schema lab_reporting;

create view lab_reporting.batch_overview with (security_barrier) as
select batch_key, lab, batch_id, state, received_on, received_at, closed_at, slides, slides_done,
    slides_insufficient, slides_quarantined, slides_open, fields, fields_used, cells, on_border, objects_rejected,
    release_ids, not_for_use, seconds, slides_pending, voided_at, voided_by, void_why, cells_not_counted
from reporting.batch_overview
where lab = substr(session_user, 5) and starts_with(session_user, 'lab_');
comment on view lab_reporting.batch_overview is 'One row per batch of the lab';

create view lab_reporting.slide_result with (security_barrier) as
select batch_key, lab, batch_id, received_on, slide_key, position, slide_id, specimen, replicate, stain, um_per_px,
    analysis_id, release_id, release_kind, state, reason, detail, attempts, started_at, finished_at, cells,
    on_border, objects_rejected, fields, fields_used, fields_set_aside, normal_cells, normal_pct, normal_low_pct,
    normal_high_pct, fewer_than_200_cells, seconds, timings, version, later_version, later_state, later_reason,
    later_detail, cells_not_counted, not_counted_by_reason
from reporting.slide_result
where lab = substr(session_user, 5) and starts_with(session_user, 'lab_');
comment on view lab_reporting.slide_result is 'One row per slide of the lab: its state and its normal forms. Not a diagnosis';

create view lab_reporting.class_distribution with (security_barrier) as
select batch_key, lab, batch_id, received_on, slide_id, specimen, replicate, stain, analysis_id, release_id,
    release_kind, class_index, class_name, region, cells, cells_total, pct, low_pct, high_pct, class_code,
    class_name_tr, cells_not_counted
from reporting.class_distribution
where lab = substr(session_user, 5) and starts_with(session_user, 'lab_');
comment on view lab_reporting.class_distribution is 'Cells of each class by slide of the lab';

create view lab_reporting.specimen_distribution with (security_barrier) as
select batch_key, lab, batch_id, received_on, specimen, stain, release_id, release_kind, slides, replicates,
    class_index, class_name, region, cells, cells_total, pct, low_pct, high_pct, replicate_1_cells,
    replicate_1_total, replicate_2_cells, replicate_2_total, replicates_agree, class_code, class_name_tr,
    cells_not_counted
from reporting.specimen_distribution
where lab = substr(session_user, 5) and starts_with(session_user, 'lab_');
comment on view lab_reporting.specimen_distribution is 'Cells of each class by specimen of the lab';

create view lab_reporting.analysis_history with (security_barrier) as
select batch_key, lab, batch_id, received_on, slide_key, slide_id, specimen, replicate, stain, analysis_id, version,
    counts, state, reason, detail, queued_at, asked_by, why, started_at, finished_at, release_id, release_kind,
    fused_from, software, detector, form, settings, made_with_sha256, cells, on_border, objects_rejected,
    normal_cells, normal_pct, normal_low_pct, normal_high_pct, cells_not_counted, not_counted_by_reason
from reporting.analysis_history
where lab = substr(session_user, 5) and starts_with(session_user, 'lab_');
comment on view lab_reporting.analysis_history is 'Every version of each slide''s analysis of the lab';

create view lab_reporting.cell with (security_barrier) as
select batch_key, lab, batch_id, received_on, slide_id, specimen, replicate, stain, um_per_px, release_id,
    release_kind, analysis_id, number, field_key, field_position, field, x0, y0, x1, y1, class_index, class_name,
    region, confidence, probabilities, efficientnetv2_s_logits, resnetv2_50_logits, head_outline, head_length_um,
    head_width_um, head_area_um2, head_perimeter_um, ellipticity, elongation, roughness, regularity, acrosome_share,
    vacuole_share, midpiece_width_um, midpiece_angle_deg, class_code, class_name_tr, collected_at, day,
    crop_inside_share, not_counted
from reporting.cell
where lab = substr(session_user, 5) and starts_with(session_user, 'lab_');
comment on view lab_reporting.cell is 'Every classified cell of the lab';
