-- What a session of the store's own is set to. Who turned off that a commit waits for the disk cannot have meant this.
select
    set_config('statement_timeout', $1, false),
    set_config('lock_timeout', $2, false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('default_transaction_read_only', 'off', false),
    case when current_setting('synchronous_commit') = 'off' then set_config('synchronous_commit', 'on', false) end
