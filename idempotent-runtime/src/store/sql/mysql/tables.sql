-- Whether the tables of the records and of their versions exist, and whether each has the columns of version 2.
select
    cast(coalesce(sum(table_name = '{name}' and column_name = 'store_key'), 0) as signed),
    cast(coalesce(sum(table_name = '{name}_versions' and column_name = 'version'), 0) as signed),
    cast(coalesce(sum(table_name = '{name}' and column_name = 'purge_at'), 0) as signed),
    cast(coalesce(sum(table_name = '{name}_versions' and column_name = 'min_reader'), 0) as signed),
    cast(coalesce(sum(table_name = '{name}' and column_name = 'steps'), 0) as signed)
from information_schema.columns
where table_schema = coalesce(nullif('{schema}', ''), database()) and table_name in ('{name}', '{name}_versions')
