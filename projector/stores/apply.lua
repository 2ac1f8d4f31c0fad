#!lua
-- Applies one batch: documents, index entries, checkpoint and epoch, all or nothing.
-- KEYS: meta    ARGV: a MessagePack array
--   {prefix, epoch, expected log_id, expected position, position, hash, channel (empty: tell nobody), token,
--    {index, {place ...}} ... removed, {index, {0, place, 0, place ...}} ... added, {key, {field, value ...}} ...}
-- Numbers that are compared or stored come as decimal text: Lua's are doubles. Everything is MessagePack's `str`, which
-- is as safe for any bytes: the servers' cmsgpack does not know `bin`.
-- The empty shebang above makes the server refuse the script up front when it is out of memory or a replica,
-- rather than half-way.
local meta = KEYS[1]
local prefix, epoch, log_id, expected, position, hash, channel, token, removed, added, documents =
  unpack(cmsgpack.unpack(ARGV[1]))

local stored = redis.call('HMGET', meta, 'epoch', 'log_id', 'position')
if tonumber(stored[1] or 0) > tonumber(epoch) then
  return 'fenced'
end
if stored[2] ~= log_id or stored[3] ~= expected then
  return 'moved'
end

-- unpack() is limited to Lua's C stack (8,000 slots), so long lists go in slices; even, to keep pairs together.
local SLICE = 4000
local function call(command, key, list)
  for first = 1, #list, SLICE do
    redis.call(command, key, unpack(list, first, math.min(first + SLICE - 1, #list)))
  end
end

for _, entry in ipairs(removed) do
  call('ZREM', prefix .. entry[1], entry[2])
end
for _, entry in ipairs(added) do
  call('ZADD', prefix .. entry[1], entry[2])
end
for _, entry in ipairs(documents) do
  call('HSET', prefix .. entry[1], entry[2])
end
redis.call('HSET', meta, 'epoch', epoch, 'position', position, 'hash', hash)
if channel ~= '' then
  redis.call('PUBLISH', channel, token)
end
return 'applied'
