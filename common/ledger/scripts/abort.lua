-- abort: jobs PENDING | RUNNING of a batch -> ABORTED; its ranges, wherever they are, -> gone
-- KEYS  1 batch
-- ARGV  1 id  2 reason
-- returns {jobs that were ended, token…}
if redis.call('EXISTS', KEYS[1]) == 0 then return {0} end
local jobs = close(ARGV[1], 1, math.huge, 'ABORTED', ARGV[2], '')
return {jobs, unpack(tokens)}
