#!lua flags=allow-oom
-- Removes keys of a read model that is being reset; refused unless this epoch claimed it last. The checkpoint goes first, so
-- that no query and no projector takes a half-removed model for a whole one.
-- KEYS: meta, keys to remove ...    ARGV: epoch
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
  return 0
end
redis.call('HDEL', KEYS[1], 'log_id', 'position', 'ready_at', 'generation', 'code', 'hash', 'parked_revision',
  'partitions')
for i = 2, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
return 1
