-- finished: batch ended -> finished: its results files are written
-- KEYS  1 bs:finishing  2 batch  3 the finisher's claim, which ends with it  4 statistics
-- ARGV  1 id  2 what is suspicious about the results, JSON  3 the time at which it had ended when the finisher read its records
--       4 '' or JSON {output: [n, mean, m2, min, max]} as in the results files; those of a requeue that was cut short are wrong
-- returns 1; or 0, and nothing was written, when it was finished before, or was requeued and has ended again since
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return 0 end
if tonumber(redis.call('HGET', KEYS[2], 'ended')) ~= tonumber(ARGV[3]) then return 0 end
redis.call('SREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[2], 'finished', text(now()), 'warnings', ARGV[2])
if ARGV[4] ~= '' then set_statistics(KEYS[4], ARGV[4]) end
return 1
