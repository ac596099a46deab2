-- Appends what an operator did to a stream, whose entries carry the server's time. The oldest make room.
-- KEYS[1] the stream. ARGV: event, about how many to keep.
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'event', ARGV[1])
return 1
