-- Reads the record without changing it.
-- KEYS[1] the record. ARGV: '' for its response, 'size' for the size of the response in the place of its bytes.
-- Returns {} if it is absent, else {state, fingerprint, attempt, rest of the lease, time to live, trace id, response,
-- endpoint, whether the claim was transactional, when it was created, when completed, the time now}.
-- An absent field is nil, the rest of a lapsed lease is zero or negative, a time to live of -1 means none, and times are
-- milliseconds.
local read = redis.call('HMGET', KEYS[1], 's', 'f', 'a', 'l', 'i', 'e', 't', 'm', 'c', 'd')
local left = redis.call('PTTL', KEYS[1])
if left == -2 then return {} end
local response
if ARGV[1] == 'size' then
  response = redis.call('HSTRLEN', KEYS[1], 'r')
else
  response = redis.call('HMGET', KEYS[1], 'r')[1]
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = tonumber(read[4])
return {read[1], read[2], tonumber(read[3]) or false, ends and ends - now or false, left, read[5], response,
  read[6], read[7] and read[7] == read[8] and 1 or 0, tonumber(read[9]) or false, tonumber(read[10]) or false, now}
