-- Held until the end of the transaction, also through a transaction pooler.
select pg_advisory_xact_lock(hashtextextended($1, 0))
