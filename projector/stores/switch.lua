#!lua
-- Makes another generation the one that queries are answered from, unless it shows less of the log than they have seen.
-- KEYS: generations, meta of the live generation, meta of the other
-- ARGV: live, other, channel, whether there are other partitions, which the caller has compared (yes or no)
-- Answers 1, or 0 when `live` is not the live one or the other is behind it.
local generations = KEYS[1]
if (redis.call('HGET', generations, 'live') or '1') ~= ARGV[1] then
  return 0
end
local from = redis.call('HMGET', KEYS[2], 'log_id', 'position')
local to = redis.call('HMGET', KEYS[3], 'log_id', 'position', 'ready_at')
if not to[1] or tonumber(to[2]) < tonumber(to[3]) then
  return 0
end
if ARGV[4] == 'no' and from[1] == to[1] and tonumber(from[2]) > tonumber(to[2]) then
  return 0
end
redis.call('HSET', generations, 'live', ARGV[2], 'previous', ARGV[1])
redis.call('HINCRBY', generations, 'switches', 1)
if redis.call('HGET', generations, 'building') == ARGV[2] then
  redis.call('HDEL', generations, 'building')
end
redis.call('PUBLISH', ARGV[3], to[1] .. '-' .. to[2])
return 1
