-- The messages that handlers put into the outbox in their transactions, until they are delivered.
create table if not exists {outbox} (
    seq bigint not null auto_increment primary key,
    message_id varchar(64) character set utf8mb4 collate utf8mb4_bin not null,
    -- Messages with the same are delivered in the order of `seq`: the digest of a key of the application's, or of the record.
    order_key binary(32) not null,
    topic varchar(128) character set utf8mb4 collate utf8mb4_bin not null,
    payload longblob not null,
    created_at datetime(6) not null,
    -- 0 pending, 1 delivered, 2 dead
    state tinyint not null default 0,
    -- Pending: when it may be claimed; claimed: when the claim ends. Delivered: when it is deleted. Dead: since when.
    due_at datetime(6) not null,
    attempts int not null default 0,
    claim binary(16),
    last_error text character set utf8mb4 collate utf8mb4_bin,
    key (state, due_at),
    key (order_key, state, seq),
    key (claim)
) engine = InnoDB
