-- Put in front of every script, behind a line that sets P, the prefix of all keys (keys.py). No transition of its own: the
-- steps that several transitions share.
--
-- A range is in exactly one place: waiting, parked or blocked at its batch, or in bs:leases. A batch is in
-- bs:waiting:<partition> exactly while slots may take ranges of it; settle() is the one place that decides so.

-- One step of priority outweighs every service time; a score still resolves a millisecond.
local PRIORITY_STEP = 1e10
local MOST_TOKENS = 4096
-- Batches at which a claim looks for one whose simulation the worker has.
local MOST_CANDIDATES = 1000
local MOST_EVENTS = 1000
-- Tokens whose tickets are to be published; every script that makes ranges claimable returns them.
local tokens, offered, freed = {}, {}, {}

local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1e6
end

local function batch_key(id) return P .. 'batch:' .. id end
local function ranges_key(id) return P .. 'batch:' .. id .. ':waiting' end
local function parked_key(id) return P .. 'batch:' .. id .. ':parked' end
local function blocked_key(id) return P .. 'batch:' .. id .. ':blocked' end
local function range_key(token) return P .. 'range:' .. token end
local LEASES, LEASED, PARKED, STOPPING = P .. 'leases', P .. 'leased', P .. 'parked', P .. 'stopping'
-- For so long, s, the process of a job whose lease was ended counts since its worker last said that it is there, unless its
-- end is reported. A report can be lost with a Redis that is killed.
local STOPPING_SECONDS = 10

-- A number as Redis stores it: doubles survive the way to text and back with 17 digits.
local function text(x) return string.format('%.17g', x) end

-- A field of a hash as a number; 0 when it is not there.
local function number(key, field) return tonumber(redis.call('HGET', key, field) or '0') end

-- Notes what happened to jobs of a batch, for those who ask why; only the last ones are kept. `more` has further fields, as
-- `runs`, when it happened to only some of the jobs from first on: first, count of each run, one after the other; or `ran`, which
-- of them ran then.
local function event(id, kind, first, count, who, more)
  local key, said = batch_key(id) .. ':events', more or {}
  said.at, said.kind, said.first, said.count, said.who = now(), kind, first, count, who or ''
  redis.call('RPUSH', key, cjson.encode(said))
  redis.call('LTRIM', key, -MOST_EVENTS, -1)
end

-- What a range hands on to its parts: see keys.py for the fields.
local function traits(token)
  local t = redis.call('HMGET', range_key(token), 'base', 'tries', 'lost', 'crashes', 'careful')
  return {base = t[1] or 0, tries = t[2] or 0, lost = t[3] or 0, crashes = t[4] or 0, careful = t[5] or 0}
end

-- Makes a range that is nowhere yet. The token names batch, incarnation and sequence, so it is never given out
-- twice, not even after Redis was emptied.
local function new_range(id, first, count, like)
  local key = batch_key(id)
  local seq = redis.call('HINCRBY', key, 'last_range', 1)
  local b = redis.call('HMGET', key, 'incarnation', 'partition')
  local token = id .. '-' .. b[1] .. '-' .. seq
  redis.call('HSET', range_key(token), 'batch', id, 'first', first, 'count', count, 'partition', b[2],
    'base', like.base or 0, 'tries', like.tries or 0, 'lost', like.lost or 0, 'crashes', like.crashes or 0,
    'careful', like.careful or 0)
  return token, seq
end

-- Makes jobs [first, first + count) of a batch wait under a new token, and returns it.
-- What was lost with a slot goes first (`urgent`): its jobs have waited for long enough.
local function offer(id, first, count, like, urgent)
  local token, seq = new_range(id, first, count, like)
  redis.call('ZADD', ranges_key(id), urgent and -seq or seq, token)
  offered[id] = offered[id] or {}
  table.insert(offered[id], token)
  return token
end

-- Keeps the time at which the housekeeper looks for parked ranges of a batch.
local function note_parked(id)
  local first = redis.call('ZRANGE', parked_key(id), 0, 0, 'WITHSCORES')
  if first[2] then redis.call('ZADD', PARKED, first[2], id) else redis.call('ZREM', PARKED, id) end
end

-- How many more slots a batch may have; nil: no limit.
local function room(id)
  local b = redis.call('HMGET', batch_key(id), 'held', 'unmet', 'throttle', 'RUNNING', 'stopping')
  if b[1] == '1' or tonumber(b[2] or '0') > 0 then return 0 end
  local throttle = tonumber(b[3] or '0')
  if throttle == 0 then return nil end
  -- Of a job that was cancelled the process may still run.
  return math.max(0, throttle - tonumber(b[4]) - tonumber(b[5] or '0'))
end

