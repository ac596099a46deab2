-- Ends the lease now and keeps the record in flight: the outcome is unknown.
-- KEYS[1] the record. ARGV: token, command that publishes or '', head of the channel.
-- Returns 1 applied, 0 fenced, -1 missing.
local read = redis.call('HMGET', KEYS[1], 's', 't', 'l')
if not read[1] then return -1 end
if read[1] ~= 'R' or read[2] ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- A lease that lapsed earlier keeps its end: abandoning never extends it.
redis.call('HSET', KEYS[1], 'l', math.min(now, tonumber(read[3]) or now))
if ARGV[2] ~= '' then redis.pcall(ARGV[2], ARGV[3] .. '{' .. KEYS[1] .. '}', '') end
return 1
