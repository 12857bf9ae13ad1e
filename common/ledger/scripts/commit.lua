-- commit: range leased -> leased (shorter) | waiting again under a new token | gone; its jobs PENDING/RUNNING -> terminal
-- The one place where a result becomes true: records, counters and statistics move together, once.
-- KEYS  1 bs:leases  2 batch  3 range  4 statistics  5 failures  6 bs:waiting  7… table segments
-- ARGV  1 token  2 first job of the slice  3 jobs done  4 seconds used  5 slice, s  6 lease, s  7 '1' to give the rest back
--       8 JSON {state: jobs}  9 JSON {output: [n, mean, m2, min, max]}  10 JSON {index: error}  11 most failures kept
--       12… offset in the segment, records; one pair for each segment
-- returns {'stale'} when the lease is gone: nothing was written
--         {'shrunk', 0, first, count} when the range has only `count` jobs now: nothing was written, commit only those
--         {verdict, ended, first, count, token…}: verdict 'continue' (go on with first, count), 'released' (rest waits) or
--         'done'; ended 1 when this was the batch's last job; the tokens are ranges to publish
local token, done = ARGV[1], tonumber(ARGV[3])
local range = redis.call('HMGET', KEYS[3], 'batch', 'first', 'count', 'crashes')
if not range[1] or not redis.call('ZSCORE', KEYS[1], token) then return {'stale'} end
local id, first, count = range[1], tonumber(range[2]), tonumber(range[3])
-- The answer to the first try of this very commit was lost on the way: it is done, only say so.
if first ~= tonumber(ARGV[2]) then return {'continue', 0, first, count} end
-- The end of the range was given to an idle slot meanwhile: those jobs are its, their files are the same bytes.
if done > count then return {'shrunk', 0, first, count} end

for i = 12, #ARGV, 2 do
  redis.call('SETRANGE', KEYS[7 + (i - 12) / 2], ARGV[i], ARGV[i + 1])
end
for state, jobs in pairs(cjson.decode(ARGV[8])) do redis.call('HINCRBY', KEYS[2], state, jobs) end
for output, new in pairs(cjson.decode(ARGV[9])) do
  -- Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
  local old = redis.call('HMGET', KEYS[4], output .. ':n', output .. ':mean', output .. ':m2', output .. ':min', output .. ':max')
  local n, mean, m2, low, high = new[1], new[2], new[3], new[4], new[5]
  if old[1] then
    local on, delta = tonumber(old[1]), mean - tonumber(old[2])
    m2 = m2 + tonumber(old[3]) + delta * delta * on * n / (on + n)
    mean = tonumber(old[2]) + delta * n / (on + n)
    n, low, high = on + n, math.min(low, tonumber(old[4])), math.max(high, tonumber(old[5]))
  end
  redis.call('HSET', KEYS[4], output .. ':n', text(n), output .. ':mean', text(mean), output .. ':m2', text(m2),
    output .. ':min', text(low), output .. ':max', text(high))
end
for index, message in pairs(cjson.decode(ARGV[10])) do
  if redis.call('HLEN', KEYS[5]) < tonumber(ARGV[11]) then redis.call('HSET', KEYS[5], index, message) end
end

first, count = first + done, count - done
charge(id, tonumber(ARGV[4]) - tonumber(ARGV[5]))
if count == 0 then
  redis.call('ZREM', KEYS[1], token)
  redis.call('DEL', KEYS[3])
  redis.call('HINCRBY', KEYS[2], 'RUNNING', -1)
  redis.call('HINCRBY', KEYS[2], 'PENDING', 1 - done)
  return {'done', close_if_ended(id), 0, 0}
end

redis.call('HINCRBY', KEYS[2], 'PENDING', -done)
local crashes = done == 0 and range[4] or 0
local least = redis.call('ZRANGE', KEYS[6], 0, 0, 'WITHSCORES')
local other_first = #least > 0 and least[1] ~= id
  and tonumber(least[2]) < tonumber(redis.call('HGET', KEYS[2], 'served') or '0')
if ARGV[7] == '1' or other_first then
  redis.call('ZREM', KEYS[1], token)
  redis.call('DEL', KEYS[3])
  redis.call('HINCRBY', KEYS[2], 'RUNNING', -1)
  redis.call('HINCRBY', KEYS[2], 'PENDING', 1)
  return {'released', 0, 0, 0, offer(id, first, count, crashes)}
end

local reply, idle = {'continue', 0, first, count}, idle_slots()
if idle > 0 and count > 1 then
  count = share(id, first, count, math.min(idle + 1, count), reply)
  reply[4] = count
end
redis.call('HSET', KEYS[3], 'first', first, 'count', count, 'crashes', crashes, 'since', text(now()))
redis.call('ZADD', KEYS[1], text(now() + tonumber(ARGV[6])), token)
charge(id, tonumber(ARGV[5]))
return reply
