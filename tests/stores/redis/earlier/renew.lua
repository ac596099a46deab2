-- Extends the lease, and the expiry to at least lease + ttl from now.
-- KEYS[1] the record. ARGV: token, lease, lease + ttl. Durations are milliseconds.
-- Returns 1 applied, 0 fenced, -1 missing.
local read = redis.call('HMGET', KEYS[1], 's', 't')
if not read[1] then return -1 end
if read[1] ~= 'R' or read[2] ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'l', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
