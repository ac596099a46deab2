-- Stores the outcome and wakes who waits for it.
-- KEYS[1] the record. ARGV: token, state (D completed, T tombstone), response, ttl in milliseconds, channel,
-- message.
-- Answers 1 applied, 0 fenced, -1 missing. A missing record is never created: its lease is lost.
local key, token, state, response = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local read = redis.call('HMGET', key, 's', 't', 'r')
if not read[1] then return -1 end
if read[2] ~= token then return 0 end
if read[1] == 'R' then
  redis.call('HSET', key, 's', state, 'r', response)
  redis.call('HDEL', key, 'l')
  redis.call('PEXPIRE', key, ARGV[4])
  -- An optimisation that must not undo the outcome, as where the user may not publish.
  redis.pcall('PUBLISH', ARGV[5], ARGV[6])
  return 1
end
if read[1] ~= state or read[3] ~= response then return 0 end
-- The reply to the first completion was lost. Nothing changes, but the write makes a WAIT cover it.
redis.call('HSET', key, 's', state)
return 1
