-- Reads the record without changing it.
-- KEYS[1] the record.
-- Returns {} if it is absent, else {state, fingerprint, attempt, rest of the lease, time to live, trace id, response,
-- endpoint, whether the claim was transactional, when it was created, when completed}.
-- An absent field is nil, a time to live of -1 means none, and times are milliseconds.
local read = redis.call('HMGET', KEYS[1], 's', 'f', 'a', 'l', 'i', 'r', 'e', 't', 'm', 'c', 'd')
local left = redis.call('PTTL', KEYS[1])
if left == -2 then return {} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = tonumber(read[4])
if ends then ends = math.max(0, ends - now) else ends = false end
return {read[1], read[2], tonumber(read[3]) or false, ends, left, read[5], read[6],
  read[7], read[8] and read[8] == read[9] and 1 or 0, tonumber(read[10]) or false, tonumber(read[11]) or false}
