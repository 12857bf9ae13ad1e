-- share: range leased -> leased (shorter), its end waiting under a new token
-- Only a range whose holder is at a job for longer than a slice: it cannot share by itself before that job ends.
-- KEYS  1 bs:leases
-- ARGV  1 partition  2 slice, s
-- returns the tokens to publish; none unless slots are idle
if idle_slots(ARGV[1]) == 0 then return {} end
local longest, most = nil, 1
for _, token in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local r = redis.call('HMGET', range_key(token), 'count', 'since', 'partition', 'batch', 'at_since')
  -- Since when it is at one job, as far as is known: one that goes from job to job will share by itself.
  local since = r[2] and math.max(tonumber(r[2]), tonumber(r[5] or '0'))
  if since and r[3] == ARGV[1] and tonumber(r[1]) > most and now() - since > tonumber(ARGV[2]) and room(r[4]) ~= 0 then
    longest, most = token, tonumber(r[1])
  end
end
if not longest then return {} end
local r = redis.call('HMGET', range_key(longest), 'batch', 'first')
redis.call('HSET', range_key(longest), 'count', share(r[1], longest, tonumber(r[2]), most))
settle(r[1])
return tokens
