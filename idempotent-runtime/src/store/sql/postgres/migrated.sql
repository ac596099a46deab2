insert into {versions} (version) values ($1)
