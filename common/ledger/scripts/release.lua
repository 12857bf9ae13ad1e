-- release: parked -> waiting, for all whose time has come; stopping -> gone, for those that are not waited for any longer
-- KEYS  1 bs:parked
-- ARGV  1 most batches  2 '1' when also those that nobody has spoken of for too long are not waited for any longer
-- returns the tokens to publish
local time = text(now())
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', time, 'LIMIT', 0, ARGV[1])) do
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', parked_key(id), '-inf', time)) do
    redis.call('ZREM', parked_key(id), token)
    redis.call('ZADD', ranges_key(id), redis.call('HINCRBY', batch_key(id), 'last_range', 1), token)
    offered[id] = offered[id] or {}
    table.insert(offered[id], token)
  end
  note_parked(id)
  settle(id)
end
if ARGV[2] == '1' then
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', STOPPING, '-inf', time)) do stopped(token) end
end
return tokens
