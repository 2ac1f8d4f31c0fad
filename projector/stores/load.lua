#!lua flags=no-writes
-- Documents together with the checkpoint they belong to.
-- KEYS: meta, documents ...
-- Answers {log_id, position, parked_revision, document ...}; what is not there is false.
local out = redis.call('HMGET', KEYS[1], 'log_id', 'position', 'parked_revision')
for i = 2, #KEYS do
  out[i + 2] = redis.call('HGET', KEYS[i], 'document')
end
return out
