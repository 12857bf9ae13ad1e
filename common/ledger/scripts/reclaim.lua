-- reclaim: leased -> waiting again under a new token, so that a late commit of the old holder is refused
-- KEYS  1 bs:leases
-- ARGV  1 '1' when the holder was lost with its worker, or failed, '0' when it gives its range back in good order
--       2 seconds for which the range then runs job by job, so that the next loss names its job
--       3 losses of the same job, running alone, after which it is FAILED  4 first bytes of its record's rest, after state and
--       attempt  5 most failures kept  6 why the holder failed, '' when it was lost  7… tokens; none: all whose lease ran out
-- returns the tokens to publish
local given = {}
for i = 7, #ARGV do given[#given + 1] = ARGV[i] end
if #given == 0 then given = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now()), 'LIMIT', 0, 1000) end
for _, token in ipairs(given) do
  local r = redis.call('HMGET', range_key(token), 'batch', 'first', 'count', 'worker')
  if r[1] and unlease(r[1], token) then
    local id, first, count, like = r[1], tonumber(r[2]), tonumber(r[3]), traits(token)
    local batch = batch_key(id)
    redis.call('DEL', range_key(token))
    if ARGV[1] == '1' then
      like.crashes, like.lost, like.careful = like.crashes + 1, like.lost + 1, ARGV[2]
      redis.call('HINCRBY', batch, 'crashes', 1)
      if ARGV[6] == '' then event(id, 'worker lost', first, count, r[4]) else event(id, 'slot failed', first, count, ARGV[6]) end
    end
    if ARGV[1] == '1' and tonumber(like.crashes) >= tonumber(ARGV[3]) then
      write_record(id, first, string.char(3, math.min(255, like.base + like.tries + like.lost)) .. ARGV[4])
      redis.call('HINCRBY', batch, 'PENDING', -1)
      redis.call('HINCRBY', batch, 'FAILED', 1)
      if redis.call('HLEN', batch .. ':failures') < tonumber(ARGV[5]) then
        redis.call('HSET', batch .. ':failures', first, ARGV[6] == ''
          and 'The worker was lost ' .. like.crashes .. ' times while it ran this job.'
          or 'The slot failed ' .. like.crashes .. ' times at this job, at last so: ' .. ARGV[6])
      end
      first, count, like.crashes = first + 1, count - 1, 0
    end
    if count > 0 then offer(id, first, count, like, true) end
    if not enforce_max_fails(id) then
      settle(id)
      close_if_ended(id)
    end
  end
end
return tokens
