-- One migration at a time: held until the end of the transaction, also through a transaction pooler. The time-outs of
-- operations do not suit a migration, which waits for other migrations and may take long.
set local statement_timeout = 0;
set local lock_timeout = '60s';
select pg_advisory_xact_lock(hashtextextended('{versions}', 0));
