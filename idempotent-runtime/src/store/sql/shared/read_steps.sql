-- The log of the execution's steps, for the token that holds the record. The first 16 bytes name the token that appended, so
-- that a version of this crate without steps, which takes a record over and leaves the log as it is, leaves none.
select
    {int state}, token,
    case when state = 0 and token = {token} and substr(steps, 1, 16) = token then substr(steps, 17) end
from {table}
where store_key = {key}
