-- Reads the log of the execution's steps.
-- KEYS[1] the record. ARGV: token.
-- Returns {1, log}, {0} fenced, {-1} missing.
local read = redis.call('HMGET', KEYS[1], 's', 't', 'w')
if not read[1] then return {-1} end
if read[1] ~= 'R' or read[2] ~= ARGV[1] then return {0} end
return {1, read[3] or ''}
