-- Reads the newest of what operators did.
-- KEYS[1] the stream. ARGV: how many.
return redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[1])
