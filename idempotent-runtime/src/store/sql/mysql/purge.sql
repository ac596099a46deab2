-- Only past expiry and not a live lease (contract, rule 6). From the first parameter on, in microseconds since 1970: what
-- was deleted before stays in the index until InnoDB has purged it, and each batch would pass all of it.
--
-- The rows are chosen by the index and locked first; the join in this order keeps the server from searching the whole
-- table for them. Servers that can (MySQL from 8.0.1, MariaDB from 10.6 on) do not wait for rows that another process
-- purges or somebody uses; the others do, for as long as they wait for a lock. What is deleted is looked at once more:
-- a record that was leased anew in between stays.
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
