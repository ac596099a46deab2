select timestampdiff(microsecond, '1970-01-01', at), cast(event as binary)
from {audit}
order by id desc
limit {limit}
