alter table {versions} add column schema_version bigint, add column min_reader bigint
