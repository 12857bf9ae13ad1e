-- claim: range waiting -> leased by a slot
-- The message that led here is a ticket for one range, not for a certain one: of its partition the batch with the highest
-- priority that has had the least of the slots is served. The ticket's own range is preferred, so that with one batch the
-- message tells the truth.
-- KEYS  1 bs:waiting:<partition>
-- ARGV  1 partition  2 batch and 3 token that the message names, '' without one  4 worker  5 slot  6 lease, s  7 slice, s
--       8 most jobs (0: no limit)  9… simulations besides the built-in that the worker has, as name:version
-- returns {'leased', token, batch, first, count, attempt, tries, careful, lost, crashes of the batch, token…}: the further
--         tokens are parts that were cut off and are to be published; or {'stale'} when nothing waits that the worker can run
local has = {['']=true}
for i = 9, #ARGV do has[ARGV[i]] = true end
local id = nil
for _, candidate in ipairs(redis.call('ZRANGE', KEYS[1], 0, MOST_CANDIDATES - 1)) do
  if has[redis.call('HGET', batch_key(candidate), 'requires') or ''] then
    id = candidate
    break
  end
end
-- Who comes without a ticket is given only what needs none: tickets of which slots take that cannot run the batch.
if not id or (ARGV[2] == '' and not contested(id, ARGV[1])) then return {'stale'} end
local token, oldest = ARGV[3], redis.call('ZRANGE', ranges_key(id), 0, 0, 'WITHSCORES')
-- What was lost with a slot comes before what the ticket names.
if id ~= ARGV[2] or tonumber(oldest[2]) < 0 or not redis.call('ZSCORE', ranges_key(id), token) then token = oldest[1] end
local batch, range = batch_key(id), range_key(token)
redis.call('ZREM', ranges_key(id), token)
lease(id, token, tonumber(ARGV[6]))
-- Who it is comes before anything is shared, or its slot would look free.
redis.call('HSET', range, 'worker', ARGV[4], 'slot', ARGV[5])
local r = redis.call('HMGET', range, 'first', 'count', 'base', 'tries', 'lost', 'careful')
local first, count = tonumber(r[1]), tonumber(r[2])
local most = tonumber(ARGV[8])
-- Before anything is shared, or the batch's own other ranges would look like work that is on its way.
settle(id)
if most > 0 and count > most then
  local like = traits(token)
  like.crashes = 0
  offer(id, first + most, count - most, like)
  count = most
else
  -- This slot might be at its first job for an hour: what others could run meanwhile is offered now.
  count = share(id, token, first, count)
end
redis.call('HSET', range, 'count', count, 'since', text(now()))
redis.call('HSETNX', batch, 'started', text(now()))
begin_slice(id, tonumber(ARGV[7]))
settle(id)
return {'leased', token, id, first, count, r[3] + 1 + r[4] + r[5], tonumber(r[4]), r[6], tonumber(r[5]),
  number(batch, 'crashes'), unpack(tokens)}
