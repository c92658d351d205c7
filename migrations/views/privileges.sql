-- Who may do what. The roles are there before (`migrations/roles.sql`). Only the owner creates; PUBLIC may nothing.
-- The service also reads `alembic_version`, which is Alembic's and not made here.

do $$ begin
    execute format('revoke all on database %I from public', current_database());
    execute format('grant connect on database %I to morphbatch_analyst', current_database());
    -- Temporary tables are how many rows are written at once.
    execute format('grant connect, temporary on database %I to morphbatch_service', current_database());
    execute format('grant connect on database %I to morphbatch_scaler', current_database());
    execute format('grant connect on database %I to morphbatch_lab', current_database());
end $$;
revoke all on schema public from public;
grant usage on schema public to morphbatch_service;
grant usage on schema reporting to morphbatch_analyst, morphbatch_service;
grant usage on schema operations to morphbatch_service, morphbatch_scaler;
grant usage on schema lab_reporting to morphbatch_lab;

-- A function is executable by everybody unless this says otherwise; each is granted where it is wanted.
alter default privileges revoke execute on functions from public;
revoke execute on all functions in schema public, reporting, operations from public;
grant execute on all functions in schema reporting to morphbatch_analyst, morphbatch_service;
-- A view calls functions with the rights of its reader, who cannot name those of a schema that is closed to them.
grant execute on all functions in schema reporting to morphbatch_lab;
grant execute on function make_cell_partitions(date, integer) to morphbatch_service;

-- Views that a later revision adds need no grant of their own.
alter default privileges in schema reporting grant select on tables to morphbatch_analyst, morphbatch_service;
grant select on all tables in schema reporting to morphbatch_analyst, morphbatch_service;
grant select on all tables in schema lab_reporting to morphbatch_lab;
grant select on operations.outstanding, operations.outstanding_slide, operations.worker_speed
    to morphbatch_service, morphbatch_scaler;
grant execute on all functions in schema operations to morphbatch_service, morphbatch_scaler;
grant select on operations.open_batch to morphbatch_service;

-- Tables do, so that the service is given what it does with each.
grant select, insert on lab, slide, field, audit_event to morphbatch_service;
grant update (time_zone, tests, paused_at, paused_by, pause_why, window_opens, window_closes) on lab to morphbatch_service;
grant select, insert, update (expires_at, revoked_at, revoked_by) on api_token to morphbatch_service;
grant select, insert, update, delete on submission, api_request to morphbatch_service;
grant select, insert, update on batch, analysis, model_release to morphbatch_service;
-- What an analysis found stays: nobody but the owner can change it or take it away.
grant select, insert on cell, field_result, slide_class_count to morphbatch_service;
-- Whenever a batch is closed, what was noted of it is replaced.
grant select, insert, delete on same_picture to morphbatch_service;
grant select, insert, update on delivery_target, delivery to morphbatch_service;
grant select on review to morphbatch_service;
