-- The ledger's atomic steps. Each script is this text followed by one call of a step.
-- KEYS: one job's keys, in the order of layout.py; ARGV[1] is always the job's id.
local META, ITEMS, RESULTS, DONE, LEASES, NOTIFIED, ATTEMPTS, QUARANTINE, MODEL, DRAFT, IDS = unpack(KEYS)
local JOB = ARGV[1]

-- Unfinished items by job, as 'count owner', and their sums by owner and, under '*', of all.
local OPEN, BACKLOG = 'piqueue:open', 'piqueue:backlog'
-- The jobs whose webhook is still to be delivered, by when its next attempt is due (hooks.lua).
local HOOKS = 'piqueue:hooks'
-- The finished jobs whose manifest is still to be written, by when that is due (duelist.py).
local MANIFESTS = 'piqueue:manifests'

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function number(field)
  return tonumber(redis.call('HGET', META, field)) or 0
end

local function tell(status)
  redis.call('PUBLISH', 'piqueue:events', JOB .. ' ' .. status)
end

-- Every key of a job dies with it.
local function keep()
  local expires = redis.call('HGET', META, 'expires_ms')
  for _, key in ipairs(KEYS) do redis.call('PEXPIREAT', key, expires) end
end

-- The items of a job that wait no longer leave the count of all waiting work.
local function settle(count)
  local left, owner = string.match(redis.call('HGET', OPEN, JOB) or '', '^(%d+) (.*)$')
  if not left then return end
  local settled = math.min(count or left, left)
  redis.call('HINCRBY', BACKLOG, '*', -settled)
  if redis.call('HINCRBY', BACKLOG, owner, -settled) == 0 then
    redis.call('HDEL', BACKLOG, owner)
  end
  if settled == tonumber(left) then redis.call('HDEL', OPEN, JOB)
  else redis.call('HSET', OPEN, JOB, (left - settled) .. ' ' .. owner) end
end

local function finish(status)
  local unfinished = number('total') - number('succeeded') - number('failed')
  redis.call('HSET', META, 'status', status, 'finished_ms', now_ms(), 'cancelled', unfinished)
  redis.call('DEL', LEASES, NOTIFIED, ATTEMPTS, QUARANTINE, DRAFT, IDS)
  if redis.call('HEXISTS', META, 'webhook_url') == 1 then
    redis.call('ZADD', HOOKS, now_ms(), JOB)
  end
  if number('parts') == 1 then redis.call('ZADD', MANIFESTS, now_ms(), JOB) end
  settle()
  tell(status)
end

local function notify(chunk)
  redis.call('ZADD', NOTIFIED, now_ms(), chunk)
end

