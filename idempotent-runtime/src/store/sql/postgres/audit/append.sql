insert into {audit} (at, event) values ({now}, convert_from({event}::bytea, 'UTF8'))
