-- The migrations that were applied to the table.
create table if not exists {versions} (
    version bigint not null primary key,
    applied_at timestamptz not null default now()
)
