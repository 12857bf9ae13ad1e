-- renew: leased -> leased for longer, with the job at which its holder is; stopping -> waited for longer, as it is there still
-- KEYS  1 bs:leases
-- ARGV  1 lease, s  2… token, and the job that its holder is at (0: between jobs); one pair for each range
-- returns the tokens whose holders must stop: their lease had been lost, or that job is no longer in their range
local stop = {}
local until_ = text(now() + tonumber(ARGV[1]))
for i = 2, #ARGV, 2 do
  local token, at = ARGV[i], tonumber(ARGV[i + 1])
  if redis.call('ZSCORE', KEYS[1], token) then
    redis.call('ZADD', KEYS[1], until_, token)
    local r = redis.call('HMGET', range_key(token), 'first', 'count', 'at')
    if at >= tonumber(r[1]) + tonumber(r[2]) then stop[#stop + 1] = token end
    if at > 0 and at ~= tonumber(r[3] or '0') then
      redis.call('HSET', range_key(token), 'at', at, 'at_since', text(now()))
    end
  else
    redis.call('ZADD', STOPPING, 'XX', text(now() + STOPPING_SECONDS), token)
    stop[#stop + 1] = token
  end
end
return stop
