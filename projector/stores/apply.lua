#!lua
-- Applies one batch: documents, index entries, what is parked, checkpoint and epoch, all or nothing.
-- KEYS: meta    ARGV: a MessagePack array
--   {prefix, epoch, expected log_id, expected position, position, hash, channel (empty: publish nothing),
--    runs of places removed, runs of (0, place) added, runs of (field, value) of documents,
--    keys of documents that must not be there, expected parked_revision, parked_revision, {key, document id, position, record} ... parked, {key, document id} ... unparked}
-- Runs are in one flat array, because a table for each would cost more than all else here: key, number of arguments,
-- arguments, then the next key.
-- Numbers that are compared or stored come as decimal text: Lua's are doubles. Everything is MessagePack's `str`, which
-- is as safe for any bytes: the servers' cmsgpack does not know `bin`.
-- The empty shebang above makes the server refuse the script up front when it is out of memory or a replica,
-- rather than half-way.
local meta = KEYS[1]
local prefix, epoch, log_id, expected, position, hash, channel, removed, added, documents, new,
  expected_revision, parked_revision, parked, unparked = unpack(cmsgpack.unpack(ARGV[1]))

local stored = redis.call('HMGET', meta, 'epoch', 'log_id', 'position', 'parked_revision')
if tonumber(stored[1] or 0) > tonumber(epoch) then
  return 'fenced'
end
if stored[2] ~= log_id or stored[3] ~= expected or (stored[4] or '') ~= expected_revision then
  return 'moved'
end

-- unpack() is limited to Lua's C stack (8,000 slots), so long runs go in slices; even, to keep pairs together.
local SLICE = 4000
local function write(command, runs)
  local call, unpack, at, ends = redis.call, unpack, 1, #runs
  while at < ends do
    local key, first, last = prefix .. runs[at], at + 2, at + 1 + runs[at + 1]
    while last - first >= SLICE do
      call(command, key, unpack(runs, first, first + SLICE - 1))
      first = first + SLICE
    end
    call(command, key, unpack(runs, first, last))
    at = last + 1
  end
end

for first = 1, #new, SLICE do
  local keys = {}
  for i = first, math.min(first + SLICE - 1, #new) do
    keys[#keys + 1] = prefix .. new[i]
  end
  if redis.call('EXISTS', unpack(keys)) > 0 then
    return 'exists'
  end
end

write('ZREM', removed)
write('ZADD', added)
write('HSET', documents)
for _, entry in ipairs(parked) do
  redis.call('HSET', prefix .. entry[1], 'parked', entry[4])
  redis.call('ZADD', prefix .. 'parked', entry[3], entry[2])
end
for _, entry in ipairs(unparked) do
  redis.call('HDEL', prefix .. entry[1], 'parked')
  redis.call('ZREM', prefix .. 'parked', entry[2])
end
redis.call('HSET', meta, 'epoch', epoch, 'position', position, 'hash', hash, 'parked_revision', parked_revision)
if channel ~= '' then
  redis.call('PUBLISH', channel, log_id .. '-' .. position)
end
return 'applied'
