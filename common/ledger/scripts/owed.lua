-- owed: moves nothing; how many tickets the courier should carry and does
-- KEYS  1 bs:waiting:<partition>  2 the partition's queue
-- returns {ranges that slots may take, messages in the queue}
local waiting = 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do waiting = waiting + claimable(id) end
return {waiting, redis.call('LLEN', KEYS[2])}
