-- Stores the outcome and publishes it.
-- KEYS[1] the record. ARGV: token, state (D completed, T tombstone), response, ttl in milliseconds, command
-- that publishes or '', head of the channel.
-- Returns 1 applied, 0 fenced, -1 missing. A missing record is never created: its lease is lost.
local key, token, state, response = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local read = redis.call('HMGET', key, 's', 't')
if not read[1] then return -1 end
if read[2] ~= token then return 0 end
if read[1] == 'R' then
  local time = redis.call('TIME')
  redis.call('HSET', key, 's', state, 'r', response, 'd', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('HDEL', key, 'l', 'w')
  redis.call('PEXPIRE', key, ARGV[4])
  -- Waking is an optimisation: an error, such as a missing permission to publish, must not fail the completion.
  if ARGV[5] ~= '' then redis.pcall(ARGV[5], ARGV[6] .. '{' .. KEYS[1] .. '}', '') end
  return 1
end
if read[1] ~= state or redis.call('HMGET', key, 'r')[1] ~= response then return 0 end
-- The reply to the first completion was lost. This write changes nothing, and makes a WAIT cover the outcome.
redis.call('HSET', key, 's', state)
return 1
