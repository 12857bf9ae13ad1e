-- Put behind lib.lua in front of every script: records, the ends of jobs and batches, and what waits for them. No transition of
-- its own.

-- Writes one record.
local function write_record(id, index, record)
  local b = redis.call('HMGET', batch_key(id), 'record_size', 'segment_jobs')
  local segment = math.floor((index - 1) / tonumber(b[2]))
  redis.call('SETRANGE', batch_key(id) .. ':table:' .. segment, (index - 1 - segment * tonumber(b[2])) * tonumber(b[1]), record)
end

-- Replaces a batch's statistics by JSON {output: [n, mean, m2, min, max]}.
local function set_statistics(key, moments)
  redis.call('DEL', key)
  for output, m in pairs(cjson.decode(moments)) do
    redis.call('HSET', key, output .. ':n', text(m[1]), output .. ':mean', text(m[2]), output .. ':m2', text(m[3]),
      output .. ':min', text(m[4]), output .. ':max', text(m[5]))
  end
end

-- 'open', 'ok' or 'bad': how a batch stands; nil when the ledger does not know it. Jobs that its own stop rule made needless
-- are no failure.
local function outcome(id)
  local c = redis.call('HMGET', batch_key(id), 'spec', 'ended', 'ABORTED', 'needless', 'FAILED', 'TIMEOUT', 'OUT_OF_MEMORY',
    'NODE_FAIL', 'CANCELLED')
  if not c[1] then return nil end
  if not c[2] then return 'open' end
  if tonumber(c[3]) > tonumber(c[4] or '0') then return 'bad' end
  for i = 5, 9 do if tonumber(c[i]) > 0 then return 'bad' end end
  return 'ok'
end

local close_if_ended, close, close_spans
-- The range of whose commit this is, if any: its holder is at no job.
local committing = nil

-- Notes that an open job has begun its attempt, which ends without a result: a requeue counts on from there.
local function note_attempt(id, index, like)
  local rest = number(batch_key(id), 'record_size') - 2
  local attempt = math.min(255, like.base + 1 + like.tries + like.lost)
  write_record(id, index, '\0' .. string.char(attempt) .. string.rep('\0', rest))
end

-- Takes jobs [low, high] out of a range in `set`: what is before stays, what is after becomes a range of its own there, with
-- the range's rank (in a blocked set, its first job's). Returns the range's traits and the token of what is after.
local function carve(id, set, token, low, high)
  local r = redis.call('HMGET', range_key(token), 'first', 'count')
  local first, last, like = tonumber(r[1]), tonumber(r[1]) + tonumber(r[2]) - 1, traits(token)
  local rest = nil
  -- The crashes are those of the job at the head, which is no longer there.
  like.crashes = 0
  if high < last then
    rest = new_range(id, high + 1, last - high, like)
    redis.call('ZADD', set, set == blocked_key(id) and high + 1 or redis.call('ZSCORE', set, token), rest)
  end
  if low > first then
    redis.call('HSET', range_key(token), 'count', low - first)
  else
    redis.call('ZREM', set, token)
    redis.call('DEL', range_key(token))
  end
  return like, rest
end

-- Looks at a batch's dependencies again: what is unmet, and what can never be met as things stand.
local function decide(id)
  local key = batch_key(id)
  local b = redis.call('HMGET', key, 'dependency', 'outcomes', 'started', 'kill', 'ended')
  if not b[1] or b[5] then return end
  local known = cjson.decode(b[2] or '{}')
  -- `left` has elements of aftercorr that cannot be released any more; the batch's others may run.
  local unmet, never, left = 0, 0, 0
  for _, on in ipairs(cjson.decode(b[1])) do
    local kind, state = on[1], outcome(on[2]) or known[tostring(on[2])] or 'open'
    if kind == 'aftercorr' then
      -- What had completed before this batch came is released by the housekeeper, which must have looked. The other may
      -- have succeeded: a job that its stop rule made needless has no result to go on with.
      if state ~= 'open' and redis.call('ZCARD', blocked_key(id)) > 0
        and redis.call('SISMEMBER', P .. 'unprimed', id .. ':' .. on[2]) == 0 then left = left + 1 end
    else
      local hopeless = (kind == 'afternotok' and state == 'ok') or (kind == 'afterok' and state == 'bad')
      if hopeless then never = never + 1 end
      if hopeless or state == 'open' then unmet = unmet + 1 end
    end
  end
  -- What has begun is neither held up again nor given up for a rerun of what it waited for.
  if b[3] then unmet, never = 0, 0 end
  local kill = b[4] == '1'
  -- With `kill` the elements that are left are cancelled, and nothing more waits for them.
  redis.call('HSET', key, 'unmet', unmet, 'never', never + (kill and 0 or left))
  if kill and never + left > 0 then
    close(id, 1, math.huge, 'CANCELLED', 'DependencyNeverSatisfied', never == 0 and 'BLOCKED' or '')
  else
    settle(id)
  end
