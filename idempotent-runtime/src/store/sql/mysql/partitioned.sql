-- The same table in 16 partitions by a hash of the key. Run it once, by hand, before `migrate()`, which
-- adds the tables beside it; replace idempotency_records by the table's name.
create table if not exists idempotency_records_versions (
    version bigint not null primary key,
    applied_at datetime(6) not null,
    schema_version bigint,
    min_reader bigint
) engine = InnoDB;
create table idempotency_records (
    store_key binary(32) not null primary key,
    fingerprint binary(32) not null,
    token binary(16) not null,
    attempt int not null,
    -- 0 in flight, 1 completed, 2 tombstone
    state tinyint not null,
    lease_until datetime(6) not null,
    expires_at datetime(6) not null,
    trace_id binary(16),
    response longblob,
    -- When the purge looks at the record: set by the acquire, moved on by the purge, and untouched by the completion.
    purge_at datetime(6) not null default '1970-01-01 00:00:00',
    -- The token of a transactional claim. Of another token it says nothing: version 1 leaves it as it is.
    tx_token binary(16),
    -- For people who look at records.
    endpoint varchar(128) character set utf8mb4 collate utf8mb4_bin,
    created_at datetime(6),
    completed_at datetime(6),
    response_bytes int,
    -- What an execution in flight has appended to the log of its steps, behind its token.
    steps longblob,
    key idempotency_records_purge (purge_at)
) engine = InnoDB partition by key (store_key) partitions 16;
insert into idempotency_records_versions values (1, utc_timestamp(6), 2, 1);
