-- heartbeat: worker (unknown | alive) -> alive; others that are silent -> gone
-- KEYS  1 bs:workers  2 bs:worker_info  3 bs:slots  4 bs:partition_slots  5 bs:offers
-- ARGV  1 worker  2 what it says of itself, JSON with "slots", "partitions" and "simulations"; '' to sign off  3 silence that counts as gone, s
-- returns the number of live workers
if ARGV[2] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('ZADD', KEYS[1], text(now()), ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now() - tonumber(ARGV[3])))) do
  redis.call('ZREM', KEYS[1], name)
  redis.call('HDEL', KEYS[2], name)
end
local slots = 0
redis.call('DEL', KEYS[4], KEYS[5])
for _, info in ipairs(redis.call('HVALS', KEYS[2])) do
  local said = cjson.decode(info)
  slots = slots + said.slots
  for _, partition in ipairs(said.partitions) do
    redis.call('HINCRBY', KEYS[4], partition, said.slots)
    -- One that is leaving has no slots and takes nothing more.
    for _, name in ipairs(said.slots > 0 and said.simulations or {}) do
      redis.call('HINCRBY', KEYS[5], partition .. '/' .. name, said.slots)
    end
  end
end
redis.call('SET', KEYS[3], slots)
return redis.call('ZCARD', KEYS[1])
