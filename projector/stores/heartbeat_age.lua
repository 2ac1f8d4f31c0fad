#!lua
-- For how long the active projector has been silent, in milliseconds by the server's clock. After more than so many
-- another worker writes what keeps it from the work; that is no heartbeat.
-- KEYS: heartbeat    ARGV: worker, state, what keeps it (or empty), most milliseconds
local at = redis.call('HGET', KEYS[1], 'at')
if not at then
  return nil
end
local now = redis.call('TIME')
local age = now[1] * 1000 + math.floor(now[2] / 1000) - at
if ARGV[3] ~= '' and age > tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[1], 'worker', ARGV[1], 'state', ARGV[2], 'reason', ARGV[3], 'poison', '')
end
return age
