#!lua flags=allow-oom
-- Takes a generation out of use, before its keys are removed: from then on it cannot be switched to. What is left in
-- `dropping` by a process that was killed is removed by the next drop.
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
