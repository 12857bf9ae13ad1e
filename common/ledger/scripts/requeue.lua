-- requeue: jobs of some terminal state -> PENDING, with the same identity and one more attempt; an ended batch -> active
-- KEYS  1 batch  2 bs:active  3 bs:finishing  4 statistics  5 failures
-- ARGV  1 id  2 JSON [[first, count, state code, state, attempts so far]], each run within one table segment
--       3 '' or, when COMPLETED jobs are among them, JSON {output: [n, mean, m2, min, max]} of those that stay
-- returns {'requeued', token…}; or {'moved'} when a job is no longer in the state that is expected of it: nothing was written
local runs, size = cjson.decode(ARGV[2]), number(KEYS[1], 'record_size')
local per = number(KEYS[1], 'segment_jobs')
-- What was closed, by first job, with neighbours of one kind joined: a run may span several of them.
local closed, found = {}, {}
for _, entry in ipairs(redis.call('LRANGE', KEYS[1] .. ':closed', 0, -1)) do found[#found + 1] = cjson.decode(entry) end
table.sort(found, function(a, b) return a[1] < b[1] end)
for _, interval in ipairs(found) do
  local last = closed[#closed]
  if last and last[1] + last[2] == interval[1] and last[3] == interval[3] and last[4] == interval[4] then
    last[2] = last[2] + interval[2]
  else
    closed[#closed + 1] = interval
  end
end
if size == 0 or (ARGV[3] ~= '' and not redis.call('HGET', KEYS[1], 'ended')) then return {'moved'} end

local function where(run)
  local segment = math.floor((run[1] - 1) / per)
  return KEYS[1] .. ':table:' .. segment, (run[1] - 1 - segment * per) * size
end

local needed = 0
-- Takes a run out of the closed intervals; false when it is not in one of this state.
local function reopen(run)
  for i, interval in ipairs(closed) do
    local before, after = run[1] - interval[1], interval[1] + interval[2] - run[1] - run[2]
    if before >= 0 and after >= 0 and interval[3] == run[4] then
      table.remove(closed, i)
      if interval[4] == 'StopRule' then needed = needed + run[2] end
      if before > 0 then table.insert(closed, {interval[1], before, interval[3], interval[4]}) end
      if after > 0 then table.insert(closed, {run[1] + run[2], after, interval[3], interval[4]}) end
      return true
    end
  end
  return false
end

local blank = {}
for i, run in ipairs(runs) do
  local key, offset = where(run)
  local raw = redis.call('GETRANGE', key, offset, offset + run[2] * size - 1)
  raw = raw .. string.rep('\0', run[2] * size - #raw)
  local parts, has_record = {}, string.byte(raw, 1) ~= 0
  for job = 0, run[2] - 1 do
    local state = string.byte(raw, job * size + 1)
    if state ~= (has_record and run[3] or 0) then return {'moved'} end
    -- The attempt stays, so that a reader sees how often it was tried.
    parts[#parts + 1] = '\0' .. string.sub(raw, job * size + 2, job * size + 2) .. string.rep('\0', size - 2)
  end
  if not has_record and not reopen(run) then return {'moved'} end
  blank[i] = has_record and table.concat(parts) or ''
end

local followed = {}
for _, on in ipairs(cjson.decode(redis.call('HGET', KEYS[1], 'dependency') or '[]')) do
  if on[1] == 'aftercorr' then
    followed[#followed + 1] = on[2]
    redis.call('SADD', P .. 'unprimed', ARGV[1] .. ':' .. on[2])
  end
end
for i, run in ipairs(runs) do
  local key, offset = where(run)
  if blank[i] ~= '' then redis.call('SETRANGE', key, offset, blank[i]) end
  redis.call('HINCRBY', KEYS[1], run[4], -run[2])
  redis.call('HINCRBY', KEYS[1], 'PENDING', run[2])
  event(ARGV[1], 'requeued, was ' .. run[4], run[1], run[2])
  if #followed > 0 then
    -- What follows another batch waits for its elements there, once more.
    redis.call('ZADD', blocked_key(ARGV[1]), run[1], (new_range(ARGV[1], run[1], run[2], {base = run[5]})))
  else
    offer(ARGV[1], run[1], run[2], {base = run[5]})
  end
end
if needed > 0 then redis.call('HINCRBY', KEYS[1], 'needless', -needed) end
redis.call('DEL', KEYS[1] .. ':closed')
for _, interval in ipairs(closed) do redis.call('RPUSH', KEYS[1] .. ':closed', cjson.encode(interval)) end
for _, index in ipairs(redis.call('HKEYS', KEYS[5])) do
  for _, run in ipairs(runs) do
    if tonumber(index) >= run[1] and tonumber(index) < run[1] + run[2] then redis.call('HDEL', KEYS[5], index) end
  end
end
if ARGV[3] ~= '' then
  redis.call('DEL', KEYS[4])
  for output, m in pairs(cjson.decode(ARGV[3])) do
    redis.call('HSET', KEYS[4], output .. ':n', text(m[1]), output .. ':mean', text(m[2]), output .. ':m2', text(m[3]),
      output .. ':min', text(m[4]), output .. ':max', text(m[5]))
  end
end
redis.call('HDEL', KEYS[1], 'ended', 'finished', 'warnings')
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
-- What it waits for may have ended since.
decide(ARGV[1])
settle(ARGV[1])
decide_dependents(ARGV[1])
return {'requeued', unpack(tokens)}
