delete from {table}
where store_key = ? and token = ? and state = 0
