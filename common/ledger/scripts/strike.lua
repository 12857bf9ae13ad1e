-- strike: leased -> gone; the job with which its process died -> terminal, or waiting again alone; the others of the range ->
-- waiting
-- KEYS  1 bs:leases  2 range
-- ARGV  1 token  2 the job  3 state it ends in, or '' for a crash: another try, alone, until it has crashed too often
--       4 crashes after which it is FAILED  5 its record then  6 error text  7 most failures kept
-- returns {'stale'} when the lease is gone or the job is not in the range; else {'struck', ended, token…}
local range = redis.call('HMGET', KEYS[2], 'batch', 'first', 'count', 'slot')
if not range[1] or not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {'stale'} end
local id, first, count, like = range[1], tonumber(range[2]), tonumber(range[3]), traits(ARGV[1])
local job, last = tonumber(ARGV[2]), first + count - 1
if job < first or job > last then return {'stale'} end
local batch, state = batch_key(id), ARGV[3]
unlease(id, ARGV[1])
redis.call('DEL', KEYS[2])
local alone = {base = like.base, tries = like.tries, lost = like.lost + 1, crashes = (job == first and like.crashes or 0) + 1,
  careful = like.careful}
if state == '' then
  redis.call('HINCRBY', batch, 'crashes', 1)
  event(id, 'process died', job, 1, range[4])
  if alone.crashes >= tonumber(ARGV[4]) then state = 'FAILED' else offer(id, job, 1, alone, true) end
end
if state ~= '' then
  write_record(id, job, ARGV[5])
  redis.call('HINCRBY', batch, 'PENDING', -1)
  redis.call('HINCRBY', batch, state, 1)
  if redis.call('HLEN', batch .. ':failures') < tonumber(ARGV[7]) then
    redis.call('HSET', batch .. ':failures', job, ARGV[6])
  end
end
like.crashes = 0
if job > first then offer(id, first, job - first, like, true) end
if job < last then offer(id, job + 1, last - job, like, true) end
local aborted = enforce_max_fails(id)
if not aborted then settle(id) end
return {'struck', aborted and 1 or close_if_ended(id), unpack(tokens)}
