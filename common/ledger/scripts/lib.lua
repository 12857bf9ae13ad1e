-- Put in front of every script. No transition of its own: the steps that several transitions share.

local P = 'bs:'

local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1e6
end

local function batch_key(id) return P .. 'batch:' .. id end
local function ranges_key(id) return P .. 'batch:' .. id .. ':waiting' end
local function range_key(token) return P .. 'range:' .. token end

-- A number as Redis stores it: doubles survive the way to text and back with 17 digits.
local function text(x) return string.format('%.17g', x) end

-- Makes jobs [first, first + count) of a batch wait under a new token, and returns it.
-- The token names batch, incarnation and sequence, so it is never given out twice, not even after Redis was emptied.
local function offer(id, first, count, crashes)
  local key = batch_key(id)
  local seq = redis.call('HINCRBY', key, 'last_range', 1)
  local token = id .. '-' .. redis.call('HGET', key, 'incarnation') .. '-' .. seq
  redis.call('HSET', range_key(token), 'batch', id, 'first', first, 'count', count, 'crashes', crashes)
  redis.call('ZADD', ranges_key(id), seq, token)
  if not redis.call('ZSCORE', P .. 'waiting', id) then
    -- Start-time fair queuing: a batch that comes (back) cannot claim the time when it asked for nothing.
    local clock = tonumber(redis.call('GET', P .. 'clock') or '0')
    local served = tonumber(redis.call('HGET', key, 'served') or '0')
    redis.call('ZADD', P .. 'waiting', text(math.max(clock, served)), id)
  end
  return token
end

-- Charges a batch for `seconds` of a slot.
local function charge(id, seconds)
  if seconds == 0 then return end
  if redis.call('ZSCORE', P .. 'waiting', id) then
    redis.call('HSET', batch_key(id), 'served', redis.call('ZINCRBY', P .. 'waiting', text(seconds), id))
  else
    redis.call('HINCRBYFLOAT', batch_key(id), 'served', text(seconds))
  end
end

-- Takes a waiting range off its batch.
local function take(id, token)
  if redis.call('ZREM', ranges_key(id), token) == 0 then return false end
  if redis.call('ZCARD', ranges_key(id)) == 0 then
    redis.call('HSET', batch_key(id), 'served', redis.call('ZSCORE', P .. 'waiting', id))
    redis.call('ZREM', P .. 'waiting', id)
  end
  return true
end

-- How many slots have nothing to do and nothing to take; 0 while a range waits, for then a ticket is on its way.
local function idle_slots()
  if redis.call('ZCARD', P .. 'waiting') > 0 then return 0 end
  return math.max(0, tonumber(redis.call('GET', P .. 'slots') or '0') - redis.call('ZCARD', P .. 'leases'))
end

-- Cuts [first, first + count) into `parts` of nearly equal size: the first is kept, the others are offered.
-- Returns the size of the kept part; appends the tokens of the others to `tokens`.
local function share(id, first, count, parts, tokens)
  local low = math.ceil(count / parts)
  local keep = low
  for part = 2, parts do
    local high = math.floor(count * part / parts)
    if high > low then
      tokens[#tokens + 1] = offer(id, first + low, high - low, 0)
      low = high
    end
  end
  return keep
end

-- Closes the batch when its last job has ended; returns 1 then, else 0.
local function close_if_ended(id)
  local key = batch_key(id)
  local open = redis.call('HMGET', key, 'PENDING', 'RUNNING')
  if tonumber(open[1]) > 0 or tonumber(open[2]) > 0 then return 0 end
  if redis.call('SREM', P .. 'active', id) == 0 then return 0 end
  redis.call('HSET', key, 'ended', text(now()))
  redis.call('SADD', P .. 'finishing', id)
  return 1
end
