-- What was applied to the table. Version 1 of this crate works with a table whose highest `version` is 1; later ones read
-- which version the table has, and from which version on this crate works with it.
create table if not exists {versions} (
    version bigint not null primary key,
    applied_at datetime(6) not null,
    schema_version bigint,
    min_reader bigint
) engine = InnoDB
