-- unblock: blocked -> waiting: jobs of a batch whose elements in the batch that they follow have completed
-- KEYS  1 batch  2 bs:unprimed
-- ARGV  1 id  2 entry of bs:unprimed to remove, or ''  3… first, count of each run of jobs
-- returns the tokens to publish
if ARGV[2] ~= '' then redis.call('SREM', KEYS[2], ARGV[2]) end
if redis.call('EXISTS', KEYS[1]) == 1 then
  for i = 3, #ARGV, 2 do unblock(ARGV[1], tonumber(ARGV[i]), tonumber(ARGV[i + 1])) end
  if ARGV[2] ~= '' then decide(ARGV[1]) end
  settle(ARGV[1])
end
return tokens
