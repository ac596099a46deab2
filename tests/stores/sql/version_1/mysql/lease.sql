-- A new lease of a record that has expired or lapsed. Only here the token changes and the attempt rises. A
-- compare-and-swap: of many contenders that read the same token, one changes it.
update {table}
set
    fingerprint = ?, token = ?, attempt = attempt + 1, state = 0,
    lease_until = utc_timestamp(6) + interval ? microsecond,
    expires_at = utc_timestamp(6) + interval ? microsecond,
    trace_id = ?, response = null
where
    store_key = ? and token = ?
    and (
        -- the lapsed lease that is to be taken over, and no other
        (state = 0 and lease_until <= utc_timestamp(6) and token = ? and fingerprint = ?)
        -- expired
        or (expires_at <= utc_timestamp(6) and (state <> 0 or lease_until <= utc_timestamp(6)))
    )
