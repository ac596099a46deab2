-- Which migrations the table has had.
create table if not exists {versions} (version integer not null primary key)
