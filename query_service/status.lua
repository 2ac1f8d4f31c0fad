#!lua flags=no-writes
-- The status of one partition of a read model.
-- KEYS: meta, heartbeat, parked    ARGV: prefix of document keys, maximum number of parked records
-- Answers {{log_id, position, ready_at, generation, parked_revision}, {at, worker, state, reason, poison}, {s, us} now,
-- number of parked streams, record ...}
local out = {
  redis.call('HMGET', KEYS[1], 'log_id', 'position', 'ready_at', 'generation', 'parked_revision'),
  redis.call('HMGET', KEYS[2], 'at', 'worker', 'state', 'reason', 'poison'),
  redis.call('TIME'),
  redis.call('ZCARD', KEYS[3]),
}
for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, ARGV[2] - 1)) do
  out[#out + 1] = redis.call('HGET', ARGV[1] .. id, 'parked')
end
return out
