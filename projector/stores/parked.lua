#!lua flags=no-writes
-- What is parked, by position, together with the checkpoint it belongs to.
-- KEYS: meta, parked    ARGV: prefix of document keys
-- Answers {log_id, position, parked_revision, record ...}
local out = redis.call('HMGET', KEYS[1], 'log_id', 'position', 'parked_revision')
for i, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  out[i + 3] = redis.call('HGET', ARGV[1] .. id, 'parked')
end
return out
