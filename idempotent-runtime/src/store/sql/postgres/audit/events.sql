select (extract(epoch from at) * 1000000)::bigint, convert_to(event, 'UTF8')
from {audit}
order by id desc
limit {limit}::bigint