-- Opens further chunks until `window` are on their way; gives the indexes to ring for.
local function top_up(window, chunks)
  local next_chunk, count = number('next_chunk'), number('chunk_count')
  local done = number('done_chunks')
  while next_chunk < count and next_chunk - done < window do
    notify(next_chunk)
    chunks[#chunks + 1] = next_chunk
    next_chunk = next_chunk + 1
  end
  redis.call('HSET', META, 'next_chunk', next_chunk)
  return chunks
end

-- A job has its model's card, which it shares with the other jobs of that model, for it may be
-- long, and is on its owner's list.
local function enlist(card)
  local digest = redis.sha1hex(card)
  local shared, ttl_ms = 'piqueue:card:' .. digest, number('ttl_ms')
  if redis.call('PTTL', shared) < ttl_ms then redis.call('SET', shared, card, 'PX', ttl_ms) end
  redis.call('SET', MODEL, digest)
  redis.call('ZADD', 'piqueue:jobs:' .. redis.call('HGET', META, 'owner'), 0, JOB)
end

-- ARGV: id, model card, then the fields of the record and their values. Items are added until
-- `submit`.
local function open_draft()
  redis.call('HSET', META, unpack(ARGV, 3))
  enlist(ARGV[2])
  redis.call('HSET', META, 'status', 'draft', 'created_ms', now_ms(),
    'expires_ms', now_ms() + number('ttl_ms'), 'total', 0, 'succeeded', 0, 'failed', 0,
    'cancelled', 0)
  keep()
end

-- ARGV: id, most items, then id and form of each item. An id that is there already is passed
-- over. Gives the count of items, -1 where no draft is open, -2 where they would be too many.
local function add()
  if redis.call('HGET', META, 'status') ~= 'draft' or number('closed') == 1 then return -1 end
  if number('total') + (#ARGV - 2) / 2 > tonumber(ARGV[2]) then return -2 end
  for index = 3, #ARGV, 2 do
    if redis.call('SADD', IDS, ARGV[index]) == 1 then
      redis.call('RPUSH', DRAFT, ARGV[index + 1])
      redis.call('HINCRBY', META, 'total', 1)
    end
  end
  keep()
  return number('total')
end

-- ARGV: id. No items are added from now on. Gives 0 where there is no draft.
local function close()
  if redis.call('HGET', META, 'status') ~= 'draft' then return 0 end
  redis.call('HSET', META, 'closed', 1)
  return 1
end

-- ARGV: id, window, model card, count of chunks, then key, value and seconds to live of a note that
-- is written where there is a job and not otherwise, or '' thrice, then the fields of the record
-- and their values. Gives the chunks to ring for, and nothing where some of its items are gone.
local function submit()
  local status = redis.call('HGET', META, 'status')
  -- Sent again because the first answer was lost.
  if status and status ~= 'draft' then return redis.call('ZRANGE', NOTIFIED, 0, -1) end
  -- A Redis that was killed may have forgotten its last second.
  if redis.call('HLEN', ITEMS) < tonumber(ARGV[4]) then return false end
  if ARGV[5] ~= '' then redis.call('SET', ARGV[5], ARGV[6], 'EX', ARGV[7]) end
  redis.call('HSET', META, unpack(ARGV, 8))
  enlist(ARGV[3])
  redis.call('HSET', META, 'status', 'queued', 'expires_ms', now_ms() + number('ttl_ms'),
    'submitted_ms', now_ms(), 'succeeded', 0, 'failed', 0, 'cancelled', 0, 'done_chunks', 0, 'next_chunk', 0)
  redis.call('HSETNX', META, 'created_ms', now_ms())
  redis.call('DEL', DRAFT, IDS)
  local owner = redis.call('HGET', META, 'owner')
  redis.call('HSET', OPEN, JOB, number('total') .. ' ' .. owner)
  redis.call('HINCRBY', BACKLOG, '*', number('total'))
  redis.call('HINCRBY', BACKLOG, owner, number('total'))
  local chunks = top_up(tonumber(ARGV[2]), {})
  keep()
  tell('queued')
  return chunks
end

-- ARGV: id, chunk, lease in ms. Gives {outcome, attempt, lane, items a chunk, whether to use the cache,
-- items, position of the item at each death of a careful attempt, ms since it was rung for or -1,
-- attempts that were put off, whether results become files, name, version and hash of the model,
-- trace context or ''}.
local function claim()
  local chunk, status = ARGV[2], redis.call('HGET', META, 'status')
  if status ~= 'queued' and status ~= 'running' then return {'over'} end
  if redis.call('GETBIT', DONE, chunk) == 1 then return {'done'} end
  local deadline = tonumber(redis.call('ZSCORE', LEASES, chunk))
  if deadline and deadline > now_ms() then return {'leased'} end
  local attempt = redis.call('HINCRBY', ATTEMPTS, chunk, 1)
  local notified_ms = tonumber(redis.call('ZSCORE', NOTIFIED, chunk))
  redis.call('ZREM', NOTIFIED, chunk)
  redis.call('ZADD', LEASES, now_ms() + ARGV[3], chunk)
  local checkpoint = redis.call('HGET', QUARANTINE, 'at:' .. chunk)
  local deaths = redis.call('HGET', QUARANTINE, 'deaths:' .. chunk) or ''
  if checkpoint then
    deaths = deaths .. checkpoint .. ' '
    redis.call('HSET', QUARANTINE, 'deaths:' .. chunk, deaths)
    redis.call('HDEL', QUARANTINE, 'at:' .. chunk)
  end
  if status == 'queued' then
    redis.call('HSET', META, 'status', 'running', 'started_ms', now_ms())
    tell('running')
  end
  keep()
  return {'claimed', attempt, redis.call('HGET', META, 'lane'), number('chunk_items'),
    number('use_cache'), redis.call('HGET', ITEMS, chunk), deaths, notified_ms and now_ms() - notified_ms or -1,
    tonumber(redis.call('HGET', ATTEMPTS, 'deferrals:' .. chunk)) or 0, number('parts'),
    redis.call('HMGET', META, 'model', 'version', 'sha256'),
    redis.call('HGET', META, 'traceparent') or ''}
end

local function holds(chunk, attempt)
  return redis.call('HGET', ATTEMPTS, chunk) == attempt
    and redis.call('ZSCORE', LEASES, chunk) ~= false
end

-- ARGV: id, chunk, attempt, lease in ms. Gives 1 while the caller still holds the chunk.
local function renew()
  if not holds(ARGV[2], ARGV[3]) then return 0 end
  redis.call('ZADD', LEASES, now_ms() + ARGV[4], ARGV[2])
  return 1
end

-- ARGV: id, chunk, attempt, delay in ms. The chunk is rung for after the delay, and the attempt
-- says nothing against its items.
local function defer()
  if not holds(ARGV[2], ARGV[3]) then return 0 end
  redis.call('HINCRBY', ATTEMPTS, 'deferrals:' .. ARGV[2], 1)
  redis.call('HDEL', QUARANTINE, 'at:' .. ARGV[2])
  redis.call('ZADD', LEASES, now_ms() + ARGV[4], ARGV[2])
  return 1
end

-- ARGV: id, chunk, attempt, position of the item about to be scored or '' for none.
local function checkpoint()
  if not holds(ARGV[2], ARGV[3]) then return 0 end
  if ARGV[4] == '' then
    redis.call('HDEL', QUARANTINE, 'at:' .. ARGV[2])
  else
    redis.call('HSET', QUARANTINE, 'at:' .. ARGV[2], ARGV[4])
    keep()
  end
  return 1
end

-- Hosts of a job's URLs that are counted by themselves; those that weigh least are summed in '*'.
local KEPT_HOSTS, FAILURE_WEIGHT = 50, 10

-- Adds up how hosts fared, as JSON (hosts.py): by name, {ok, timeouts, other, {status: count},
-- {answers by how long they took}}.
local function add_hosts(counted)
  local hosts = cjson.decode(redis.call('HGET', META, 'hosts') or '{}')
  local function add(name, more)
    local sum = hosts[name]
    if not sum then
      hosts[name] = more
      return
    end
    for field = 1, 3 do sum[field] = sum[field] + more[field] end
    for status, count in pairs(more[4]) do sum[4][status] = (sum[4][status] or 0) + count end
    for bucket, count in ipairs(more[5]) do sum[5][bucket] = sum[5][bucket] + count end
  end
  for name, more in pairs(cjson.decode(counted)) do add(name, more) end
  local ranked = {}
  for name, row in pairs(hosts) do
    local failed = row[2] + row[3]
    for _, count in pairs(row[4]) do failed = failed + count end
    if name ~= '*' then ranked[#ranked + 1] = {name, row[1] + FAILURE_WEIGHT * failed} end
  end
  table.sort(ranked, function(one, other) return one[2] > other[2] end)
  for rank = KEPT_HOSTS + 1, #ranked do
    local name = ranked[rank][1]
    local row = hosts[name]
    hosts[name] = nil
    add('*', row)
  end
  redis.call('HSET', META, 'hosts', cjson.encode(hosts))
end

-- ARGV: id, chunk, results, window, succeeded, failed, cached, how the hosts of its URLs fared or
-- '', then code and count of each failure. The first write of a chunk wins. Gives {accepted, chunk to ring for, ...}.
local function commit()
  local chunk, status = ARGV[2], redis.call('HGET', META, 'status')
  if status ~= 'running' and status ~= 'cancelling' then return {0} end
  if redis.call('SETBIT', DONE, chunk, 1) == 1 then return {0} end
  redis.call('HSET', RESULTS, chunk, ARGV[3])
  redis.call('ZREM', LEASES, chunk)
  redis.call('ZREM', NOTIFIED, chunk)
  redis.call('HDEL', ATTEMPTS, chunk, 'deferrals:' .. chunk)
  redis.call('HDEL', QUARANTINE, 'at:' .. chunk, 'deaths:' .. chunk)
  local succeeded = redis.call('HINCRBY', META, 'succeeded', ARGV[5])
  local failed = redis.call('HINCRBY', META, 'failed', ARGV[6])
  redis.call('HINCRBY', META, 'cached', ARGV[7])
  if ARGV[8] ~= '' then add_hosts(ARGV[8]) end
  for index = 9, #ARGV, 2 do
    redis.call('HINCRBY', META, 'failure:' .. ARGV[index], ARGV[index + 1])
  end
  settle(ARGV[5] + ARGV[6])
  keep()
  -- What was finished in each ten seconds, for the rate of late.
  local bucket = 'piqueue:rate:' .. math.floor(now_ms() / 10000)
  redis.call('INCRBY', bucket, ARGV[5] + ARGV[6])
  redis.call('EXPIRE', bucket, 90)
  local done = redis.call('HINCRBY', META, 'done_chunks', 1)
  local budget = tonumber(redis.call('HGET', META, 'max_failures'))
  if budget and failed > budget then
    redis.call('HSET', META, 'error', 'failure_budget')
    finish('failed')
    return {1}
  end
  if done == number('chunk_count') then
    if failed == 0 then finish('succeeded')
    elseif succeeded == 0 then finish('failed')
    else finish('partially_succeeded') end
    return {1}
  end
  if status == 'cancelling' then
    if redis.call('ZCARD', LEASES) == 0 then finish('cancelled') else tell(status) end
    return {1}
  end
  tell(status)
  return top_up(tonumber(ARGV[4]), {1})
end

-- ARGV: id, window, age in ms from which a message that was not taken counts as lost.
-- Gives {lane, chunk to ring for, ...}.
local function recover()
  local status, now = redis.call('HGET', META, 'status'), now_ms()
  local answer = {redis.call('HGET', META, 'lane') or 'bulk'}
  if status ~= 'queued' and status ~= 'running' and status ~= 'cancelling' then
    settle()
    return answer
  end
  for _, chunk in ipairs(redis.call('ZRANGE', LEASES, '-inf', now, 'BYSCORE')) do
    redis.call('ZREM', LEASES, chunk)
    if status ~= 'cancelling' then
      notify(chunk)
      answer[#answer + 1] = chunk
    end
  end
  if status == 'cancelling' then
    if redis.call('ZCARD', LEASES) == 0 then finish('cancelled') end
    return answer
  end
  for _, chunk in ipairs(redis.call('ZRANGE', NOTIFIED, '-inf', now - ARGV[3], 'BYSCORE')) do
    notify(chunk)
    answer[#answer + 1] = chunk
  end
  top_up(tonumber(ARGV[2]), answer)
  keep()
  return answer
end

-- ARGV: id. Leased chunks may still finish; all else stops here. Gives 0 for an unknown job.
local function cancel()
  local status = redis.call('HGET', META, 'status')
  if not status then return 0 end
  if status ~= 'draft' and status ~= 'queued' and status ~= 'running' then return 1 end
  if redis.call('ZCARD', LEASES) == 0 then finish('cancelled')
  else
    redis.call('HSET', META, 'status', 'cancelling')
    redis.call('DEL', NOTIFIED)
    tell('cancelling')
  end
  return 1
end

-- ARGV: id. What is stored of a job that was not submitted is removed; gives 0 where it was, which
-- is not known where the answer of `submit` was lost.
local function abandon()
  if redis.call('EXISTS', META) == 1 then return 0 end
  redis.call('UNLINK', unpack(KEYS))
  return 1
end

-- ARGV: id. Gives 0 for an unknown job.
local function erase()
  if redis.call('EXISTS', META) == 0 then return 0 end
  settle()
  redis.call('ZREM', HOOKS, JOB)
  redis.call('ZREM', MANIFESTS, JOB)
  redis.call('UNLINK', unpack(KEYS))
  tell('erased')
  return 1
end
