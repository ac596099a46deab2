-- Ends the session of a transaction in doubt, and says whether it may not be ended: one that waits for its synchronous
-- standby has committed, and ending it would show a commit that no standby has.
select
    coalesce(wait_event = 'SyncRep', false),
    case when wait_event is distinct from 'SyncRep' then pg_terminate_backend(pid) end
from pg_stat_activity
where application_name = $1 and pid <> pg_backend_pid()
