update {outbox}
set state = 0, attempts = 0, due_at = {now}, claim = null
where seq = {seq} and state = 2
