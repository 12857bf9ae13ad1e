-- slot_number: slot name (unknown) -> known, with a number; a known one keeps its own
-- In one step: slots that start together must not get one number.
-- KEYS  1 bs:slot_numbers
-- ARGV  1 slot name  2 the highest number that a record holds; names beyond it share the lower ones
-- returns the number
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then return tonumber(known) end
local fresh = redis.call('HLEN', KEYS[1]) % tonumber(ARGV[2]) + 1
redis.call('HSET', KEYS[1], ARGV[1], fresh)
return fresh
