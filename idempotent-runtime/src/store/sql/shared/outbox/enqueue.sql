insert into {outbox} (message_id, order_key, topic, payload, created_at, due_at)
values ({message_id}, {order_key}, {topic}, {payload}, {now}, {now})
