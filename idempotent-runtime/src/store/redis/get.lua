-- Reads the record without changing it.
-- KEYS[1] the record.
-- Returns {} if it is absent, else {state, fingerprint, attempt, rest of the lease, time to live, trace id, response}.
-- An absent field is nil, a time to live of -1 means none, and times are milliseconds.
local read = redis.call('HMGET', KEYS[1], 's', 'f', 'a', 'l', 'i', 'r')
local left = redis.call('PTTL', KEYS[1])
if left == -2 then return {} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = tonumber(read[4])
if ends then ends = math.max(0, ends - now) else ends = false end
return {read[1], read[2], tonumber(read[3]) or false, ends, left, read[5], read[6]}
