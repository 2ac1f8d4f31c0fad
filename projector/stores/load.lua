#!lua flags=no-writes
-- Documents together with the checkpoint they belong to.
-- KEYS: meta, documents ...    ARGV: bytes
-- Answers {log_id, position, parked_revision, document ...}; what is not there is false. The last document is the one that
-- reaches the bytes.
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
local out, left = redis.call('HMGET', KEYS[1], 'log_id', 'position', 'parked_revision'), tonumber(ARGV[1])
for i = 2, #KEYS do
  local document = redis.call('HGET', KEYS[i], 'document')
  if document and #document >= PIECE then
    document = whole(KEYS[i], document)
  end
  out[i + 2] = document
  left = left - (document and #document or 0)
  if left <= 0 then
    break
  end
end
return out
