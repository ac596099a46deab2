-- Appends to the log of the execution's steps. It begins with the token that appended.
update {table}
set steps = cast(case when substr(steps, 1, 16) = token then steps else token end || {steps} as blob)
where {held} and length(case when substr(steps, 1, 16) = token then steps else token end) = {at} + 16
