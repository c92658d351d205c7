-- The five roles, and what only a superuser can take from everybody. For a superuser, in the database of the service,
-- before `morphbatch migrate`; it may be run again. Passwords are set apart, by \password of psql.
--
--   morphbatch_owner    owns everything and runs the migrations
--   morphbatch_service  reads and writes rows, and creates nothing but temporary tables
--   morphbatch_analyst  reads schema `reporting`
--   morphbatch_lab      reads schema `lab_reporting`: a group; the role of a lab that is in it reads that lab's rows
--   morphbatch_scaler   reads schema `operations`: how much work there is, by which the workers are scaled

do $$
declare
    wanted text;
    refused regprocedure;
begin
    foreach wanted in array array[
        'morphbatch_owner', 'morphbatch_service', 'morphbatch_analyst', 'morphbatch_scaler', 'morphbatch_lab'
    ] loop
        if not exists (select from pg_roles where rolname = wanted) then
            execute format('create role %I', wanted);
        end if;
    end loop;
    execute format('alter database %I owner to morphbatch_owner', current_database());

    -- Large objects and messages in the log fill the disk without a table; advisory locks that a stranger takes stop
    -- migrations and the closing of batches.
    for refused in
        select oid from pg_proc
        where pronamespace = 'pg_catalog'::regnamespace
            and proname ~ '^(lo_|loread$|lowrite$|pg_(try_)?advisory_|pg_logical_emit_message$)'
    loop
        execute format('revoke execute on function %s from public', refused);
        if refused::text like '%advisory%' then
            execute format('grant execute on function %s to morphbatch_owner, morphbatch_service', refused);
        end if;
    end loop;
end $$;

-- A question must not take all connections, or fill the disk with what it sorts.
alter role morphbatch_analyst connection limit 10;
alter role morphbatch_scaler connection limit 5;
alter role morphbatch_analyst set temp_file_limit = '4GB';
