-- claim: range waiting -> leased by a slot
-- The message that led here is a ticket for one range, not for a certain one: the batch that has had the least
-- of the slots is served. Its own range is preferred, so that with one batch the message tells the truth.
-- KEYS  1 bs:waiting  2 bs:leases  3 bs:clock
-- ARGV  1 batch and 2 token that the message names  3 worker  4 slot  5 lease, s  6 slice, s  7 most jobs (0: no limit)
-- returns {'leased', token, batch, first, count, crashes, token…}: the further tokens are parts that were cut off and are to
--         be published; or {'stale'} when nothing waits
local least = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #least == 0 then return {'stale'} end
local id = least[1]
local token = ARGV[2]
if id ~= ARGV[1] or not redis.call('ZSCORE', ranges_key(id), token) then
  token = redis.call('ZRANGE', ranges_key(id), 0, 0)[1]
end
redis.call('SET', KEYS[3], least[2])
take(id, token)
local range = redis.call('HMGET', range_key(token), 'first', 'count', 'crashes')
local first, count, crashes = tonumber(range[1]), tonumber(range[2]), range[3]
local reply = {'leased', token, id, first, count, crashes}
redis.call('ZADD', KEYS[2], text(now() + tonumber(ARGV[5])), token)
local most, idle = tonumber(ARGV[7]), idle_slots()
if most > 0 and count > most then
  reply[#reply + 1] = offer(id, first + most, count - most, 0)
  count = most
elseif idle > 0 and count > 1 then
  -- This slot might be at its first job for an hour: what others could run meanwhile is offered now.
  count = share(id, first, count, math.min(idle + 1, count), reply)
end
reply[5] = count
redis.call('HSET', range_key(token), 'count', count, 'worker', ARGV[3], 'slot', ARGV[4], 'since', text(now()))
local batch = batch_key(id)
redis.call('HINCRBY', batch, 'PENDING', -1)
redis.call('HINCRBY', batch, 'RUNNING', 1)
redis.call('HSETNX', batch, 'started', text(now()))
charge(id, tonumber(ARGV[6]))
return reply
