delete from {table}
where store_key = $1 and token = $2 and state = 0
