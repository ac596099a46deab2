insert into {versions} (version, schema_version, min_reader) values (1, 2, 1)
on conflict (version) do update set schema_version = 2, min_reader = 1
