-- How writes of this session go into the binary log. By name, because servers differ in which of these they have.
show variables where variable_name in ('binlog_format', 'tx_isolation', 'transaction_isolation')
