select cast(count(*) as signed)
from information_schema.tables
where table_schema = coalesce(?, database()) and table_name = ?
