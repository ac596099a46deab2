-- The same table in 16 partitions by a hash of the key: each has indexes and a vacuum of its own. Run it before
-- `migrate()`, once, by hand, which then adds the tables beside it; replace idempotency_records by the table's name.
-- Version 1 of this crate must not use it.
create table if not exists idempotency_records_versions (
    version bigint not null primary key,
    applied_at timestamptz not null default now(),
    schema_version bigint,
    min_reader bigint
);
create table idempotency_records (
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
) partition by hash (store_key);
do $$
begin
    for n in 0..15 loop
        execute format(
            'create table %I partition of idempotency_records for values with (modulus 16, remainder %s) with (
                fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_scale_factor = 0.02)',
            'idempotency_records_' || n, n);
    end loop;
end
$$;
create index idempotency_records_purge on idempotency_records (purge_at);
insert into idempotency_records_versions (version, schema_version, min_reader) values (2, 2, 2);
