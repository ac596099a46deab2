-- Whether the tables of the records and of their versions exist.
select
    cast(coalesce(sum(table_name = '{name}'), 0) as signed),
    cast(coalesce(sum(table_name = '{name}_versions'), 0) as signed)
from information_schema.tables
where table_schema = coalesce(nullif('{schema}', ''), database())
