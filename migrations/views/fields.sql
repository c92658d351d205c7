-- Fields: focus, light, stain, what was left out.

create view reporting.quality_by_field as
select s.batch_key, s.lab, s.batch_id, s.received_on, s.slide_id, s.stain, s.um_per_px, f.position as field_position,
    f.key as field, f.kind, r.width_px, r.height_px,
    r.reason is null and s.state in ('done', 'insufficient') as used, r.reason, r.detail, r.cells,
    r.on_border, o.rejected as objects_rejected, o.by_reason as rejected_by_reason,
    (r.quality ->> 'focus_um')::float8 as focus_um, (r.quality ->> 'exposure_pct')::float8 as exposure_pct,
    (r.quality ->> 'clipped_pct')::float8 as clipped_pct, (r.quality ->> 'background_pct')::float8 as background_pct,
    (r.quality ->> 'unevenness_pct')::float8 as unevenness_pct, (r.quality ->> 'stain_od')::float8 as stain_od,
    array(select jsonb_array_elements_text(coalesce(r.quality -> 'flags', '[]'))) as flags,
    array(select jsonb_array_elements_text(coalesce(r.quality -> 'notes', '[]'))) as notes
from reporting.slide_result s
join field_result r on r.analysis_id = s.analysis_id
join field f on f.id = r.field_id
cross join lateral (
    select coalesce(sum(n) filter (where why <> 'border'), 0)::bigint as rejected,
        coalesce(jsonb_object_agg(why, n), '{}') as by_reason
    from (select item ->> 'reason' as why, count(*) as n from jsonb_array_elements(r.rejected) item group by 1) reasons
) o;
comment on view reporting.quality_by_field is 'One row per field: focus, light, stain, what was left out and why';
