-- How the server keeps commits, what identifies it, and how this session's writes are logged. By name, because not every
-- server has all of these variables.
show variables where variable_name in (
    'innodb_flush_log_at_trx_commit', 'innodb_doublewrite', 'log_bin', 'sync_binlog',
    'server_uuid', 'hostname', 'server_id', 'datadir', 'port',
    'binlog_format', 'tx_isolation', 'transaction_isolation'
)
