-- Whether the tables of the records and of their versions exist.
select
    count(case when name = '{name}' collate nocase then 1 end),
    count(case when name = '{name}_versions' collate nocase then 1 end)
from sqlite_master
where type = 'table'
