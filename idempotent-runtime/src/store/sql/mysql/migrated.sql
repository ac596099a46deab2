insert into {versions} (version, applied_at, schema_version, min_reader) values (1, utc_timestamp(6), 2, 1)
on duplicate key update schema_version = 2, min_reader = 1
