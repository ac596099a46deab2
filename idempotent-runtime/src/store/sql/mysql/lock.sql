-- One migration at a time. The lock belongs to the session and ends with it. Its name has at most 64 characters and is
-- shared by the whole server. The time-out of operations does not suit a migration. (Only MariaDB has one for statements.)
set session autocommit = 1 /*M!100100 , max_statement_time = 0 */;
select cast(coalesce(get_lock('idempotent:{name}', 10), 0) as signed)
