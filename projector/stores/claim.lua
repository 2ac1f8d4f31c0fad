#!lua
-- Marks the read model as written by this epoch, which fences every lower one, and answers its checkpoint.
-- KEYS: meta    ARGV: epoch, version of the projection's code (empty: whatever it is), partitions
-- Answers {0, epoch stored} when a higher epoch has it, {2, version} when other code folds it,
-- else {1, log_id, position, ready_at, generation, parked_revision, hash}. What was one of another number of partitions counts
-- as nothing: it was left over where other nodes of a Cluster were emptied.
local meta = KEYS[1]
local stored = redis.call('HMGET', meta, 'log_id', 'position', 'ready_at', 'generation', 'parked_revision', 'hash', 'code',
  'epoch', 'partitions')
local code = stored[7] or '1'
if stored[1] and ARGV[2] ~= '' and code ~= ARGV[2] then
  return {2, tonumber(code)}
end
local epoch = tonumber(stored[8] or 0)
if epoch > tonumber(ARGV[1]) then
  return {0, epoch}
end
redis.call('HSET', meta, 'epoch', ARGV[1])
if (stored[9] or '1') ~= ARGV[3] then
  return {1, false, false, false, false, false, false}
end
return {1, stored[1], stored[2], stored[3], stored[4], stored[5], stored[6]}
