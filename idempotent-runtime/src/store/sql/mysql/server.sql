-- The settings of the server and session that matter to the store.
select
    cast(@@global.max_allowed_packet as signed),
    cast(@@global.innodb_flush_log_at_trx_commit as signed),
    cast(cast(@@global.read_only as char) in ('1', 'ON') as signed),
    cast(@@session.autocommit as signed),
    -- With a binary log, a commit is flushed together with the log and no earlier.
    cast(@@global.log_bin = 1 and @@global.sync_binlog <> 1 as signed),
    cast(@@global.log_bin = 1 as signed),
    cast(cast(@@global.innodb_doublewrite as char) in ('0', 'OFF', 'DETECT_ONLY') as signed)
