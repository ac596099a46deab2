-- A lease that lapsed earlier keeps its end: abandoning never extends it.
update {table}
set lease_until = least(lease_until, utc_timestamp(6))
where store_key = ? and token = ? and state = 0
