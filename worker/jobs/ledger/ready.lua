-- The ready index: what can be claimed, in three levels of sorted sets. The first level ranks lanes,
-- each lane ranks its owners, and each owner ranks its jobs; the score is the virtual time of
-- start-time fair queueing. A member that is served moves back by items / weight.
local READY = 'piqueue:ready'
-- The virtual time of each level, and by 'level member' that of members that left it.
local VIRTUAL = 'piqueue:virtual'
-- Weights of owners (api_keys.py); an owner that is missing has weight 1.
local WEIGHTS = 'piqueue:weights'
-- By lane: jobs in the ready index by when they were submitted.
local WAITING = 'piqueue:waiting:'
-- How many owners, and jobs of each, one claim looks at.
local SCANNED = 16
-- Jobs of one owner have equal right to a turn if they are within so many items of each other.
local EQUAL_ITEMS = 32

local function owners_of(lane) return READY .. ':' .. lane end
local function jobs_of(lane, owner) return READY .. ':' .. lane .. ':' .. owner end

-- A member that was away does not save up turns: it enters at the virtual time of its level.
local function enter(level, member)
  if redis.call('ZSCORE', level, member) then return end
  local times = redis.call('HMGET', VIRTUAL, level, level .. ' ' .. member)
  redis.call('ZADD', level, math.max(tonumber(times[1]) or 0, tonumber(times[2]) or 0), member)
end

local function leave(level, member)
  redis.call('HSET', VIRTUAL, level .. ' ' .. member, redis.call('ZSCORE', level, member))
  redis.call('ZREM', level, member)
end

local function add_ready(lane, owner, job, submitted_ms)
  enter(READY, lane)
  enter(owners_of(lane), owner)
  enter(jobs_of(lane, owner), job)
  redis.call('ZADD', WAITING .. lane, submitted_ms, job)
end

local function remove_ready(lane, owner, job)
  if redis.call('ZREM', jobs_of(lane, owner), job) == 0 then return end
  redis.call('ZREM', WAITING .. lane, job)
  if redis.call('EXISTS', jobs_of(lane, owner)) == 1 then return end
  leave(owners_of(lane), owner)
  if redis.call('EXISTS', owners_of(lane)) == 0 then leave(READY, lane) end
end

-- Moves a job, its owner and its lane back by the items that are served.
local function charge(lane, owner, job, items, lane_share)
  local function advance(level, member, cost)
    local first = redis.call('ZRANGE', level, 0, 0, 'WITHSCORES')
    redis.call('HSET', VIRTUAL, level, first[2])
    redis.call('ZINCRBY', level, cost, member)
  end
  local weight = tonumber(redis.call('HGET', WEIGHTS, owner)) or 1
  advance(READY, lane, items / lane_share)
  advance(owners_of(lane), owner, items / weight)
  advance(jobs_of(lane, owner), job, items)
end

-- Calls `usable(job)` for jobs in the order of their turns; returns lane, owner and job of the first
-- for which it is true. Of jobs with equal right, one for which `preferred()` is true goes first.
local function next_ready(usable, preferred)
  local lanes = redis.call('ZRANGE', READY, 0, -1, 'WITHSCORES')
  if #lanes == 4 and lanes[2] == lanes[4] then lanes = {'interactive', 0, 'bulk', 0} end
  for at = 1, #lanes, 2 do
    local lane = lanes[at]
    for _, owner in ipairs(redis.call('ZRANGE', owners_of(lane), 0, SCANNED - 1)) do
      local jobs = redis.call('ZRANGE', jobs_of(lane, owner), 0, SCANNED - 1, 'WITHSCORES')
      local first
      for place = 1, #jobs, 2 do
        local job, score = jobs[place], tonumber(jobs[place + 1])
        if first and score > first.score + EQUAL_ITEMS then break end
        if usable(lane, owner, job) then
          if preferred() then return lane, owner, job end
          first = first or {job = job, score = score}
        end
      end
      if first then return lane, owner, first.job end
    end
  end
end
