-- The settings of the server and session that matter to the store.
select
    pg_is_in_recovery(),
    current_setting('fsync') = 'on',
    current_setting('synchronous_commit') <> 'off',
    current_setting('full_page_writes') = 'on',
    -- With a standby that commits wait for, `local` does not.
    current_setting('synchronous_commit') <> 'local' or current_setting('synchronous_standby_names') = '',
    current_setting('transaction_isolation') = 'read committed'
