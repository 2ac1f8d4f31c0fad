#!lua flags=allow-oom
-- Takes a generation out of use, before its keys are removed: from then on nobody can switch to it. What is left in
-- `dropping` by somebody who was killed is removed by the next one.
-- KEYS: generations    ARGV: generation
-- Answers 0 when it is the live one.
if (redis.call('HGET', KEYS[1], 'live') or '1') == ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'dropping', ARGV[1])
for _, field in ipairs({'previous', 'building'}) do
  if redis.call('HGET', KEYS[1], field) == ARGV[1] then
    redis.call('HDEL', KEYS[1], field)
  end
end
return 1
