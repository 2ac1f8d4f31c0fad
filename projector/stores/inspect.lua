#!lua flags=no-writes
-- Documents and members of indexes together with the position they are as of.
-- KEYS: meta, documents ..., indexes ...    ARGV: number of documents, and for each index: how many members, member ...
-- Answers {position, fields of a document ..., scores of the members of an index ...}; what is not there is false.
local documents, argument = tonumber(ARGV[1]), 2
local out = {redis.call('HGET', KEYS[1], 'position')}
for i = 2, #KEYS do
  if i <= documents + 1 then
    out[i] = redis.call('HGETALL', KEYS[i])
  else
    local last = argument + ARGV[argument]
    out[i] = redis.call('ZMSCORE', KEYS[i], unpack(ARGV, argument + 1, last))
    argument = last + 1
  end
end
return out
