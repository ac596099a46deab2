-- The messages that handlers put into the outbox in their transactions, until they are delivered. The constraints are the
-- indices of claims and of the order of messages: made with the table, so that no later migration locks it.
create table if not exists {outbox} (
    seq bigint generated always as identity primary key,
    message_id text not null,
    -- Messages with the same are delivered in the order of `seq`: the digest of a key of the application's, or of the record.
    order_key bytea not null,
    topic text not null,
    payload bytea not null,
    created_at timestamptz not null,
    -- 0 pending, 1 delivered, 2 dead
    state smallint not null default 0,
    -- Pending: when it may be claimed; claimed: when the claim ends. Delivered: when it is deleted. Dead: since when.
    due_at timestamptz not null,
    attempts integer not null default 0,
    claim bytea,
    last_error text,
    unique (state, due_at, seq),
    unique (order_key, state, seq)
)
