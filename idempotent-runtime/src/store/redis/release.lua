-- Removes the record: nothing was executed.
-- KEYS[1] the record. ARGV: token, command that publishes or '', head of the channel.
-- Returns 1 applied, 0 fenced, -1 missing.
local read = redis.call('HMGET', KEYS[1], 's', 't')
if not read[1] then return -1 end
if read[1] ~= 'R' or read[2] ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[2] ~= '' then redis.pcall(ARGV[2], ARGV[3] .. '{' .. KEYS[1] .. '}', '') end
return 1