end

local function decide_dependents(id)
  for _, other in ipairs(redis.call('SMEMBERS', batch_key(id) .. ':dependents')) do decide(other) end
end

-- Closes the batch when its last job has ended; returns 1 then, else 0.
close_if_ended = function(id)
  local key = batch_key(id)
  local open = redis.call('HMGET', key, 'PENDING', 'RUNNING')
  if tonumber(open[1]) > 0 or tonumber(open[2]) > 0 then return 0 end
  if redis.call('SREM', P .. 'active', id) == 0 then return 0 end
  redis.call('HSET', key, 'ended', text(now()))
  redis.call('SADD', P .. 'finishing', id)
  decide_dependents(id)
  return 1
end

-- The last of `spans` ({a, b}, in order and apart) that begins at or before this job, by its number; 0 when none does. Who
-- goes down from there meets the last one first: so what is cut off behind a span is met by no other one.
local function last_span(spans, job)
  local low, high = 1, #spans + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if spans[middle][1] > job then high = middle else low = middle + 1 end
  end
  return low - 1
end

-- One command with any number of arguments behind its key, if it has one.
local function in_bulk(command, key, arguments)
  for i = 1, #arguments, MOST_TOKENS do
    local last = math.min(i + MOST_TOKENS - 1, #arguments)
    if key then redis.call(command, key, unpack(arguments, i, last)) else redis.call(command, unpack(arguments, i, last)) end
  end
end

-- Takes the jobs of `spans` out of the batch's ranges in `set`; note(low, high) is told which. There may be hundreds of
-- thousands of ranges, and Redis does nothing else meanwhile: one that goes as a whole costs one look at it.
local function cut_waiting(id, set, spans, note)
  local gone, hashes = {}, {}
  for _, token in ipairs(redis.call('ZRANGE', set, 0, -1)) do
    local hash = range_key(token)
    local r = redis.call('HMGET', hash, 'first', 'count')
    local first, last = tonumber(r[1]), tonumber(r[1]) + tonumber(r[2]) - 1
    local i = last_span(spans, last)
    while i > 0 and spans[i][2] >= first do
      local low, high = math.max(first, spans[i][1]), math.min(last, spans[i][2])
      if low == first and high == last then
        gone[#gone + 1], hashes[#hashes + 1] = token, hash
      else
        local _, rest = carve(id, set, token, low, high)
        if rest and set == ranges_key(id) then
          offered[id] = offered[id] or {}
          table.insert(offered[id], rest)
        end
      end
      note(low, high)
      i, last = i - 1, low - 1
    end
  end
  in_bulk('ZREM', set, gone)
  in_bulk('UNLINK', nil, hashes)
end

-- As cut_waiting, of a leased range and the jobs of it that `which` means: '', 'PENDING' or 'RUNNING'. The job that its holder is
-- at is added to `ran`, if it is among them.
local function cut_leased(id, token, spans, which, note, ran)
  local r = redis.call('HMGET', range_key(token), 'batch', 'first', 'count')
  if r[1] ~= tostring(id) then return end
  local first, last, at = tonumber(r[2]), tonumber(r[2]) + tonumber(r[3]) - 1, job_at(token)
  for i = last_span(spans, last), 1, -1 do
    local a, b = spans[i][1], spans[i][2]
    local low = math.max(which == 'PENDING' and at + 1 or which == 'RUNNING' and at or first, a)
    local high = math.min(which == 'RUNNING' and at or last, last, b)
    -- All of these its holder has done since its last commit: they end as they ended.
    if b < first or (which == '' and b < at) then return end
    if low <= high then
      local like = traits(token)
      if low <= at and at <= high and token ~= committing then
        note_attempt(id, at, like)
        ran[#ran + 1] = at
      end
      like.crashes = 0
      if high < last then offer(id, high + 1, last - high, like) end
      if low > first then
        -- The holder goes on with what is before; a commit of more is told that its range has shrunk.
        redis.call('HSET', range_key(token), 'count', low - first)
      else
        unlease(id, token)
        redis.call('DEL', range_key(token))
        await_stop(id, token)
      end
      note(low, high)
      last = low - 1
    end
  end
end

-- What the list of closed intervals has. There may be very many, all of names without quotes: cjson takes three times as long.
local function closed_entry(first, count, state, reason)
  return string.format('[%d,%d,"%s","%s"]', first, count, state, reason)
end

-- Notes as closed the intervals of jobs that `highs` has, the last job of each by its first one; neighbours become one. Returns
-- how many jobs they are.
local function note_closed(id, highs, state, reason)
  local lows, entries, first, closed = {}, {}, nil, 0
  for low in pairs(highs) do lows[#lows + 1] = low end
  table.sort(lows)
  for i, low in ipairs(lows) do
    first = first or low
    if highs[low] + 1 ~= lows[i + 1] then
      local count = highs[low] - first + 1
      entries[#entries + 1] = closed_entry(first, count, state, reason)
      first, closed = nil, closed + count
    end
  end
  in_bulk('RPUSH', batch_key(id) .. ':closed', entries)
  return closed
end

-- Counts jobs of `spans` as ended, and tells whoever asks why.
local function count_closed(id, spans, closed, state, reason, ran)
  local key, runs = batch_key(id), {}
  redis.call('HINCRBY', key, 'PENDING', -closed)
  redis.call('HINCRBY', key, state, closed)
  if reason == 'StopRule' then redis.call('HINCRBY', key, 'needless', closed) end
  for _, span in ipairs(spans) do
    runs[#runs + 1] = span[1]
    runs[#runs + 1] = math.min(span[2], 1e9) - span[1] + 1
  end
  local a, b = spans[1][1], math.min(spans[#spans][2], 1e9)
  event(id, state .. ' ' .. reason, a, b - a + 1, '', {runs = #spans > 1 and runs or nil, ran = #ran > 0 and ran or nil})
end

-- Ends the open jobs of a batch in `spans` ({a, b}, in order and apart) without a result: ranges (waiting | parked | blocked |
-- leased) -> shorter or gone, jobs PENDING | RUNNING -> state. `which` is '', 'PENDING', 'RUNNING' or 'BLOCKED'. Costs the
-- number of ranges and of spans, not of jobs: what was closed is noted as intervals. Returns the number of jobs.
close_spans = function(id, spans, state, reason, which)
  local highs, ran = {}, {}
  local function note(low, high) highs[low] = high end
  if which ~= 'RUNNING' then
    local sets = which == 'BLOCKED' and {blocked_key(id)} or {ranges_key(id), parked_key(id), blocked_key(id)}
    for _, set in ipairs(sets) do cut_waiting(id, set, spans, note) end
    note_parked(id)
  end
  for _, token in ipairs(which == 'BLOCKED' and {} or redis.call('ZRANGE', LEASES, 0, -1)) do
    cut_leased(id, token, spans, which, note, ran)
  end
  local closed = note_closed(id, highs, state, reason)
  if closed > 0 then count_closed(id, spans, closed, state, reason, ran) end
  settle(id)
  close_if_ended(id)
  return closed
end

-- As close_spans, of the one span from a to b.
close = function(id, a, b, state, reason, which)
  return close_spans(id, {{a, b}}, state, reason, which)
end

-- Ends a batch that has failed too often; returns whether it did.
local function enforce_max_fails(id)
  local b = redis.call('HMGET', batch_key(id), 'max_fails', 'FAILED', 'TIMEOUT', 'OUT_OF_MEMORY', 'NODE_FAIL', 'PENDING', 'RUNNING')
  if not b[1] or b[1] == '' or tonumber(b[6]) + tonumber(b[7]) == 0 then return false end
  if b[2] + b[3] + b[4] + b[5] <= tonumber(b[1]) then return false end
  close(id, 1, math.huge, 'ABORTED', 'MaxFails', '')
  return true
end

-- blocked -> waiting: jobs [first, first + count) of a batch whose elements in another batch have completed.
local function unblock(id, first, count)
  local set, last = blocked_key(id), first + count - 1
  local before = redis.call('ZREVRANGEBYSCORE', set, first, '-inf', 'LIMIT', 0, 1)
  local found = redis.call('ZRANGEBYSCORE', set, '(' .. first, last)
  if before[1] then table.insert(found, 1, before[1]) end
  for _, token in ipairs(found) do
    local r = redis.call('HMGET', range_key(token), 'first', 'count')
    local low, high = math.max(tonumber(r[1]), first), math.min(tonumber(r[1]) + tonumber(r[2]) - 1, last)
    if low <= high then offer(id, low, high - low + 1, (carve(id, set, token, low, high))) end
  end
end
