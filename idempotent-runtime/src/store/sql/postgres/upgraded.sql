-- The old index would cost each completion an update of all indexes. Purges of version 1 go on without it, slowly.
set local lock_timeout = '1s';
drop index if exists {in_schema}{index};
