#!lua
-- Marks the read model as written by this epoch, which fences every lower one, and answers where it stands.
-- KEYS: meta    ARGV: epoch
-- Answers {0, epoch stored} when a higher epoch has it, else {1, log_id, position, serve_from, generation, hash}.
local meta = KEYS[1]
local epoch = tonumber(redis.call('HGET', meta, 'epoch') or 0)
if epoch > tonumber(ARGV[1]) then
  return {0, epoch}
end
redis.call('HSET', meta, 'epoch', ARGV[1])
local stored = redis.call('HMGET', meta, 'log_id', 'position', 'serve_from', 'generation', 'hash')
return {1, stored[1], stored[2], stored[3], stored[4], stored[5]}
