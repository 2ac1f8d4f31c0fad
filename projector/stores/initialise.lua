#!lua
-- Sets the number of partitions of the first generation, unless the read model exists.
-- KEYS: generations, meta of generation 1    ARGV: name of the field, partitions
if redis.call('EXISTS', KEYS[1], KEYS[2]) == 0 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return 1
