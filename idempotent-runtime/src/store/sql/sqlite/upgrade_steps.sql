-- The column that the first tables of version 2 do not have.
alter table {table} add column steps blob
