-- Appends to the log of the execution's steps. It begins with the token that appended.
update {table}
set steps = case when substr(steps, 1, 16) = token then steps else token end || {steps}::bytea
where {held} and length(case when substr(steps, 1, 16) = token then steps else token end) = {at}::bigint + 16
