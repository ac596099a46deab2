select at, cast(event as blob)
from {audit}
order by id desc
limit {limit}