local function claimable(id)
  local most = room(id)
  local ranges = redis.call('ZCARD', ranges_key(id))
  return most and math.min(ranges, most) or ranges
end

-- Start-time fair queuing (Goyal, Vin, Cheng, 1996) within a priority: the least score is served first.
local function score(id)
  local b = redis.call('HMGET', batch_key(id), 'served', 'priority')
  return tonumber(b[1] or '0') - tonumber(b[2] or '0') * PRIORITY_STEP
end

-- Puts a batch among those that are served, or takes it off, as its ranges, hold, dependencies and throttle say;
-- adds the tokens to publish.
local function settle(id)
  local key = batch_key(id)
  local b = redis.call('HMGET', key, 'partition', 'priority', 'served')
  local set = P .. 'waiting:' .. b[1]
  local most = claimable(id)
  local fresh = offered[id] or {}
  offered[id] = nil
  if most == 0 then
    redis.call('ZREM', set, id)
    return
  end
  if not redis.call('ZSCORE', set, id) then
    -- A batch that comes (back) cannot claim the time when it asked for nothing.
    local clock = number(P .. 'clock', b[1] .. '/' .. (b[2] or '0'))
    redis.call('HSET', key, 'served', text(math.max(clock, tonumber(b[3] or '0'))))
    fresh = redis.call('ZRANGE', ranges_key(id), 0, math.min(most, MOST_TOKENS) - 1)
  elseif freed[id] and #fresh == 0 and number(key, 'throttle') > 0 then
    -- The place that became free had no ticket of its own.
    fresh = redis.call('ZRANGE', ranges_key(id), 0, 0)
  end
  redis.call('ZADD', set, text(score(id)), id)
  -- Lua returns no more values than its stack holds; what is left out is owed, and the housekeeper publishes it.
  for i = 1, math.min(#fresh, most, MOST_TOKENS - #tokens) do tokens[#tokens + 1] = fresh[i] end
end

-- Charges a batch for `seconds` of a slot.
local function charge(id, seconds)
  if seconds == 0 then return end
  redis.call('HINCRBYFLOAT', batch_key(id), 'served', text(seconds))
  redis.call('ZADD', P .. 'waiting:' .. redis.call('HGET', batch_key(id), 'partition'), 'XX', text(score(id)), id)
end

-- A slot begins a slice of a batch. What the batch has had until now is the slice's start tag, and the greatest one of what is
-- in service is its priority's virtual time, from which newcomers start. A slot that keeps its range must move it, too, or they
-- would be owed all that the batch has had since its last claim; and it never goes back, or who was late would come first twice.
local function begin_slice(id, seconds)
  local b = redis.call('HMGET', batch_key(id), 'partition', 'priority', 'served')
  local field, served = b[1] .. '/' .. (b[2] or '0'), tonumber(b[3] or '0')
  if served > number(P .. 'clock', field) then redis.call('HSET', P .. 'clock', field, text(served)) end
  charge(id, seconds)
end

-- A leased range counts as one RUNNING job: a slot runs one at a time.
local function lease(id, token, seconds)
  redis.call('ZADD', LEASES, text(now() + seconds), token)
  redis.call('HINCRBY', LEASED, redis.call('HGET', range_key(token), 'partition'), 1)
  redis.call('HINCRBY', batch_key(id), 'PENDING', -1)
  redis.call('HINCRBY', batch_key(id), 'RUNNING', 1)
end

-- The job that a leased range's holder is at, as far as is known: behind it all is open, before it jobs are done which are
-- not committed yet.
local function job_at(token)
  local r = redis.call('HMGET', range_key(token), 'first', 'at')
  return math.max(tonumber(r[1]), tonumber(r[2] or '0'))
end

-- Ends a lease; false when there was none. The range is nowhere then.
local function unlease(id, token)
  if redis.call('ZREM', LEASES, token) == 0 then return false end
  redis.call('HINCRBY', LEASED, redis.call('HGET', range_key(token), 'partition'), -1)
  redis.call('HINCRBY', batch_key(id), 'RUNNING', -1)
  redis.call('HINCRBY', batch_key(id), 'PENDING', 1)
  freed[id] = true
  return true
end

-- Whether a live worker of the partition has the simulation that the batch needs; the built-in ones all have.
local function runnable(id, partition)
  local needs = redis.call('HGET', batch_key(id), 'requires') or ''
  return needs == '' or redis.call('HEXISTS', P .. 'offers', partition .. '/' .. needs) == 1
end
-- Whether slots of the partition that cannot run the batch take its tickets, too, which are lost then.
local function contested(id, partition)
  local needs = redis.call('HGET', batch_key(id), 'requires') or ''
  return needs ~= '' and number(P .. 'offers', partition .. '/' .. needs) < number(P .. 'partition_slots', partition)
end
-- What a worker has besides the built-in simulations, by its last heartbeat.
local function simulations_of(worker)
  local said, has = redis.call('HGET', P .. 'worker_info', worker), {}
  for _, name in ipairs(said and cjson.decode(said).simulations or {}) do has[name] = true end
  return has
end
-- The batch whose turn it is at a slot of the worker; those that it cannot run are passed over, for others have to take them.
local function next_batch(partition, worker)
  local has = nil
  for _, id in ipairs(redis.call('ZRANGE', P .. 'waiting:' .. partition, 0, MOST_CANDIDATES - 1)) do
    local needs = redis.call('HGET', batch_key(id), 'requires') or ''
    if needs ~= '' then has = has or simulations_of(worker) end
    if needs == '' or has[needs] then return id end
  end
end
-- How many slots hold no lease, of the live workers of the partition that have the simulation; '' for a built-in one. Looks at
-- all leases: asked only when slots are idle.
local function count_free(partition, needs)
  local free, sum = {}, 0
  local said = redis.call('HGETALL', P .. 'worker_info')
  for i = 1, #said, 2 do
    local info, serves, has = cjson.decode(said[i + 1]), {}, {['']=true}
    for _, name in ipairs(info.partitions) do serves[name] = true end
    for _, name in ipairs(info.simulations) do has[name] = true end
    if serves[partition] and has[needs] then free[said[i]] = info.slots end
  end
  for _, token in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    local worker = redis.call('HGET', range_key(token), 'worker')
    if worker and free[worker] then free[worker] = free[worker] - 1 end
  end
  for _, slots in pairs(free) do sum = sum + math.max(0, slots) end
  return sum
end
-- Whether workers serve several partitions: then a slot of one may be at work in another.
local function is_mixed()
  local slots, sum = redis.call('GET', P .. 'slots'), 0
  for _, each in ipairs(redis.call('HVALS', P .. 'partition_slots')) do sum = sum + each end
  return slots and sum > tonumber(slots)
end
-- How many slots have nothing to do and nothing to take; 0 while a range waits that one of them can run, for then a ticket is
-- on its way. What only slots that are at work can run keeps nobody else from being given a part.
local function idle_slots(partition)
  local idle = math.max(0, number(P .. 'partition_slots', partition) - number(LEASED, partition))
  if idle > 0 and is_mixed() then idle = math.min(idle, count_free(partition, '')) end
  if idle == 0 then return 0 end
  local free = {['']=true}
  for _, id in ipairs(redis.call('ZRANGE', P .. 'waiting:' .. partition, 0, MOST_CANDIDATES - 1)) do
    local needs = redis.call('HGET', batch_key(id), 'requires') or ''
    if free[needs] == nil then free[needs] = count_free(partition, needs) > 0 end
    if free[needs] then return 0 end
  end
  return idle
end

-- How many slots of live workers could run the batch besides those that do.
local function free_slots(id, partition)
  local b = redis.call('HMGET', batch_key(id), 'requires', 'RUNNING')
  if (b[1] or '') == '' then return math.huge end
  return math.max(0, number(P .. 'offers', partition .. '/' .. b[1]) - tonumber(b[2] or '0'))
end

-- Cuts a leased range's jobs [first, first + count) for slots that are idle: the first part is kept, with the job that its
-- holder is at and what is before it, the others are offered. Returns the size of the kept part.
local function share(id, token, first, count)
  local most = room(id)
  local partition = redis.call('HGET', range_key(token), 'partition')
  local others = math.min(idle_slots(partition), free_slots(id, partition))
  if most then others = math.min(others, most) end
  local done = math.max(first, job_at(token)) - first
  local left = count - done
  local parts = math.min(others + 1, left)
  if parts < 2 then return count end
  local like = traits(token)
  like.crashes = 0
  local low = done + math.ceil(left / parts)
  local keep = low
  for part = 2, parts do
    local high = done + math.floor(left * part / parts)
    if high > low then
      offer(id, first + low, high - low, like)
      low = high
    end
  end
  return keep
end

-- A lease was ended whose holder is at work: until it has stopped, its job takes one of the batch's places.
local function await_stop(id, token)
  redis.call('ZADD', STOPPING, text(now() + STOPPING_SECONDS), token)
  redis.call('HINCRBY', batch_key(id), 'stopping', 1)
end

-- The holder of a lease that was ended has stopped, or is not waited for any longer.
local function stopped(token)
  if redis.call('ZREM', STOPPING, token) == 0 then return end
  local id = string.match(token, '^%d+')
  redis.call('HINCRBY', batch_key(id), 'stopping', -1)
  freed[id] = true
  settle(id)
end
