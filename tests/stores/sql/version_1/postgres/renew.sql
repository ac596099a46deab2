update {table}
set
    lease_until = clock_timestamp() + $3::bigint * interval '1 microsecond',
    expires_at = greatest(expires_at, clock_timestamp() + ($3 + $4::bigint) * interval '1 microsecond')
where store_key = $1 and token = $2 and state = 0
