-- adjust: batch -> the same with another hold, throttle or priority; its ranges can be claimed from now on, or cannot
-- KEYS  1 batch
-- ARGV  1 id  2 field: held, throttle or priority  3 value
-- returns the tokens to publish
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
if redis.call('HGET', KEYS[1], ARGV[2]) == ARGV[3] then return {} end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
-- As if it came anew: with its new rank, and a ticket for each range that may be taken now.
redis.call('ZREM', P .. 'waiting:' .. redis.call('HGET', KEYS[1], 'partition'), ARGV[1])
settle(ARGV[1])
return tokens
