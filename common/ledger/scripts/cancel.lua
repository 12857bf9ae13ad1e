-- cancel: jobs PENDING | RUNNING -> CANCELLED; their ranges, waiting | parked | blocked | leased, -> shorter or gone
-- Costs the number of ranges, not of jobs: a job that never ran has no record, and is found in the batch's closed intervals.
-- KEYS  1 batch
-- ARGV  1 id  2 first and 3 last job  4 '' or the state that they must be in: PENDING or RUNNING
-- returns {jobs that were cancelled, token…}: the tokens are parts of a cut range, to be published
if redis.call('EXISTS', KEYS[1]) == 0 then return {0} end
local jobs = close(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 'CANCELLED', '', ARGV[4])
return {jobs, unpack(tokens)}
