insert into {versions} (version, applied_at) values (?, utc_timestamp(6))
