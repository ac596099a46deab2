-- Whether the tables of the records and of their versions exist, and whether each has the columns of version 2.
select
    (select count(*) from sqlite_master where type = 'table' and name = '{name}' collate nocase),
    (select count(*) from sqlite_master where type = 'table' and name = '{name}_versions' collate nocase),
    (select count(*) from pragma_table_info('{name}') where name = 'purge_at'),
    (select count(*) from pragma_table_info('{name}_versions') where name = 'min_reader'),
    (select count(*) from pragma_table_info('{name}') where name = 'steps')
