#!lua flags=no-writes
-- Where a partition stands, and the last sign of life of its projector with the time that it is now.
-- KEYS: meta, heartbeat, parked    ARGV: prefix of document keys, most records to show
-- Answers {{log_id, position, serve_from, generation, parking}, {at, worker, state, reason, poison}, {s, us}, number of
-- parked streams, record ...}
local out = {
  redis.call('HMGET', KEYS[1], 'log_id', 'position', 'serve_from', 'generation', 'parking'),
  redis.call('HMGET', KEYS[2], 'at', 'worker', 'state', 'reason', 'poison'),
  redis.call('TIME'),
  redis.call('ZCARD', KEYS[3]),
}
for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, ARGV[2] - 1)) do
  out[#out + 1] = redis.call('HGET', ARGV[1] .. id, 'parked')
end
return out
