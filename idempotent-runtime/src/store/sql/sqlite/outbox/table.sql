-- The messages that handlers put into the outbox in their transactions, until they are delivered. Times are in microseconds
-- since 1970. Numbers are not used again, so that they keep the order.
create table if not exists {outbox} (
    seq integer primary key autoincrement,
    message_id text not null,
    -- Messages with the same are delivered in the order of `seq`: the digest of a key of the application's, or of the record.
    order_key blob not null,
    topic text not null,
    created_at integer not null,
    -- 0 pending, 1 delivered, 2 dead
    state integer not null default 0,
    -- Pending: when it may be claimed; claimed: when the claim ends. Delivered: when it is deleted. Dead: since when.
    due_at integer not null,
    attempts integer not null default 0,
    claim blob,
    last_error text,
    -- The last column, so that reading the others does not follow its overflow pages.
    payload blob not null,
    unique (state, due_at, seq),
    unique (order_key, state, seq)
)
