-- cancel: jobs PENDING | RUNNING -> CANCELLED; their ranges, waiting | parked | blocked | leased, -> shorter or gone
-- Costs the number of ranges and spans, not of jobs: a job that never ran has no record, and is found in the batch's closed
-- intervals. All spans at once, so that nobody sees, or takes, what is between two of them.
-- KEYS  1 batch
-- ARGV  1 id  2 '' or the state that they must be in: PENDING or RUNNING  3… first, last job of each span, in order and apart
-- returns {jobs that were cancelled, token…}: the tokens are parts of a cut range, to be published
if redis.call('EXISTS', KEYS[1]) == 0 then return {0} end
local spans = {}
for i = 3, #ARGV, 2 do spans[#spans + 1] = {tonumber(ARGV[i]), tonumber(ARGV[i + 1])} end
local jobs = close_spans(ARGV[1], spans, 'CANCELLED', '', ARGV[2])
return {jobs, unpack(tokens)}
