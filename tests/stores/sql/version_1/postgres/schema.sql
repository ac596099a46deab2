-- The fill factor leaves room in each page for the update that completes a record.
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
    response bytea
) with (fillfactor = 70);
-- For the purge: its work is proportional to what has expired. The lease needs no index: no statement searches by it.
create index {index} on {table} (expires_at);
