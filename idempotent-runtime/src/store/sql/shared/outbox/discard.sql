delete from {outbox}
where seq = {seq} and state = 2
