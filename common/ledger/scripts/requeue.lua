-- requeue: jobs of some terminal state -> PENDING, with the same identity and one more attempt; an ended batch -> active
-- Refused while the batch's results files are being written: whoever writes them goes by the records.
-- KEYS  1 batch  2 bs:active  3 bs:finishing  4 statistics  5 failures
-- ARGV  1 id  2 JSON [[first, count, state code, state, attempts so far]], each run within one table segment
--       3 '' or, with the first COMPLETED jobs of a requeue, JSON {output: [n, mean, m2, min, max]} of those that stay after all of
--       its steps: a later one cannot set them any more, since slots have committed. A requeue that is cut short leaves them so
--       until finished.lua sets them
--       4 JSON [name of each reason code, '' for none]  5 bytes of an error's last line that its event keeps
-- returns {'requeued', token…}; or {'moved'} when a job is no longer in the state that is expected of it, or the batch has ended
-- and is not finished: nothing was written
local runs, size = cjson.decode(ARGV[2]), number(KEYS[1], 'record_size')
local per, reasons, most = number(KEYS[1], 'segment_jobs'), cjson.decode(ARGV[4]), tonumber(ARGV[5])
if size == 0 or (ARGV[3] ~= '' and not redis.call('HGET', KEYS[1], 'ended')) then return {'moved'} end
if redis.call('SISMEMBER', KEYS[3], ARGV[1]) == 1 then return {'moved'} end
local function earlier(a, b) return a[1] < b[1] end
table.sort(runs, earlier)

-- What was closed, by first job, with neighbours of one kind joined: a run may span several of them.
local function closed_intervals()
  local joined = {}
  local found = cjson.decode('[' .. table.concat(redis.call('LRANGE', KEYS[1] .. ':closed', 0, -1), ',') .. ']')
  table.sort(found, earlier)
  for _, interval in ipairs(found) do
    local last = joined[#joined]
    if last and last[1] + last[2] == interval[1] and last[3] == interval[3] and last[4] == interval[4] then
      last[2] = last[2] + interval[2]
    else
      joined[#joined + 1] = interval
    end
  end
  return joined
end
local closed, left, at, reopened, needed = closed_intervals(), {}, 1, false, 0

-- Takes a run out of the closed intervals and returns the reason of what it was in; nil when that is not one of this state.
-- The runs come in order, so each interval is looked at once: what is before the run is `left`, what is after it stays.
local function reopen(run)
  while closed[at] and closed[at][1] + closed[at][2] <= run[1] do
    left[#left + 1] = closed[at]
    at = at + 1
  end
  local interval = closed[at]
  if not interval or interval[3] ~= run[4] then return nil end
  local before, after = run[1] - interval[1], interval[1] + interval[2] - run[1] - run[2]
  if before < 0 or after < 0 then return nil end
  reopened = true
  if interval[4] == 'StopRule' then needed = needed + run[2] end
  if before > 0 then left[#left + 1] = {interval[1], before, interval[3], interval[4]} end
  if after > 0 then closed[at] = {run[1] + run[2], after, interval[3], interval[4]} else at = at + 1 end
  return interval[4]
end

local function where(run)
  local segment = math.floor((run[1] - 1) / per)
  return KEYS[1] .. ':table:' .. segment, (run[1] - 1 - segment * per) * size
end

local blank, why = {}, {}
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
  if has_record then why[i] = reasons[string.byte(raw, 8) + 1] or '' else why[i] = reopen(run) end
  if not why[i] then return {'moved'} end
  blank[i] = has_record and table.concat(parts) or ''
end

-- The run that a job is in, by its number in `runs`; nil when it is in none.
local function run_of(job)
  local low, high = 1, #runs + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if runs[middle][1] > job then high = middle else low = middle + 1 end
  end
  local run = runs[low - 1]
  if run and job < run[1] + run[2] then return low - 1 end
end

-- The last line of an error, cut between two characters when it is too long.
local function last_line(error)
  local text = string.match(error, '^(.*%S)') or ''
  local line = string.match(text, '.*\n(.*)') or text
  if #line <= most then return line end
  local cut = most
  while cut > 0 and string.byte(line, cut + 1) >= 0x80 and string.byte(line, cut + 1) < 0xC0 do cut = cut - 1 end
  return string.sub(line, 1, cut) .. '…'
end

-- What there was is told by one event for each former state and reason, whatever the number of runs.
local kinds, of_kind = {}, {}
local function kind_of(i)
  local name = runs[i][4] .. ' ' .. why[i]
  if not of_kind[name] then
    of_kind[name] = {state = runs[i][4], reason = why[i], runs = {}, errors = {}}
    kinds[#kinds + 1] = of_kind[name]
  end
  return of_kind[name]
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
  local told = kind_of(i).runs
  told[#told + 1] = run[1]
  told[#told + 1] = run[2]
  if #followed > 0 then
    -- What follows another batch waits for its elements there, once more.
    redis.call('ZADD', blocked_key(ARGV[1]), run[1], (new_range(ARGV[1], run[1], run[2], {base = run[5]})))
  else
    offer(ARGV[1], run[1], run[2], {base = run[5]})
  end
end
if needed > 0 then redis.call('HINCRBY', KEYS[1], 'needless', -needed) end
if reopened then
  for i = at, #closed do left[#left + 1] = closed[i] end
  redis.call('DEL', KEYS[1] .. ':closed')
  local entries = {}
  for i, interval in ipairs(left) do entries[i] = closed_entry(unpack(interval)) end
  in_bulk('RPUSH', KEYS[1] .. ':closed', entries)
end
for _, index in ipairs(redis.call('HKEYS', KEYS[5])) do
  local i = run_of(tonumber(index))
  if i then
    kind_of(i).errors[index] = last_line(redis.call('HGET', KEYS[5], index))
    redis.call('HDEL', KEYS[5], index)
  end
end
for _, kind in ipairs(kinds) do
  local told = kind.runs
  local first, last = told[1], told[#told - 1] + told[#told] - 1
  event(ARGV[1], 'requeued, was ' .. kind.state, first, last - first + 1, '',
    {runs = #told > 2 and told or nil, reason = kind.reason, errors = kind.errors})
end
if ARGV[3] ~= '' then set_statistics(KEYS[4], ARGV[3]) end
redis.call('HDEL', KEYS[1], 'ended', 'finished', 'warnings')
redis.call('SADD', KEYS[2], ARGV[1])
-- What it waits for may have ended since.
decide(ARGV[1])
settle(ARGV[1])
decide_dependents(ARGV[1])
return {'requeued', unpack(tokens)}
