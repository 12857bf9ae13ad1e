-- differ: moves nothing; notes that a job gave other bytes at a later attempt
-- KEYS  1 batch
-- ARGV  1 id  2 job  3 attempt
-- returns 1, or 0 when the ledger does not know the batch
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
-- One example says enough: it stays, whatever else is found.
redis.call('HSETNX', KEYS[1], 'differed', ARGV[2] .. ' ' .. ARGV[3])
event(ARGV[1], 'gave other bytes than before', tonumber(ARGV[2]), 1, 'attempt ' .. ARGV[3])
return 1
