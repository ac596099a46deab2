-- What a session of the store's own is set to. The comment is a part of the statement for MariaDB only: MySQL limits
-- the time of queries, but not of writes.
set session transaction isolation level read committed, read write;
set session autocommit = 1, innodb_lock_wait_timeout = {seconds} /*M!100100 , max_statement_time = {seconds} */
