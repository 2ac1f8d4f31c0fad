#!lua
-- The active projector's heartbeat, by the server's clock: the reader of it asks the same clock.
-- KEYS: heartbeat    ARGV: epoch, worker, state, what keeps it there, the event that does (JSON, or empty)
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0) > tonumber(ARGV[1]) then
  return 0
end
local now = redis.call('TIME')
local milliseconds = string.format('%d', now[1] * 1000 + math.floor(now[2] / 1000))
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'worker', ARGV[2], 'state', ARGV[3], 'at', milliseconds,
  'reason', ARGV[4], 'poison', ARGV[5])
return 1
