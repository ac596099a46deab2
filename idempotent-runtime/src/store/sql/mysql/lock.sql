-- One migration at a time. The lock belongs to the session, and ends with it at the latest.
select cast(coalesce(get_lock(?, 10), 0) as signed)
