-- The last of as many records as a page may look at; none if the page reaches the end.
select store_key
from {table}
where store_key > {after} and store_key >= {lowest} and store_key <= {highest}
order by store_key
limit 1 offset {offset}
