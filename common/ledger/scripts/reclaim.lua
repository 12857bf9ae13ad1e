-- reclaim: leased -> waiting again under a new token, so that a late commit of the old holder is refused
-- KEYS  1 bs:leases
-- ARGV  1 '1' when the holder died or fell silent, '0' when it gives its range back in good order
--       2 crashes after which the job at the head of the range is FAILED  3 its record's first bytes
--       4 jobs in a table segment  5 most failures kept  6… tokens; none: all whose lease ran out
-- returns {token, batch, first, count, …} of the ranges that wait again, four entries each
local tokens = {}
for i = 6, #ARGV do tokens[#tokens + 1] = ARGV[i] end
if #tokens == 0 then tokens = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now()), 'LIMIT', 0, 1000) end
local reply = {}
for _, token in ipairs(tokens) do
  if redis.call('ZREM', KEYS[1], token) == 1 then
    local range = redis.call('HMGET', range_key(token), 'batch', 'first', 'count', 'crashes')
    local id, first, count, crashes = range[1], tonumber(range[2]), tonumber(range[3]), tonumber(range[4])
    local batch = batch_key(id)
    redis.call('DEL', range_key(token))
    redis.call('HINCRBY', batch, 'RUNNING', -1)
    redis.call('HINCRBY', batch, 'PENDING', 1)
    if ARGV[1] == '1' then
      crashes = crashes + 1
      redis.call('HINCRBY', batch, 'crashes', 1)
    end
    if crashes >= tonumber(ARGV[2]) then
      local per, size = tonumber(ARGV[4]), tonumber(redis.call('HGET', batch, 'record_size'))
      local segment = math.floor((first - 1) / per)
      local key = batch .. ':table:' .. segment
      redis.call('SETRANGE', key, (first - 1 - segment * per) * size, ARGV[3])
      redis.call('HINCRBY', batch, 'PENDING', -1)
      redis.call('HINCRBY', batch, 'FAILED', 1)
      if redis.call('HLEN', batch .. ':failures') < tonumber(ARGV[5]) then
        redis.call('HSET', batch .. ':failures', first, 'The process died ' .. crashes .. ' times while it ran this job.')
      end
      first, count, crashes = first + 1, count - 1, 0
    end
    if count > 0 then
      local fresh = offer(id, first, count, crashes)
      for _, value in ipairs({fresh, id, first, count}) do reply[#reply + 1] = value end
    else
      close_if_ended(id)
    end
  end
end
return reply
