update {outbox}
set state = 0, attempts = 0, due_at = {now}
where seq = {seq} and state = 2
