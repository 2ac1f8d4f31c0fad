#!lua
-- The number of the generation to build beside the live one: the one that was begun, else a number never used before.
-- KEYS: generations    ARGV: name of the field for a generation's number of partitions, partitions
local building = redis.call('HGET', KEYS[1], 'building')
if building then
  return tonumber(building)
end
-- `last` may be lower than what is in use: where Redis was emptied while a generation was built.
local last = 1
for _, number in ipairs(redis.call('HMGET', KEYS[1], 'last', 'live', 'previous')) do
  last = math.max(last, tonumber(number or 1))
end
redis.call('HSET', KEYS[1], 'building', last + 1, 'last', last + 1)
if ARGV[2] ~= '1' then
  redis.call('HSET', KEYS[1], ARGV[1] .. (last + 1), ARGV[2])
end
return last + 1
