-- Images: the same one in two slides.

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
where b.voided_at is null and ob.voided_at is null;
comment on view reporting.same_image is
    'One row per image and image of another slide of the lab: the same bytes, or in a closed batch the same picture';


create view reporting.shared_field as
select batch_key, lab, batch_id, received_on, slide_id, specimen, replicate, field_key, field,
    other_batch_key as first_batch_key, other_batch_id as first_batch_id, other_slide_id as first_slide_id,
    other_specimen as first_specimen, other_replicate as first_replicate
from reporting.same_image i
where other_field_key < field_key
    and other_field_key = (select min(other_field_key) from reporting.same_image e where e.field_key = i.field_key);
comment on view reporting.shared_field is
    'One row per field whose image the lab had sent before, in another slide: it may be counted twice';
