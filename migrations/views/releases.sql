-- Releases of the networks.

create view reporting.release as
select r.id as release_id, r.kind, r.active, r.created_at,
    case jsonb_typeof(r.document -> 'fusion' -> 'alpha') when 'number' then
        (r.document -> 'fusion' ->> 'alpha')::float8
    end as fusion_alpha,
    (r.document ->> 'crop_um')::float8 as crop_um, (r.document ->> 'crop_px')::integer as crop_px,
    r.document ->> 'git_commit' as git_commit, r.document ->> 'data_fingerprint' as data_fingerprint,
    r.document -> 'metrics' as metrics, (select count(*) from analysis a where a.release_id = r.id) as slides,
    case jsonb_typeof(r.document -> 'fusion' -> 'alpha') when 'array' then array(
        select share::float8 from jsonb_array_elements_text(r.document -> 'fusion' -> 'alpha')
            with ordinality given(share, place) order by place
    ) end as fusion_alpha_by_class,
    (r.document ->> 'minimum_crop_inside_share')::float8 as minimum_crop_inside_share
from model_release r;
comment on view reporting.release is 'One row per release of the networks; classes by `untrained` and `demonstration` ones mean nothing';
