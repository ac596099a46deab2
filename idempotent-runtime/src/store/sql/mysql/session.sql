-- Sets up a session of the store's own. The comment in the statement is executed by MariaDB only: MySQL can limit the
-- time of queries, but not of writes.
set session transaction isolation level read committed, read write;
set session autocommit = 1, innodb_lock_wait_timeout = {limit} /*M!100100 , max_statement_time = {limit} */
