-- Appends to the log of the execution's steps. It begins with the token that appended. The server makes no value that is
-- larger than its packet, and would store null instead.
update {table}
set steps = concat(case when substr(steps, 1, 16) = token then steps else token end, {steps})
where
    {held} and length(case when substr(steps, 1, 16) = token then steps else token end) = {at} + 16
    and {at} + length({steps}) + 1024 < @@session.max_allowed_packet
