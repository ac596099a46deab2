insert into {audit} (at, event) values ({now}, convert({event} using utf8mb4))
