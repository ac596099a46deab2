-- The settings of the server and session that matter to the store. One that the server does not have is null.
select
    pg_is_in_recovery(),
    current_setting('transaction_isolation') = 'read committed',
    current_setting('fsync', true),
    current_setting('full_page_writes', true),
    current_setting('synchronous_commit', true),
    current_setting('synchronous_standby_names', true)
