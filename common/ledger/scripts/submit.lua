-- submit: (nothing) -> batch with its jobs PENDING and its ranges waiting; or, rebuilt from its files, some jobs COMPLETED
-- KEYS  1 batch  2 bs:batches  3 bs:active  4 bs:startup  5 idempotency (or '')
-- ARGV  1 id  2 specification, JSON  3 jobs  4 incarnation  5 '1' for the start-up batch  6 idempotency lifetime, s (0: for ever)
--       7 size of a job record, bytes  8 jobs that are COMPLETED already, their records being in the table
--       9… first, count of each range
-- returns {'submitted', token…}, {'known', id} when the idempotency key has a batch already, or {'exists'} when the id has
local known = KEYS[5] ~= '' and redis.call('GET', KEYS[5])
if known then return {'known', known} end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'exists'} end
if KEYS[5] ~= '' then
  redis.call('SET', KEYS[5], ARGV[1])
  if ARGV[6] ~= '0' then redis.call('EXPIRE', KEYS[5], ARGV[6]) end
end
local created = text(now())
redis.call('HSET', KEYS[1], 'spec', ARGV[2], 'incarnation', ARGV[4], 'last_range', 0, 'record_size', ARGV[7], 'created', created,
  'PENDING', ARGV[3] - ARGV[8], 'RUNNING', 0, 'COMPLETED', ARGV[8], 'FAILED', 0, 'TIMEOUT', 0, 'OUT_OF_MEMORY', 0, 'NODE_FAIL', 0,
  'CANCELLED', 0, 'ABORTED', 0)
redis.call('ZADD', KEYS[2], created, ARGV[1])
redis.call('SADD', KEYS[3], ARGV[1])
if ARGV[5] == '1' then redis.call('SET', KEYS[4], ARGV[1]) end
local reply = {'submitted'}
for i = 9, #ARGV, 2 do
  reply[#reply + 1] = offer(ARGV[1], ARGV[i], ARGV[i + 1], 0)
end
close_if_ended(ARGV[1])
return reply
