-- A lease that lapsed earlier keeps its end: abandoning never extends it.
update {table}
set lease_until = min(lease_until, ?3)
where store_key = ?1 and token = ?2 and state = 0
