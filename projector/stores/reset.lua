#!lua
-- Starts a read model that was wiped: empty, at position 0 of a log.
-- KEYS: meta    ARGV: epoch, log_id, ready_at, generation, version of the projection's code, partitions
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] or redis.call('HEXISTS', KEYS[1], 'log_id') == 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'log_id', ARGV[2], 'position', '0', 'ready_at', ARGV[3], 'generation', ARGV[4],
  'code', ARGV[5], 'partitions', ARGV[6], 'hash', '')
return 1
