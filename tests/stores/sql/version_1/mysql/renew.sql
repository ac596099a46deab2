update {table}
set
    lease_until = utc_timestamp(6) + interval ? microsecond,
    expires_at = greatest(expires_at, utc_timestamp(6) + interval ? microsecond)
where store_key = ? and token = ? and state = 0
