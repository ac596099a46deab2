-- A lease that lapsed earlier keeps its end: abandoning never extends it.
update {table}
set lease_until = case when lease_until < {now} then lease_until else {now} end
where {held}
