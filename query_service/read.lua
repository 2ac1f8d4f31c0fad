#!lua flags=no-writes
-- Many reads of one partition in one round trip, all as of one checkpoint.
-- KEYS: meta, documents ..., indexes ..., and for partition 0 also generations
-- ARGV: number of documents, number of indexes, prefix of document keys, digits of an entry before its id,
--       the live generation, its number of switches and of partitions as the reader knows them,
--       then for each index: where to start (`+`, or `(` and an entry), how many
-- Answers {{log_id, position, ready_at, generation, code}, {document, version, parked} ..., {next entry, summary ...} ...};
-- with several partitions, each summary comes after its entry. Documents after the one that reaches `BYTES` are not read,
-- but false. When another generation is live now, or was in between: {the live generation, switches, partitions}.
local BYTES = 4 * 1024 * 1024
local documents, indexes, prefix, digits = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])

local generations = KEYS[2 + documents + indexes]
if generations then
  local known = redis.call('HMGET', generations, 'live', 'switches')
  local live, switches = known[1] or '1', known[2] or '0'
  local partitions = redis.call('HGET', generations, 'partitions:' .. live) or '1'
  if live ~= ARGV[5] or switches ~= ARGV[6] or partitions ~= ARGV[7] then
    return {tonumber(live), tonumber(switches), tonumber(partitions)}
  end
end

-- A large document is stored in pieces, see projector/stores/pieces.py.
local PIECE = 16 * 1024
local function whole(key, piece)
  local pieces = {}
  while piece and #piece > 0 do
    pieces[#pieces + 1] = piece
    piece = #piece >= PIECE and redis.call('HGET', key, 'document.' .. #pieces)
  end
  return table.concat(pieces)
end

local out = {redis.call('HMGET', KEYS[1], 'log_id', 'position', 'ready_at', 'generation', 'code')}
local left = BYTES
for i = 2, 1 + documents do
  out[i] = left > 0 and redis.call('HMGET', KEYS[i], 'document', 'version', 'parked')
  local document = out[i] and out[i][1]
  if document and #document >= PIECE then
    document = whole(KEYS[i], document)
    out[i][1] = document
  end
  left = left - (document and #document or 0)
end

local divided = ARGV[7] ~= '1'
for i = 2 + documents, 1 + documents + indexes do
  local argument = 8 + 2 * (i - 2 - documents)
  local limit = tonumber(ARGV[argument + 1])
  -- One more than asked for tells whether there is a next page.
  local entries = redis.call('ZRANGE', KEYS[i], ARGV[argument], '-', 'BYLEX', 'REV', 'LIMIT', 0, limit + 1)
  local page = {#entries > limit and entries[limit] or false}
  for n = 1, math.min(limit, #entries) do
    if divided then
      page[#page + 1] = entries[n]
    end
    page[#page + 1] = redis.call('HGET', prefix .. string.sub(entries[n], digits + 1), 'summary')
  end
  out[i] = page
end
return out
