-- A renewal never shortens the expiry.
update {table}
set
    lease_until = {now + lease},
    expires_at = case when expires_at > {now + lease + ttl} then expires_at else {now + lease + ttl} end
where {held}
