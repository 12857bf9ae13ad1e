-- share: range leased -> leased (shorter), its end waiting under a new token
-- Only a range whose holder is at a job for longer than a slice: it cannot share by itself before that job ends. Of these the
-- one with the most jobs behind that job, among those of which something can be cut off: a long one that is at its last job, or
-- whose batch may have no more slots, keeps none of the others from being shared.
-- KEYS  1 bs:leases
-- ARGV  1 partition  2 slice, s
-- returns the tokens to publish; none unless slots are idle
if idle_slots(ARGV[1]) == 0 then return {} end
local longest, most = nil, 0
for _, token in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local r = redis.call('HMGET', range_key(token), 'first', 'count', 'since', 'partition', 'batch', 'at_since')
  -- Since when it is at one job, as far as is known: one that goes from job to job will share by itself.
  local since = r[3] and math.max(tonumber(r[3]), tonumber(r[6] or '0'))
  local behind = tonumber(r[1]) + tonumber(r[2]) - 1 - job_at(token)
  if since and r[4] == ARGV[1] and behind > most and now() - since > tonumber(ARGV[2])
    and room(r[5]) ~= 0 and free_slots(r[5], ARGV[1]) > 0 then
    longest, most = token, behind
  end
end
if not longest then return {} end
local r = redis.call('HMGET', range_key(longest), 'batch', 'first', 'count')
redis.call('HSET', range_key(longest), 'count', share(r[1], longest, tonumber(r[2]), tonumber(r[3])))
settle(r[1])
return tokens
