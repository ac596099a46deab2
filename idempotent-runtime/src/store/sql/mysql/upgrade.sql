-- From version 1 to 2, in one change that the server makes while others read and write. Each new column has a default, so
-- that statements of version 1 go on working.
alter table {table}
    add column purge_at datetime(6) not null default '1970-01-01 00:00:00',
    add column tx_token binary(16),
    add column endpoint varchar(128) character set utf8mb4 collate utf8mb4_bin,
    add column created_at datetime(6),
    add column completed_at datetime(6),
    add column response_bytes int,
    add key {purge_index} (purge_at),
    drop key {index},
    algorithm = inplace, lock = none
