-- From version 1 to 2. Each new column has a default, so that statements of version 1 go on working, and none rewrites the
-- table. Waits for other transactions for a second at most, because operations queue up behind this wait.
set local lock_timeout = '1s';
alter table {table}
    add column if not exists purge_at timestamptz not null default 'epoch',
    add column if not exists tx_token bytea,
    add column if not exists endpoint text,
    add column if not exists created_at timestamptz,
    add column if not exists completed_at timestamptz,
    add column if not exists response_bytes integer,
    add column if not exists steps bytea,
    set (autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_scale_factor = 0.02);
alter table {versions}
    add column if not exists schema_version bigint,
    add column if not exists min_reader bigint;
