-- share: range leased -> leased (shorter), its end waiting under a new token
-- Only a range whose holder is at a job for longer than a slice: it cannot share by itself before that job ends.
-- KEYS  1 bs:leases
-- ARGV  1 slice, s
-- returns {token, batch, first, count, …} of the ranges to publish, four entries each; none unless slots are idle
local idle = idle_slots()
if idle == 0 then return {} end
local longest, most = nil, 1
for _, token in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local range = redis.call('HMGET', range_key(token), 'count', 'since')
  if range[2] and tonumber(range[1]) > most and now() - tonumber(range[2]) > tonumber(ARGV[1]) then
    longest, most = token, tonumber(range[1])
  end
end
if not longest then return {} end
local range = redis.call('HMGET', range_key(longest), 'batch', 'first')
local tokens, reply = {}, {}
redis.call('HSET', range_key(longest), 'count', share(range[1], tonumber(range[2]), most, math.min(idle + 1, most), tokens))
for _, token in ipairs(tokens) do
  local part = redis.call('HMGET', range_key(token), 'first', 'count')
  for _, value in ipairs({token, range[1], tonumber(part[1]), tonumber(part[2])}) do reply[#reply + 1] = value end
end
return reply
