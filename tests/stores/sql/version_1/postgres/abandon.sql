-- A lease that lapsed earlier keeps its end: abandoning never extends it.
update {table}
set lease_until = least(lease_until, clock_timestamp())
where store_key = $1 and token = $2 and state = 0
