-- submit: (nothing) -> batch with its jobs PENDING and its ranges waiting or blocked; or, rebuilt from its files, some jobs
-- COMPLETED
-- KEYS  1 batch  2 bs:batches  3 bs:active  4 bs:startup  5 idempotency (or '')
-- ARGV  1 id  2 specification, JSON  3 jobs  4 incarnation  5 '1' for the start-up batch  6 idempotency lifetime, s (0: for ever)
--       7 size of a job record, bytes  8 jobs in a table segment  9 jobs that are COMPLETED already, their records being in the
--       table  10 JSON {partition, priority, throttle, max_fails, held, dependency, outcomes, kill, cancelled, corr,
--       requires, until, rebuilt}
--       11… first, count of each range
-- returns {'submitted', token…}, {'exists'} when the id has a batch already, or {'known', id} when the idempotency key has one;
-- never that for a batch that is rebuilt: it was accepted once, whatever has its key now
local options = cjson.decode(ARGV[10])
if redis.call('EXISTS', KEYS[1]) == 1 then return {'exists'} end
local known = KEYS[5] ~= '' and redis.call('GET', KEYS[5])
if known and not options.rebuilt then return {'known', known} end
-- A key that expired may have been used again: it stands for the newest of its batches.
if KEYS[5] ~= '' and not (known and tonumber(known) > tonumber(ARGV[1])) then
  redis.call('SET', KEYS[5], ARGV[1])
  if ARGV[6] ~= '0' then redis.call('EXPIRE', KEYS[5], ARGV[6]) end
end
local id, created = ARGV[1], text(now())
redis.call('HSET', KEYS[1], 'spec', ARGV[2], 'incarnation', ARGV[4], 'last_range', 0, 'record_size', ARGV[7],
  'segment_jobs', ARGV[8], 'created', created, 'partition', options.partition, 'priority', options.priority,
  'throttle', options.throttle, 'requires', options.requires,
  'until', options['until'], 'max_fails', options.max_fails, 'held', options.held, 'kill', options.kill,
  'PENDING', ARGV[3] - ARGV[9], 'RUNNING', 0, 'COMPLETED', ARGV[9], 'FAILED', 0, 'TIMEOUT', 0, 'OUT_OF_MEMORY', 0,
  'NODE_FAIL', 0, 'CANCELLED', 0, 'ABORTED', 0, 'needless', 0)
redis.call('SADD', P .. 'partitions', options.partition)
redis.call('ZADD', KEYS[2], created, id)
redis.call('SADD', KEYS[3], id)
if ARGV[5] == '1' then redis.call('SET', KEYS[4], id) end
for i = 11, #ARGV, 2 do
  if options.corr then
    redis.call('ZADD', blocked_key(id), ARGV[i], (new_range(id, ARGV[i], ARGV[i + 1], {})))
  else
    offer(id, tonumber(ARGV[i]), tonumber(ARGV[i + 1]), {})
  end
end
-- Of a batch that is rebuilt: what had been cancelled stays so.
if #options.cancelled > 0 then close_spans(id, options.cancelled, 'CANCELLED', '', '') end
if #options.dependency > 0 then
  redis.call('HSET', KEYS[1], 'dependency', cjson.encode(options.dependency), 'outcomes', cjson.encode(options.outcomes))
  for _, on in ipairs(options.dependency) do
    redis.call('SADD', batch_key(on[2]) .. ':dependents', id)
    if on[1] == 'aftercorr' then
      redis.call('SADD', batch_key(on[2]) .. ':followers', id)
      -- What had completed there before is released by the housekeeper.
      redis.call('SADD', P .. 'unprimed', id .. ':' .. on[2])
    end
  end
  decide(id)
else
  settle(id)
end
close_if_ended(id)
return {'submitted', unpack(tokens)}
