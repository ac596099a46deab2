-- Fails at once where a claim would wait for the handler's transaction of another. From MySQL 8.0 and MariaDB 10.3 on; an
-- earlier one refuses the statement, and the claim waits.
select {int state}
from {table}
where store_key = {key}
for update nowait
