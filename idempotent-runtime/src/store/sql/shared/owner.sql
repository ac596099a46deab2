select token, {int state}
from {table}
where store_key = {key}
