-- adjust: batch -> the same with another hold, throttle, priority or max_fails; its ranges can be claimed from now on, or cannot;
-- with a max_fails that is exceeded already, open jobs -> ABORTED
-- KEYS  1 batch
-- ARGV  1 id  2 field: held, throttle, priority or max_fails  3 value
-- returns the tokens to publish
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
if redis.call('HGET', KEYS[1], ARGV[2]) == ARGV[3] then return {} end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
if ARGV[2] == 'max_fails' then
  enforce_max_fails(ARGV[1])
  return tokens
end
local partition = redis.call('HGET', KEYS[1], 'partition')
if ARGV[2] == 'priority' then
  -- What it was served until now was counted by another priority's clock: by this one's it could be owed days, or owe them.
  redis.call('HSET', KEYS[1], 'served', text(number(P .. 'clock', partition .. '/' .. ARGV[3])))
end
-- As if it came anew: with its new rank, and a ticket for each range that may be taken now.
redis.call('ZREM', P .. 'waiting:' .. partition, ARGV[1])
settle(ARGV[1])
return tokens
