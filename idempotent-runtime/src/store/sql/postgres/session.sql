-- Sets up a session of the store's own. `synchronous_commit = off` is overridden: as a default it may suit other data,
-- but not claims.
select
    set_config('statement_timeout', $1, false),
    set_config('lock_timeout', $2, false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('default_transaction_read_only', 'off', false),
    case when current_setting('synchronous_commit') = 'off' then set_config('synchronous_commit', 'on', false) end
