-- owed: moves nothing; how many tickets the courier should carry and does
-- KEYS  1 bs:waiting  2 the queue's list
-- returns {ranges that wait, messages in the queue}
local waiting = 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do waiting = waiting + redis.call('ZCARD', ranges_key(id)) end
return {waiting, redis.call('LLEN', KEYS[2])}
