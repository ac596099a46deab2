insert into {versions} (version, applied_at) values ({version}, utc_timestamp(6))
