-- The migrations that were applied to the table.
create table if not exists {versions} (version integer not null primary key)
