-- The table, as a new one is created. The last eight bytes of the fingerprint are the digest of the caller.
--
-- The fill factor leaves room in each page for the update that completes a record. With no index on a column that this
-- update changes, it touches no index at all. Dead rows are vacuumed when they are 2 % of the table, and not 20 %.
create table {table} (
    store_key bytea not null primary key check (octet_length(store_key) = 32),
    fingerprint bytea not null,
    token bytea not null,
    attempt integer not null,
    -- 0 in flight, 1 completed, 2 tombstone
    state smallint not null,
    lease_until timestamptz not null,
    expires_at timestamptz not null,
    trace_id bytea,
    response bytea,
    -- When the purge looks at the record: set by the acquire, moved on by the purge, and untouched by the completion.
    purge_at timestamptz not null default 'epoch',
    -- The token of a transactional claim. Of another token it says nothing: version 1 leaves it as it is.
    tx_token bytea,
    -- For people who look at records.
    endpoint text check (octet_length(endpoint) <= 128),
    created_at timestamptz,
    completed_at timestamptz,
    response_bytes integer,
    -- What an execution in flight has appended to the log of its steps, behind its token.
    steps bytea
) with (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_scale_factor = 0.02
);
-- For the purge: its work is proportional to what is due.
create index {purge_index} on {table} (purge_at);
