-- abort: jobs PENDING | RUNNING -> ABORTED; their ranges, wherever they are, -> shorter or gone
-- With reason StopRule they count as `needless`, too: the batch has succeeded without them.
-- KEYS  1 batch
-- ARGV  1 id  2 reason  3 first and 4 last job
-- returns {jobs that were ended, token…}
if redis.call('EXISTS', KEYS[1]) == 0 then return {0} end
local jobs = close(ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), 'ABORTED', ARGV[2], '')
return {jobs, unpack(tokens)}
