-- Schema `reporting`: what analysts ask. Percentages are 0 to 100, shares of a head 0 to 1, times UTC.
-- Its two tables hold what `services.taxonomy` and `services.reporting.references` state.

create schema reporting;
comment on schema reporting is 'Morphology results for analysts: commented views, read-only';


create table reporting.morphology_class (
    class_index smallint constraint pk_morphology_class primary key,
    class_name varchar not null constraint uq_morphology_class_name unique,
    region varchar not null,
    loinc varchar,
    class_code varchar not null constraint uq_morphology_class_class_code unique,
    class_name_tr varchar not null
);
comment on table reporting.morphology_class is 'The 18 classes, in the index order of every array of probabilities';


create table reporting.measure (
    measure varchar constraint pk_measure primary key,
    position smallint not null,
    unit varchar not null,
    meaning varchar not null,
    who_low double precision,
    who_high double precision,
    source varchar,
    who_stain varchar
);
comment on table reporting.measure is
    'The measures of a head, their units, and the WHO reference range of those that have one';
