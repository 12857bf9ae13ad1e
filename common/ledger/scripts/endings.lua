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

-- Those of `spans` ({a, b}, in order and apart) that meet the jobs of a range of the batch, the last one first: so what is cut
-- off behind a span is met by no other one.
local function spans_of(id, spans, token)
  local r = redis.call('HMGET', range_key(token), 'batch', 'first', 'count')
  if r[1] ~= tostring(id) then return {} end
  local first, last = tonumber(r[2]), tonumber(r[2]) + tonumber(r[3]) - 1
  local low, high = 1, #spans + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if spans[middle][1] > last then high = middle else low = middle + 1 end
  end
  local found = {}
  for i = low - 1, 1, -1 do
    if spans[i][2] < first then break end
    found[#found + 1] = spans[i]
  end
  return found
end

-- Ends the open jobs of a batch in `spans` ({a, b}, in order and apart) without a result: ranges (waiting | parked | blocked |
-- leased) -> shorter or gone, jobs PENDING | RUNNING -> state. `which` is '', 'PENDING', 'RUNNING' or 'BLOCKED'. Costs the
-- number of ranges and of spans, not of jobs: what was closed is noted as intervals. Returns the number of jobs.
close_spans = function(id, spans, state, reason, which)
  local key, closed, ran = batch_key(id), 0, {}
  local function note(low, high)
    redis.call('RPUSH', key .. ':closed', cjson.encode({low, high - low + 1, state, reason}))
    closed = closed + high - low + 1
  end
  local function cut(set, token, a, b)
    local r = redis.call('HMGET', range_key(token), 'first', 'count')
    local low, high = math.max(tonumber(r[1]), a), math.min(tonumber(r[1]) + tonumber(r[2]) - 1, b)
    if low > high then return end
    local _, rest = carve(id, set, token, low, high)
    if rest and set == ranges_key(id) then
      offered[id] = offered[id] or {}
      table.insert(offered[id], rest)
    end
    note(low, high)
  end
  if which ~= 'RUNNING' then
    local sets = which == 'BLOCKED' and {blocked_key(id)} or {ranges_key(id), parked_key(id), blocked_key(id)}
    for _, set in ipairs(sets) do
      for _, token in ipairs(redis.call('ZRANGE', set, 0, -1)) do
        for _, span in ipairs(spans_of(id, spans, token)) do cut(set, token, span[1], span[2]) end
      end
    end
    note_parked(id)
  end
  local function cut_leased(token, a, b)
    local r = redis.call('HMGET', range_key(token), 'batch', 'first', 'count')
    if r[1] == tostring(id) then
      local first, last, at = tonumber(r[2]), tonumber(r[2]) + tonumber(r[3]) - 1, job_at(token)
      -- All of these its holder has done since its last commit: they end as they ended.
      if which == '' and b < at then return end
      local low = math.max(which == 'PENDING' and at + 1 or which == 'RUNNING' and at or first, a)
      local high = math.min(which == 'RUNNING' and at or last, last, b)
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
      end
    end
  end
  for _, token in ipairs(which == 'BLOCKED' and {} or redis.call('ZRANGE', LEASES, 0, -1)) do
    for _, span in ipairs(spans_of(id, spans, token)) do cut_leased(token, span[1], span[2]) end
  end
  if closed > 0 then
    redis.call('HINCRBY', key, 'PENDING', -closed)
    redis.call('HINCRBY', key, state, closed)
    if reason == 'StopRule' then redis.call('HINCRBY', key, 'needless', closed) end
    local runs = {}
    for _, span in ipairs(spans) do
      runs[#runs + 1] = span[1]
      runs[#runs + 1] = math.min(span[2], 1e9) - span[1] + 1
    end
    local a, b = spans[1][1], math.min(spans[#spans][2], 1e9)
    event(id, state .. ' ' .. reason, a, b - a + 1, '', {runs = #spans > 1 and runs or nil, ran = #ran > 0 and ran or nil})
  end
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
