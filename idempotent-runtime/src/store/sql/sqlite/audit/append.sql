insert into {audit} (at, event) values ({now}, cast({event} as text))
