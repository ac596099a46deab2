-- Whether the tables of the records and of their versions exist, and whether each has the columns of version 2.
select
    (to_regclass('{table}') is not null)::int::bigint,
    (to_regclass('{versions}') is not null)::int::bigint,
    (select count(*) from pg_attribute
        where attrelid = to_regclass('{table}') and attname = 'purge_at' and not attisdropped),
    (select count(*) from pg_attribute
        where attrelid = to_regclass('{versions}') and attname = 'min_reader' and not attisdropped),
    (select count(*) from pg_attribute
        where attrelid = to_regclass('{table}') and attname = 'steps' and not attisdropped)
