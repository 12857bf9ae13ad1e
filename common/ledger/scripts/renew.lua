-- renew: leased -> leased for longer
-- KEYS  1 bs:leases
-- ARGV  1 lease, s  2… tokens
-- returns the tokens whose lease had been lost
local lost = {}
local until_ = text(now() + tonumber(ARGV[1]))
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], until_, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
