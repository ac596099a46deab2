-- The settings of the server and session that matter to the store.
select
    pg_is_in_recovery(),
    current_setting('fsync') = 'on',
    current_setting('synchronous_commit') <> 'off',
    current_setting('transaction_isolation') = 'read committed'
