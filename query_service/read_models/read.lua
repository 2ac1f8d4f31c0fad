#!lua flags=no-writes
-- Many reads in one round trip, all as of one checkpoint of the live generation.
-- KEYS: generations, meta, documents ..., indexes ...
-- ARGV: generation that the keys are of, number of documents, prefix of document keys, digits of a place before its id,
--       then for each index: where to start (`+`, or `(` and a place), how many
-- Answers {{log_id, position, serve_from, generation}, {document, version} ..., {next place, summary ...} ...};
-- the live generation, when the keys are of another one.
local live = redis.call('HGET', KEYS[1], 'live') or '1'
if live ~= ARGV[1] then
  return tonumber(live)
end
local out = {redis.call('HMGET', KEYS[2], 'log_id', 'position', 'serve_from', 'generation')}
local documents, prefix, digits = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])

for i = 3, 2 + documents do
  out[i - 1] = redis.call('HMGET', KEYS[i], 'document', 'version')
end

for i = 3 + documents, #KEYS do
  local argument = 5 + 2 * (i - 3 - documents)
  local limit = tonumber(ARGV[argument + 1])
  -- One more than asked for tells whether there is a next page.
  local places = redis.call('ZRANGE', KEYS[i], ARGV[argument], '-', 'BYLEX', 'REV', 'LIMIT', 0, limit + 1)
  local page = {#places > limit and places[limit] or false}
  for n = 1, math.min(limit, #places) do
    page[n + 1] = redis.call('HGET', prefix .. string.sub(places[n], digits + 1), 'summary')
  end
  out[i - 1] = page
end
return out
