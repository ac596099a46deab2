insert into {versions} (version) values ({version})
