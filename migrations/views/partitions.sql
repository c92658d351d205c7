-- Monthly partitions of `cell`, made ahead.

-- Runs with its owner's rights, since the service's role creates no tables. So it must not take a caller's temporary
-- objects for ours: pg_temp is searched last, and tables are named with their schema.
create function make_cell_partitions(from_month date, months integer) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    first_day date;
begin
    for i in 0 .. months - 1 loop
        first_day := date_trunc('month', from_month)::date + make_interval(months => i);
        if to_regclass(to_char(first_day, '"public.cell_"YYYY_MM')) is null then
            -- Two at once: the second waits here, then finds the table there.
            perform pg_advisory_xact_lock(hashtext('make_cell_partitions'));
            execute format(
                'create table if not exists public.%I partition of public.cell for values from (%L) to (%L)',
                to_char(first_day, '"cell_"YYYY_MM'), first_day, (first_day + interval '1 month')::date);
        end if;
    end loop;
end
$$;
