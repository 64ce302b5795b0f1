-- The atomic steps of the webhook outbox.
-- KEYS: the keys of one job, in the order of outbox.py. ARGV[1] is always the id of the job.
local META, HOOK, LOG, JOB

-- Jobs by when the next attempt is due. A claimed job is due again when its lease ends; that time
-- also identifies the claim.
local HOOKS = 'piqueue:hooks'

-- ARGV: id, lease in ms. Returns {end of the lease, earlier attempts}, or {} if none is due.
local function claim()
  local due = tonumber(redis.call('ZSCORE', HOOKS, JOB))
  if not due or due > now_ms() then return {} end
  if redis.call('EXISTS', META) == 0 then
    redis.call('ZREM', HOOKS, JOB)
    return {}
  end
  local lease_end = now_ms() + ARGV[2]
  redis.call('ZADD', HOOKS, lease_end, JOB)
  return {lease_end, tonumber(redis.call('HGET', HOOK, 'attempts')) or 0}
end

local function holds(lease_end)
  return tonumber(redis.call('ZSCORE', HOOKS, JOB)) == tonumber(lease_end)
end

-- ARGV: id, end of the lease, delay in ms. Releases a claim without an attempt.
local function defer()
  if holds(ARGV[2]) then redis.call('ZADD', HOOKS, now_ms() + ARGV[3], JOB) end
end

-- ARGV: id, end of the lease, entry for the log, entries to keep, state, delay in ms for 'pending'.
-- An expired claim is logged and changes nothing else.
local function settle()
  if redis.call('EXISTS', META) == 0 then return end
  redis.call('LPUSH', LOG, ARGV[3])
  redis.call('LTRIM', LOG, 0, ARGV[4] - 1)
  if holds(ARGV[2]) then
    redis.call('HINCRBY', HOOK, 'attempts', 1)
    redis.call('HSET', HOOK, 'state', ARGV[5])
    if ARGV[5] == 'pending' then redis.call('ZADD', HOOKS, now_ms() + ARGV[6], JOB)
    else redis.call('ZREM', HOOKS, JOB) end
  end
end

-- ARGV: id. Starts again, with an attempt that is due now.
local function replay()
  redis.call('DEL', HOOK)
  redis.call('ZADD', HOOKS, now_ms(), JOB)
end

local function offer_step(name, step)
  offer(name, function()
    META, HOOK, LOG = unpack(KEYS)
    JOB = ARGV[1]
    return step()
  end)
end

offer_step('claim', claim)
offer_step('defer', defer)
offer_step('settle', settle)
offer_step('replay', replay)
