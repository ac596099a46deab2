-- Only past expiry and not a live lease (contract, rule 6). Starts at the first parameter, in microseconds since 1970:
-- deleted rows stay in the index until InnoDB has purged them, and each batch would scan all of them.
--
-- The rows are chosen by the index and locked first; the join in this order keeps the server from searching the whole
-- table for them. Rows that another transaction has locked are skipped by servers that can (MySQL 8.0.1, MariaDB 10.6
-- and later); other servers wait for them until the lock time-out. The condition is checked again on deletion: a record
-- that was leased again meanwhile stays.
delete expired
from (
    select store_key
    from {table}
    where expires_at >= timestamp('1970-01-01') + interval ? microsecond
        and expires_at <= utc_timestamp(6)
        and (state <> 0 or lease_until <= utc_timestamp(6))
    order by expires_at
    limit ?
    for update /*!80001 skip locked */ /*M!100600 skip locked */
) as chosen
straight_join {table} as expired on expired.store_key = chosen.store_key
where expired.expires_at <= utc_timestamp(6) and (expired.state <> 0 or expired.lease_until <= utc_timestamp(6))
