#!lua flags=no-writes
-- Many reads in one round trip, all as of one checkpoint.
-- KEYS: meta, documents ..., indexes ...
-- ARGV: number of documents, prefix of document keys, digits of a place before its id,
--       then for each index: where to start (`+`, or `(` and a place), how many
-- Answers {{log_id, position, serve_from, generation}, {document, version} ..., {next place, summary ...} ...}.
local out = {redis.call('HMGET', KEYS[1], 'log_id', 'position', 'serve_from', 'generation')}
local documents, prefix, digits = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])

for i = 2, 1 + documents do
  out[i] = redis.call('HMGET', KEYS[i], 'document', 'version')
end

for i = 2 + documents, #KEYS do
  local argument = 4 + 2 * (i - 2 - documents)
  local limit = tonumber(ARGV[argument + 1])
  -- One more than asked for tells whether there is a next page.
  local places = redis.call('ZRANGE', KEYS[i], ARGV[argument], '-', 'BYLEX', 'REV', 'LIMIT', 0, limit + 1)
  local page = {#places > limit and places[limit] or false}
  for n = 1, math.min(limit, #places) do
    page[n + 1] = redis.call('HGET', prefix .. string.sub(places[n], digits + 1), 'summary')
  end
  out[i] = page
end
return out
