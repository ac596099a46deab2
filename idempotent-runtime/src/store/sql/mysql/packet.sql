-- The largest packet of this session: the server's setting when the session began.
select cast(@@session.max_allowed_packet as signed)
