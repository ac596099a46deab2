-- The table, as a new one is created. The last eight bytes of the fingerprint are the digest of the caller.
--
-- A table with row ids, although its key is a primary key: in a table without row ids, large responses are stored
-- between the keys and slow down every search.
create table {table} (
    store_key blob not null primary key check (length(store_key) = 32),
    fingerprint blob not null,
    token blob not null,
    attempt integer not null,
    -- 0 in flight, 1 completed, 2 tombstone
    state integer not null,
    -- Microseconds since 1970, by the clock of this machine.
    lease_until integer not null,
    expires_at integer not null,
    trace_id blob,
    -- When the purge looks at the record: set by the acquire, moved on by the purge, and untouched by the completion.
    purge_at integer not null default 0,
    -- The token of a transactional claim. Of another token it says nothing: version 1 leaves it as it is.
    tx_token blob,
    -- For people who look at records.
    endpoint text,
    created_at integer,
    completed_at integer,
    response_bytes integer,
    -- What an execution in flight has appended to the log of its steps, behind its token.
    steps blob,
    -- The last column, so that reading the others does not follow its overflow pages.
    response blob
);
-- For the purge: its work is proportional to what is due.
create index {purge_index} on {table} (purge_at);
