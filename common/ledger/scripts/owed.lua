-- owed: moves nothing; how many tickets the courier should carry and does
-- KEYS  1 bs:waiting:<partition>  2 the partition's queue
-- ARGV  1 partition
-- returns {ranges that slots may take and some live worker can run, messages in the queue}
local waiting = 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if runnable(id, ARGV[1]) then waiting = waiting + claimable(id) end
end
return {waiting, redis.call('LLEN', KEYS[2])}
