-- The largest packet that this session takes. It was the server's when the session began.
select cast(@@session.max_allowed_packet as signed)
