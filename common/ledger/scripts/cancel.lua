-- cancel: batch active -> ended; its ranges waiting | leased -> gone, its jobs PENDING | RUNNING -> CANCELLED
-- Costs the number of ranges, not of jobs: the job table keeps 0 for a job that never ran, which is read as CANCELLED.
-- KEYS  1 batch  2 bs:waiting  3 bs:leases  4 ranges of the batch
-- ARGV  1 id
-- returns the number of jobs that were cancelled; 0 when the batch had ended
local open = redis.call('HMGET', KEYS[1], 'PENDING', 'RUNNING')
if not open[1] then return 0 end
local jobs = tonumber(open[1]) + tonumber(open[2])
for _, token in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do redis.call('DEL', range_key(token)) end
redis.call('DEL', KEYS[4])
redis.call('ZREM', KEYS[2], ARGV[1])
for _, token in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  if redis.call('HGET', range_key(token), 'batch') == ARGV[1] then
    redis.call('ZREM', KEYS[3], token)
    redis.call('DEL', range_key(token))
  end
end
redis.call('HSET', KEYS[1], 'PENDING', 0, 'RUNNING', 0)
redis.call('HINCRBY', KEYS[1], 'CANCELLED', jobs)
close_if_ended(ARGV[1])
return jobs
