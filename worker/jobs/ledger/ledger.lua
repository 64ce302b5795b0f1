-- The ledger's atomic steps. Each script is this file followed by the call of one step.
-- KEYS: the keys of one job, in the order of layout.py. ARGV[1] is always the id of the job.
local META, ITEMS, RESULTS, DONE, LEASES, NOTIFIED, ATTEMPTS, QUARANTINE, MODEL, DRAFT, IDS = unpack(KEYS)
local JOB = ARGV[1]

-- Unfinished items by job, as 'count owner', and their sums by owner and, under '*', of all.
local OPEN, BACKLOG = 'piqueue:open', 'piqueue:backlog'
-- Jobs with an undelivered webhook, by when the next attempt is due (outbox.lua).
local HOOKS = 'piqueue:hooks'
-- Finished jobs without a manifest, by when it is due (schedule.py).
local MANIFESTS = 'piqueue:manifests'

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function number(field)
  return tonumber(redis.call('HGET', META, field)) or 0
end

local function publish(status)
  redis.call('PUBLISH', 'piqueue:events', JOB .. ' ' .. status)
end

-- All keys of a job expire together.
local function set_expiry()
  local expires = redis.call('HGET', META, 'expires_ms')
  for _, key in ipairs(KEYS) do redis.call('PEXPIREAT', key, expires) end
end

-- Subtracts finished items from the counts of unfinished work.
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
  publish(status)
end

local function notify(chunk)
  redis.call('ZADD', NOTIFIED, now_ms(), chunk)
end

-- Opens further chunks until `window` are notified or leased; appends their indexes to `chunks`.
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

-- Stores the model card, which all jobs of the model share, and lists the job under its owner.
local function register(card)
  local digest = redis.sha1hex(card)
  local shared, ttl_ms = 'piqueue:card:' .. digest, number('ttl_ms')
  if redis.call('PTTL', shared) < ttl_ms then redis.call('SET', shared, card, 'PX', ttl_ms) end
  redis.call('SET', MODEL, digest)
  redis.call('ZADD', 'piqueue:jobs:' .. redis.call('HGET', META, 'owner'), 0, JOB)
end

-- ARGV: id, model card, then the fields and values of the record.
local function open_draft()
  redis.call('HSET', META, unpack(ARGV, 3))
  register(ARGV[2])
  redis.call('HSET', META, 'status', 'draft', 'created_ms', now_ms(),
    'expires_ms', now_ms() + number('ttl_ms'), 'total', 0, 'succeeded', 0, 'failed', 0,
    'cancelled', 0)
  set_expiry()
end

-- Appended to the fingerprint of an id whose item is in the draft.
local ADDED = '+'

