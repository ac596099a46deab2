-- Appends to the log of the execution's steps.
-- KEYS[1] the record. ARGV: token, length of the log before the append, what is appended.
-- Returns 1 applied, 0 fenced, -1 missing.
local read = redis.call('HMGET', KEYS[1], 's', 't', 'w')
if not read[1] then return -1 end
if read[1] ~= 'R' or read[2] ~= ARGV[1] then return 0 end
local log, at, bytes = read[3] or '', tonumber(ARGV[2]), ARGV[3]
if #log == at then
  redis.call('HSET', KEYS[1], 'w', log .. bytes)
  return 1
end
if string.sub(log, at + 1, at + #bytes) ~= bytes then return 0 end
-- The reply to the first append was lost. This write changes nothing, and makes a WAIT cover the step.
redis.call('HSET', KEYS[1], 's', 'R')
return 1
