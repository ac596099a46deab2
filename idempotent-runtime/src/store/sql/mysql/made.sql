-- When the table was made.
select cast(applied_at as char) from {versions} where version = 1