-- ARGV: id, then the id, or '' for the next free number, and the fingerprint of each item. Reserves
-- the ids before the uploads are stored, so that no upload replaces another. Returns the id and the
-- state of each item: free, added (the draft has this item) or taken (it has another of this id);
-- false if no draft is open.
local function reserve()
  if redis.call('HGET', META, 'status') ~= 'draft' or number('closed') == 1 then return false end
  local answer, next_number = {}, math.max(number('next_number'), number('total'))
  for index = 2, #ARGV, 2 do
    local item, fingerprint = ARGV[index], ARGV[index + 1]
    if item == '' then
      while redis.call('HEXISTS', IDS, next_number) == 1 do next_number = next_number + 1 end
      item = string.format('%d', next_number)
    end
    local found = redis.call('HGET', IDS, item)
    local state = 'taken'
    if not found or found == fingerprint then state = 'free'
    elseif found == fingerprint .. ADDED then state = 'added' end
    if not found then redis.call('HSET', IDS, item, fingerprint) end
    answer[#answer + 1] = item
    answer[#answer + 1] = state
  end
  redis.call('HSET', META, 'next_number', next_number)
  set_expiry()
  return answer
end

-- ARGV: id, maximum of items, then the reserved id, the fingerprint and the row of each item.
-- Returns for each 1 if it is new, 0 if another request has added it meanwhile; -1 if no draft is
-- open, -2 if there would be too many.
local function add()
  if redis.call('HGET', META, 'status') ~= 'draft' or number('closed') == 1 then return -1 end
  local answer, added = {}, 0
  for index = 3, #ARGV, 3 do
    local is_new = redis.call('HGET', IDS, ARGV[index]) == ARGV[index + 1]
    if is_new then redis.call('HSET', IDS, ARGV[index], ARGV[index + 1] .. ADDED) end
    answer[#answer + 1] = is_new and 1 or 0
    added = added + answer[#answer]
  end
  if number('total') + added > tonumber(ARGV[2]) then
    for position, is_new in ipairs(answer) do
      local index = 3 * position
      if is_new == 1 then redis.call('HSET', IDS, ARGV[index], ARGV[index + 1]) end
    end
    return -2
  end
  for position, is_new in ipairs(answer) do
    if is_new == 1 then redis.call('RPUSH', DRAFT, ARGV[3 * position + 2]) end
  end
  redis.call('HINCRBY', META, 'total', added)
  set_expiry()
  return answer
end

-- ARGV: id. The draft accepts no more items. Returns 0 if there is no draft.
local function close()
  if redis.call('HGET', META, 'status') ~= 'draft' then return 0 end
  redis.call('HSET', META, 'closed', 1)
  return 1
end

-- ARGV: id, window, model card, count of chunks, key, value and time to live in seconds of an extra
-- key (or '' three times), then the fields and values of the record. Returns the chunks to notify of,
-- or false if some items are lost.
local function submit()
  local status = redis.call('HGET', META, 'status')
  -- Repeated because the first answer was lost.
  if status and status ~= 'draft' then return redis.call('ZRANGE', NOTIFIED, 0, -1) end
  -- A Redis that was killed may have lost its last second.
  if redis.call('HLEN', ITEMS) < tonumber(ARGV[4]) then return false end
  if ARGV[5] ~= '' then redis.call('SET', ARGV[5], ARGV[6], 'EX', ARGV[7]) end
  redis.call('HSET', META, unpack(ARGV, 8))
  register(ARGV[3])
  redis.call('HSET', META, 'status', 'queued', 'expires_ms', now_ms() + number('ttl_ms'),
    'submitted_ms', now_ms(), 'succeeded', 0, 'failed', 0, 'cancelled', 0, 'done_chunks', 0, 'next_chunk', 0)
  redis.call('HSETNX', META, 'created_ms', now_ms())
  redis.call('DEL', DRAFT, IDS)
  local owner = redis.call('HGET', META, 'owner')
  redis.call('HSET', OPEN, JOB, number('total') .. ' ' .. owner)
  redis.call('HINCRBY', BACKLOG, '*', number('total'))
  redis.call('HINCRBY', BACKLOG, owner, number('total'))
  local chunks = top_up(tonumber(ARGV[2]), {})
  set_expiry()
  publish('queued')
  return chunks
end

-- ARGV: id, chunk, lease in ms. Returns {outcome, attempt, lane, items in a chunk, use of the cache,
-- items, checkpointed position of each death, ms since the notification or -1, deferrals, whether
-- results become files, {name, version, hash of the model}, trace context or ''}.
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
    publish('running')
  end
  set_expiry()
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

-- ARGV: id, chunk, attempt, lease in ms. Returns 1 if the caller still has the lease.
local function renew()
  if not holds(ARGV[2], ARGV[3]) then return 0 end
  redis.call('ZADD', LEASES, now_ms() + ARGV[4], ARGV[2])
  return 1
end

-- ARGV: id, chunk, attempt, delay in ms. The chunk is notified after the delay, and the attempt does
-- not count against its items.
local function defer()
  if not holds(ARGV[2], ARGV[3]) then return 0 end
  redis.call('HINCRBY', ATTEMPTS, 'deferrals:' .. ARGV[2], 1)
  redis.call('HDEL', QUARANTINE, 'at:' .. ARGV[2])
  redis.call('ZADD', LEASES, now_ms() + ARGV[4], ARGV[2])
  return 1
end

-- ARGV: id, chunk, attempt, position of the item that is about to be scored, or ''.
local function checkpoint()
  if not holds(ARGV[2], ARGV[3]) then return 0 end
  if ARGV[4] == '' then
    redis.call('HDEL', QUARANTINE, 'at:' .. ARGV[2])
  else
    redis.call('HSET', QUARANTINE, 'at:' .. ARGV[2], ARGV[4])
    set_expiry()
  end
  return 1
end

-- The hosts of the largest weight are listed; the others are summed in '*'.
local KEPT_HOSTS, FAILURE_WEIGHT = 50, 10

-- Adds host statistics, as JSON (host_statistics.py): by name, {ok, timeouts, other,
-- {status: count}, {responses by duration}}.
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

-- ARGV: id, chunk, results, window, succeeded, failed, cached, host statistics or '', then the code
-- and count of each failure. The first commit of a chunk wins. Returns {accepted, chunk to notify of, ...}.
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
  set_expiry()
  -- Items finished in each ten seconds, for the rate.
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
    if redis.call('ZCARD', LEASES) == 0 then finish('cancelled') else publish(status) end
    return {1}
  end
  publish(status)
  return top_up(tonumber(ARGV[4]), {1})
end

-- ARGV: id, window, age in ms at which an unanswered notification counts as lost.
-- Returns {lane, chunk to notify of, ...}.
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
  set_expiry()
  return answer
end

-- ARGV: id. Leased chunks may still finish; all others stop. Returns 0 for an unknown job.
local function cancel()
  local status = redis.call('HGET', META, 'status')
  if not status then return 0 end
  if status ~= 'draft' and status ~= 'queued' and status ~= 'running' then return 1 end
  if redis.call('ZCARD', LEASES) == 0 then finish('cancelled')
  else
    redis.call('HSET', META, 'status', 'cancelling')
    redis.call('DEL', NOTIFIED)
    publish('cancelling')
  end
  return 1
end

-- ARGV: id. Removes the items of a job that was not submitted. Returns 0 if it was submitted, which a
-- caller does not know when the answer to `submit` was lost.
local function abandon()
  if redis.call('EXISTS', META) == 1 then return 0 end
  redis.call('UNLINK', unpack(KEYS))
  return 1
end

-- ARGV: id. Returns 0 for an unknown job.
local function erase()
  if redis.call('EXISTS', META) == 0 then return 0 end
  settle()
  redis.call('ZREM', HOOKS, JOB)
  redis.call('ZREM', MANIFESTS, JOB)
  redis.call('UNLINK', unpack(KEYS))
  publish('erased')
  return 1
end
