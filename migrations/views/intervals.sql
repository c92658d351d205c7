-- The Wilson score interval at 95 %, as the views print it.

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
