-- Sets up a session of the store's own. The comment in the statement is executed by MariaDB only: MySQL can limit the
-- time of queries, but not of writes. A wait for a lock is shorter, so that what is known without it is answered in time.
set session transaction isolation level read committed, read write;
set session autocommit = 1, innodb_lock_wait_timeout = greatest({limit} div 2, 1) /*M!100100 , max_statement_time = {limit} */
