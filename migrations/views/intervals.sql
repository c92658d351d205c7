-- What the views print beside counts: the Wilson score interval at 95 %, and whether two replicates agree.

create function reporting.wilson_low_pct(cells bigint, total bigint) returns double precision
language sql immutable parallel safe return
    case when total = 0 then null when cells = 0 then 0 else
        100 * ((cells::float8 / total + 3.8414588206941245 / (2 * total))
            - 1.959963984540054 * sqrt(cells::float8 / total * (1 - cells::float8 / total) / total
                + 3.8414588206941245 / (4 * total::float8 * total)))
        / (1 + 3.8414588206941245 / total)
    end;
comment on function reporting.wilson_low_pct(bigint, bigint) is
    'Lower bound, %, of the 95 % Wilson score interval of the share cells / total; null where total is 0';

create function reporting.wilson_high_pct(cells bigint, total bigint) returns double precision
language sql immutable parallel safe return 100 - reporting.wilson_low_pct(total - cells, total);
comment on function reporting.wilson_high_pct(bigint, bigint) is
    'Upper bound, %, of the 95 % Wilson score interval of the share cells / total; null where total is 0';


create function reporting.sum_of(cells jsonb) returns bigint
language sql immutable parallel safe return (
    select coalesce(sum(n::bigint), 0)::bigint from jsonb_each_text(cells) e (reason, n)
);
comment on function reporting.sum_of(jsonb) is 'Sum of the numbers of an object of cells by reason; 0 of null';


create function reporting.replicates_p(cells_1 bigint, total_1 bigint, cells_2 bigint, total_2 bigint)
returns double precision language sql immutable parallel safe return (
    select least(1, 2 * least(sum(weight) filter (where k <= cells_1), sum(weight) filter (where k >= cells_1))
        / sum(weight))
    from (
        select k, exp(log - max(log) over ()) as weight
        from (
            -- From one outcome to the next, the hypergeometric probability changes by this factor.
            select k, sum(case when k > greatest(0, cells_1 + cells_2 - total_2) then
                ln((total_1 - k + 1)::float8 * (cells_1 + cells_2 - k + 1)
                    / (k * (total_2 - cells_1 - cells_2 + k)::float8)) else 0 end) over (order by k) as log
            from generate_series(greatest(0, cells_1 + cells_2 - total_2), least(cells_1 + cells_2, total_1)) k
        ) step
    ) outcome
);
comment on function reporting.replicates_p(bigint, bigint, bigint, bigint) is
    'Fisher''s exact test of one share in two replicates, as twice the smaller tail: p, 0 to 1';

create function reporting.replicates_agree(cells_1 bigint, total_1 bigint, cells_2 bigint, total_2 bigint)
returns boolean language sql immutable parallel safe return
    case
        when coalesce(total_1, 0) < 200 or coalesce(total_2, 0) < 200 then null
        when total_1 = 200 and total_2 = 200 then abs(cells_1 - cells_2) <= 2 * (
            -- The WHO table: points by the mean, %, rounded half up and mirrored above 65.
            select case when m <= 0 then 1 when m <= 1 then 2 when m <= 2 then 3 when m <= 4 then 4 when m <= 7 then 5
                when m <= 11 then 6 when m <= 16 then 7 when m <= 23 then 8 when m <= 34 then 9 else 10 end
            from (select case when mean > 65 then 100 - mean else mean end as m
                from (select floor((cells_1 + cells_2) / 4.0 + 0.5) as mean) rounded) mirrored)
        else reporting.replicates_p(cells_1, total_1, cells_2, total_2) > 0.05
    end;
comment on function reporting.replicates_agree(bigint, bigint, bigint, bigint) is
    'Whether two replicates agree on a share: WHO table at 200 cells each, exact test at 0.05 above, null below';
