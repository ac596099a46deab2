-- Claims the record, or returns its state: every line of the state machine in one atomic step.
-- KEYS[1] the record. ARGV: token, fingerprint, lease, lease + ttl, lapsed lease to take over or '', trace id or '',
-- confirm (1 or 0). Durations are milliseconds; the clock is this server's.
-- Returns {0, attempt} acquired, {1, fingerprint of the record} mismatch, {2, rest of the lease, its token} in flight,
-- {3, response} completed, {4} tombstone, {5, token of the lapsed lease} unknown, {-1} unreadable.
local key, token, fingerprint, confirm = KEYS[1], ARGV[1], ARGV[2], ARGV[7]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A whole number as this script writes it, else nil: a corrupt number must not decide about a lease.
local function whole(text)
  local number = tonumber(text)
  if number and number >= 0 and number < 2 ^ 53 and number % 1 == 0 then return number end
end

-- A new lease. Only here the token changes and the attempt rises.
local function lease(attempt)
  redis.call('HSET', key, 's', 'R', 'f', fingerprint, 't', token, 'a', attempt,
    'l', now + ARGV[3], 'i', ARGV[6])
  -- In the same step, so that no record lacks an expiry or expires before its lease.
  redis.call('PEXPIRE', key, ARGV[4])
  return {0, attempt}
end

local read = redis.call('HMGET', key, 's', 'f', 't', 'a', 'l', 'r')
local state, attempt, ends = read[1], whole(read[4]), whole(read[5])
if not state then
  -- A key without a state is not one of this store's, and is not free.
  if redis.call('EXISTS', key) == 1 then return {-1} end
  return lease(1)
end
if not read[2] or #read[2] ~= 32 or not read[3] or #read[3] ~= 16 or not attempt then return {-1} end
if state == 'R' and not ends then return {-1} end

if state == 'R' and read[3] == token then
  -- The reply to the first acquire was lost: the caller owns the lease already. Never shorten the expiry.
  redis.call('HSET', key, 'l', now + ARGV[3])
  if redis.call('PTTL', key) < tonumber(ARGV[4]) then redis.call('PEXPIRE', key, ARGV[4]) end
  return {0, attempt}
end
-- Before any other answer: a different request must learn nothing about this one.
if read[2] ~= fingerprint then return {1, read[2]} end
if state == 'R' then
  if ends > now then return {2, ends - now, read[3]} end
  -- Only the lease that the caller saw lapse: it may have been taken over since.
  if ARGV[5] == read[3] then return lease(attempt + 1) end
  return {5, read[3]}
end
-- With confirmation, an outcome that the replicas may not have yet must not be replayed: writing the same expiry again
-- makes the WAIT that follows cover the outcome. A server at its memory limit accepts that, and would refuse an HSET.
if confirm == '1' then
  local left = redis.call('PTTL', key)
  if left > 0 then redis.call('PEXPIRE', key, left) end
end
if state == 'D' and read[6] then return {3, read[6]} end
if state == 'T' then return {4} end
return {-1}
