alter table {versions} add column schema_version integer;
alter table {versions} add column min_reader integer;
