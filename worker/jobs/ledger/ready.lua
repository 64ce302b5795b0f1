-- The ready index: what can be claimed, in three levels of sorted sets. The first level ranks lanes,
-- each lane ranks its owners, and each owner ranks its jobs; the score is the virtual time of
-- start-time fair queueing. A member that is served moves back by items / weight.
local READY = 'piqueue:ready'
-- The virtual times of lanes and owners, which are those of the members served, and by 'level member'
-- of members that left; empty while nothing waits.
local VIRTUAL = 'piqueue:virtual'
-- Weights of owners (api_keys.py); an owner that is missing has weight 1.
local WEIGHTS = 'piqueue:weights'
-- By lane: jobs in the ready index by when they were submitted.
local WAITING = 'piqueue:waiting:'
-- How many jobs one claim looks at, and after the first that is usable.
local MOST_LOOKS, MOST_FURTHER_LOOKS = 1000, 16
-- Jobs of one owner have equal right to a turn if they are within so many items of each other.
local EQUAL_ITEMS = 32
-- A member that no worker could serve for a while catches up so many items / weight at most.
local MOST_LAG = 1000

local function owners_of(lane) return READY .. ':' .. lane end
local function jobs_of(lane, owner) return READY .. ':' .. lane .. ':' .. owner end

local function time_of(level)
  return tonumber(redis.call('HGET', VIRTUAL, level)) or 0
end

-- The virtual time at which a member enters a level: one that was away does not save up turns.
local function entry_time(level, member)
  local times = redis.call('HMGET', VIRTUAL, level, level .. ' ' .. member)
  return math.max(tonumber(times[1]) or 0, tonumber(times[2]) or 0)
end

-- The highest score of a level: a new job goes behind the others of its owner, or an endless row of
-- new ones would hold up those that have begun.
local function last_of(level)
  return tonumber(redis.call('ZRANGE', level, -1, -1, 'WITHSCORES')[2]) or 0
end

local function leave(level, member)
  redis.call('HSET', VIRTUAL, level .. ' ' .. member, redis.call('ZSCORE', level, member))
  redis.call('ZREM', level, member)
end

local function add_ready(lane, owner, job, submitted_ms)
  local owners, jobs = owners_of(lane), jobs_of(lane, owner)
  redis.call('ZADD', WAITING .. lane, submitted_ms, job)
  if redis.call('EXISTS', READY) == 0 then
    redis.call('ZADD', READY, 0, lane)
    redis.call('ZADD', owners, 0, owner)
    redis.call('ZADD', jobs, 0, job)
    return
  end
  redis.call('ZADD', READY, 'NX', entry_time(READY, lane), lane)
  redis.call('ZADD', owners, 'NX', entry_time(owners, owner), owner)
  redis.call('ZADD', jobs, 'NX', last_of(jobs), job)
end

-- Empties the index, of which one job is all that it has.
local function clear_ready(lane, owner)
  redis.call('UNLINK', READY, VIRTUAL, WAITING .. lane, owners_of(lane), jobs_of(lane, owner))
end

local function remove_ready(lane, owner, job)
  if redis.call('ZREM', jobs_of(lane, owner), job) == 0 then return end
  redis.call('ZREM', WAITING .. lane, job)
  if redis.call('EXISTS', jobs_of(lane, owner)) == 1 then return end
  leave(owners_of(lane), owner)
  if redis.call('EXISTS', owners_of(lane)) == 0 then leave(READY, lane) end
  if redis.call('EXISTS', READY) == 0 then redis.call('UNLINK', VIRTUAL) end
end

-- Moves an owner, its lane, and its job unless that leaves, back by the items that are served.
local function charge(lane, owner, job, items, lane_share)
  local function advance(level, member, cost, time)
    local score = tonumber(redis.call('ZSCORE', level, member))
    redis.call('ZADD', level, math.max(score, time - MOST_LAG) + cost, member)
    return math.max(score, time)
  end
  local owners, jobs = owners_of(lane), jobs_of(lane, owner)
  local weight = tonumber(redis.call('HGET', WEIGHTS, owner)) or 1
  redis.call('HSET', VIRTUAL,
    READY, advance(READY, lane, items / lane_share, time_of(READY)),
    owners, advance(owners, owner, items / weight, time_of(owners)))
  if job then advance(jobs, job, items, last_of(jobs)) end
end

-- Iterates over the members and scores of a level; mostly the first one is enough. Also returns whether
-- there is only one.
local function members(level)
  local start, at = 2, 1
  local page = redis.call('ZRANGE', level, 0, 1, 'WITHSCORES')
  local function next_member()
    if at > #page then
      page, at = redis.call('ZRANGE', level, start, start + 15, 'WITHSCORES'), 1
      start = start + 16
    end
    at = at + 2
    return page[at - 2], tonumber(page[at - 1])
  end
  return next_member, #page == 2
end

-- Calls `usable(job)` for jobs in the order of their turns; returns lane, owner and job of the first
-- for which it is true, and whether no other job waits. Of jobs with equal right, one for which
-- `preferred()` is true goes first.
local function next_ready(usable, preferred)
  local lanes = redis.call('ZRANGE', READY, 0, -1, 'WITHSCORES')
  if #lanes == 4 and lanes[2] == lanes[4] then lanes = {'interactive', 0, 'bulk', 0} end
  local looks, most = 0, MOST_LOOKS
  for at = 1, #lanes, 2 do
    local lane = lanes[at]
    local next_owner, is_only_owner = members(owners_of(lane))
    for owner in next_owner do
      local next_job, is_only_job = members(jobs_of(lane, owner))
      local first, first_score
      for job, score in next_job do
        if looks == most or first and score > first_score + EQUAL_ITEMS then break end
        looks = looks + 1
        if usable(lane, owner, job) then
          if #lanes == 2 and is_only_owner and is_only_job then return lane, owner, job, true end
          if preferred() then return lane, owner, job end
          if not first then first, first_score, most = job, score, looks + MOST_FURTHER_LOOKS end
        end
      end
      if first then return lane, owner, first end
      if looks == most then return end
    end
  end
end
