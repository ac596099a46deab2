-- How this session's writes are logged. By name, because not every server has all of these variables.
show variables where variable_name in ('binlog_format', 'tx_isolation', 'transaction_isolation')
