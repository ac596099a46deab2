-- From version 1 to 2. Each new column has a default, so that statements of version 1 go on working.
alter table {table} add column purge_at integer not null default 0;
alter table {table} add column tx_token blob;
alter table {table} add column endpoint text;
alter table {table} add column created_at integer;
alter table {table} add column completed_at integer;
alter table {table} add column response_bytes integer;
create index {purge_index} on {table} (purge_at);
drop index if exists {index};
