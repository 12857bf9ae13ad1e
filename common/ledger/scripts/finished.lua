-- finished: batch ended -> finished: its results files are written
-- KEYS  1 bs:finishing  2 batch  3 the finisher's claim, which ends with it
-- ARGV  1 id  2 what is suspicious about the results, JSON
-- returns 1, or 0 when it was finished before
redis.call('DEL', KEYS[3])
if redis.call('SREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[2], 'finished', text(now()), 'warnings', ARGV[2])
return 1
