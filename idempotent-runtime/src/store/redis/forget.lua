-- Deletes a completed record that an operator saw.
-- KEYS[1] the record. ARGV: fingerprint, attempt.
-- Returns 1 applied, 0 fenced, -1 missing.
local read = redis.call('HMGET', KEYS[1], 's', 'f', 'a')
if not read[1] then return -1 end
if read[1] == 'R' or read[2] ~= ARGV[1] or read[3] ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
return 1
