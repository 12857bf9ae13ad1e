-- commit: range leased -> leased (shorter) | waiting again under a new token | gone; its jobs PENDING/RUNNING -> terminal,
-- or -> PENDING once more, parked until their time, for those that are tried again
-- The one place where a result becomes true: records, counters and statistics move together, once.
-- KEYS  1 bs:leases  2 batch  3 range  4 statistics  5 failures  6… table segments
-- ARGV  1 token  2 first job of the slice  3 jobs done  4 seconds used  5 slice, s  6 lease, s  7 '1' to give the rest back, 'keep' to
--       keep all of it
--       8 JSON {states: {state: jobs}, moments: {output: [n, mean, m2, min, max]}, failures: {index: error},
--         retries: [[first, count, tries, delay in s, attempts before these tries, error]], completed: [[first, count]]}
--       9 most failures kept  10 the worker's queues of errands, with commas between  11 its partitions, likewise, each followed by
--       its queue of tickets
--       12… offset in the segment, records; one pair for each segment
-- returns {'stale'} when the lease is gone: nothing was written
--         {'shrunk', 0, first, count, careful} when the range has only `count` jobs now: nothing was written, commit only those
--         {verdict, ended, first, count, careful, token…}: verdict 'continue' (go on with first, count, and for `careful` seconds
--         job by job), 'released' (rest waits) or 'done'; ended 1 when this was the batch's last job; the tokens are ranges to
--         publish
local token, done, seconds, slice = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local range = redis.call('HMGET', KEYS[3], 'batch', 'first', 'count', 'worker', 'since')
if not range[1] or not redis.call('ZSCORE', KEYS[1], token) then return {'stale'} end
local id, first, count, like = range[1], tonumber(range[2]), tonumber(range[3]), traits(token)
-- The answer to the first try of this very commit was lost on the way: it is done, only say so.
if first ~= tonumber(ARGV[2]) then return {'continue', 0, first, count, like.careful} end
-- The end of the range was given to an idle slot, or cancelled: those jobs are no longer ours.
if done > count then return {'shrunk', 0, first, count, like.careful} end
local work = cjson.decode(ARGV[8])

for i = 12, #ARGV, 2 do
  redis.call('SETRANGE', KEYS[6 + (i - 12) / 2], ARGV[i], ARGV[i + 1])
end
for state, jobs in pairs(work.states) do redis.call('HINCRBY', KEYS[2], state, jobs) end
for output, new in pairs(work.moments) do
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
for index, message in pairs(work.failures) do
  if redis.call('HLEN', KEYS[5]) < tonumber(ARGV[9]) then redis.call('HSET', KEYS[5], index, message) end
end
local again = 0
for _, r in ipairs(work.retries) do
  local parked = new_range(id, r[1], r[2], {base = r[5], tries = r[3]})
  redis.call('ZADD', parked_key(id), text(now() + r[4]), parked)
  again = again + r[2]
  event(id, 'failed, tried again', r[1], r[2], r[6])
end
if again > 0 then note_parked(id) end

first, count = first + done, count - done
redis.call('HINCRBY', KEYS[2], 'PENDING', again - done)
charge(id, seconds - slice)
for _, run in ipairs(work.completed) do
  for _, follower in ipairs(redis.call('SMEMBERS', KEYS[2] .. ':followers')) do
    unblock(follower, run[1], run[2])
    settle(follower)
  end
end
if count == 0 then
  unlease(id, token)
  redis.call('DEL', KEYS[3])
else
  -- Who closes the batch now must not close what this slice has ended.
  redis.call('HSET', KEYS[3], 'first', first, 'count', count)
end
committing = token
if enforce_max_fails(id) then
  -- Who commits is at no job.
  stopped(token)
  return {'done', 1, 0, 0, 0, unpack(tokens)}
end
if count == 0 then
  settle(id)
  return {'done', close_if_ended(id), 0, 0, 0, unpack(tokens)}
end

local b = redis.call('HMGET', KEYS[2], 'held', 'throttle', 'RUNNING', 'partition', 'priority')
local least = next_batch(b[4], range[4] or '')
local next_range = redis.call('ZRANGE', ranges_key(id), 0, 0, 'WITHSCORES')
local urgent = #next_range > 0 and tonumber(next_range[2]) < 0
local other_first = urgent or least and least ~= id and score(least) < score(id)
-- Somebody has to take it, and all slots may be at long ranges. A message that is lost, or was taken, releases nothing.
local errand = false
for name in string.gmatch(ARGV[10], '[^,]+') do errand = errand or redis.call('LLEN', name) > 0 end
-- Another partition's batch may have no slots but those at this one's ranges. Each partition has a clock of its own, so only
-- priorities can be compared; equal ones take turns, as the queues do.
local rival = false
for partition, queue in string.gmatch(ARGV[11], '([^,]+),([^,]+)') do
  if not rival and partition ~= b[4] and redis.call('LLEN', queue) > 0 then
    local other = next_batch(partition, range[4] or '')
    rival = other and number(batch_key(other), 'priority') >= tonumber(b[5] or '0')
  end
end
local too_many = tonumber(b[2] or '0') > 0 and tonumber(b[3]) > tonumber(b[2])
if done > 0 then like.crashes = 0 end
-- Jobs that may have been in a lost worker's hands run one by one; then the range is like any other. What counts is how long that
-- has been so: of a short job its commit takes nearly all of the time.
like.careful = math.max(0, tonumber(like.careful) - math.max(seconds, now() - tonumber(range[5] or now())))
if like.careful == 0 then like.lost = 0 end
local keep = ARGV[7] == 'keep'
if not keep and (ARGV[7] == '1' or other_first or errand or rival or too_many or b[1] == '1') then
  unlease(id, token)
  redis.call('DEL', KEYS[3])
  offer(id, first, count, like)
  settle(id)
  return {'released', 0, 0, 0, 0, unpack(tokens)}
end

redis.call('HSET', KEYS[3], 'first', first, 'crashes', like.crashes, 'lost', like.lost, 'careful', text(like.careful))
if not keep then count = share(id, token, first, count) end
redis.call('HSET', KEYS[3], 'count', count, 'since', text(now()))
redis.call('ZADD', KEYS[1], text(now() + tonumber(ARGV[6])), token)
begin_slice(id, slice)
settle(id)
return {'continue', 0, first, count, text(like.careful), unpack(tokens)}
