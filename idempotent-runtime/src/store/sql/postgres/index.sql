-- The index for the purge: 0 absent, 1 usable, 2 being made, 3 left by an attempt that failed.
select coalesce(
    (select case
        when indisvalid then 1
        when exists (select from pg_stat_progress_create_index where relid = indrelid) then 2
        else 3
    end
    from pg_index
    where indrelid = to_regclass('{table}')
        and indexrelid = (
            select oid from pg_class
            where relname = '{name}_purge'
                and relnamespace = (select relnamespace from pg_class where oid = to_regclass('{table}'))
        )),
    0)::bigint
