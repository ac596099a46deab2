-- How the server keeps commits, null for a setting that it does not have; and when the table was made.
select
    current_setting('fsync', true),
    current_setting('full_page_writes', true),
    current_setting('synchronous_commit', true),
    current_setting('synchronous_standby_names', true),
    (select extract(epoch from applied_at)::text from {versions} where version = 1)
