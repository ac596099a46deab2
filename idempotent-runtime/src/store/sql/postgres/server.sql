-- What the server is.
select
    pg_is_in_recovery(),
    current_setting('fsync') = 'on',
    current_setting('synchronous_commit') <> 'off',
    current_setting('transaction_isolation') = 'read committed'
