-- Whether the tables of the records and of their versions exist.
select (to_regclass('{table}') is not null)::int::bigint, (to_regclass('{versions}') is not null)::int::bigint
