-- The ledger's atomic steps, one library with ready.lua, which begins with WAKE_UP (wake_up.py). For most
-- steps ARGV[1] is the id of the job.
local JOB, META, ITEMS, RESULTS, DONE, RETURNED, ATTEMPTS, QUARANTINE, DRAFT, IDS
local WEBHOOK, WEBHOOK_LOG, BLOBS, THUMBNAILS

-- What was read of the record and what is set, and the fields and values that are not written yet.
local RECORD, CHANGES

local function write()
  if #CHANGES > 0 then redis.call('HSET', META, unpack(CHANGES)) end
  CHANGES = {}
end

-- Makes `job` the one that the functions below are about.
local function use(job)
  if job == JOB then return end
  write()
  local function key(name) return 'piqueue:{' .. job .. '}:' .. name end
  JOB, META, ITEMS, RESULTS, RECORD = job, key('meta'), key('in'), key('res'), nil
  -- A bit for each chunk with results, if there are several chunks.
  DONE = key('done')
  -- Chunks that were claimed and came back, by when, and how often each did.
  RETURNED, ATTEMPTS, QUARANTINE = key('returned'), key('attempts'), key('quarantine')
  DRAFT, IDS, WEBHOOK, WEBHOOK_LOG = key('draft'), key('ids'), key('webhook'), key('webhook_log')
  -- Uploads that are stored in Redis (blobs.py).
  BLOBS = key('blobs')
  -- The thumbnails of each chunk that are stored in Redis.
  THUMBNAILS = key('thumbnails')
end

-- Unfinished items by OWNER and, as '*', of all; unfinished jobs, as '*jobs'; and, as 'OWNER bytes', the
-- uploads, thumbnails and features that are stored. A count that is 0 is left out.
local COUNTS = 'piqueue:counts'
-- What this step adds to the counts.
local COUNTED
-- Items that are leased, of all jobs.
local RUNNING = 'piqueue:running'
-- What recovery must do, by when: 'lease JOB CHUNK ITEMS ATTEMPT', 'defer JOB CHUNK',
local DUE = 'piqueue:due'
-- and, after these, 'expire JOB OWNER'.
local EXPIRIES = 'piqueue:expiries'
-- Drafts by when a request last used them.
local DRAFTS = 'piqueue:drafts'
-- The list of Celery's queue.
local QUEUE = 'piqueue:wake-ups'
-- A model card is written again only once its jobs of this time need it for longer.
local CARD_SPARE_MS = 3600000
-- Jobs with an undelivered webhook, by when the next attempt is due (outbox.lua).
local HOOKS = 'piqueue:hooks'
-- Finished jobs without a manifest, by when it is due (schedule.py).
local MANIFESTS = 'piqueue:manifests'

-- A field of the record, or false. The record is read once.
local function get(field)
  if not RECORD then
    RECORD = {}
    local read = redis.call('HGETALL', META)
    for at = 1, #read, 2 do RECORD[read[at]] = read[at + 1] end
  end
  return RECORD[field] or false
end

local function number(field)
  return tonumber(get(field)) or 0
end

-- Sets fields of the record, given with their values; `write` stores them at the end of the step.
local function set(...)
  local pairs_of = {...}
  for at = 1, #pairs_of, 2 do
    get(pairs_of[at])
    RECORD[pairs_of[at]] = pairs_of[at + 1]
    CHANGES[#CHANGES + 1] = pairs_of[at]
    CHANGES[#CHANGES + 1] = pairs_of[at + 1]
  end
end

local function increase(field, by)
  local sum = number(field) + by
  set(field, sum)
  return sum
end

local function publish(status)
  redis.call('PUBLISH', 'piqueue:events', JOB .. ' ' .. status)
end

local function list_of(owner, status)
  return 'piqueue:jobs:' .. owner .. (status and ':' .. status or '')
end

local function expiry_entry()
  return 'expire ' .. JOB .. ' ' .. get('owner')
end

local function schedule_expiry()
  redis.call('ZADD', EXPIRIES, now_ms() + get('ttl_ms'), expiry_entry())
end

local function set_status(status)
  local owner, before = get('owner'), get('status')
  if before == 'draft' then redis.call('ZREM', DRAFTS, JOB) end
  if not get('unlisted') then
    if before then redis.call('ZREM', list_of(owner, before), JOB) end
    redis.call('ZADD', list_of(owner, status), 0, JOB)
  end
  set('status', status)
end

local function make_ready()
  add_ready(get('lane'), get('owner'), JOB, number('submitted_ms'))
end

local function make_unready()
  remove_ready(get('lane'), get('owner'), JOB)
end

local function count(name, by)
  COUNTED[name] = (COUNTED[name] or 0) + by
end

local function write_counts()
  local names, changed, zero = {}, {}, {}
  for name, by in pairs(COUNTED) do
    if by ~= 0 then names[#names + 1] = name end
  end
  if #names == 0 then return end
  for at, before in ipairs(redis.call('HMGET', COUNTS, unpack(names))) do
    local sum = (before or 0) + COUNTED[names[at]]
    if sum > 0 then
      changed[#changed + 1] = names[at]
      changed[#changed + 1] = sum
    else zero[#zero + 1] = names[at] end
  end
  if #changed > 0 then redis.call('HSET', COUNTS, unpack(changed)) end
  if #zero > 0 then redis.call('HDEL', COUNTS, unpack(zero)) end
end

-- Adds to the counts of unfinished items.
local function count_items(by)
  count('*', by)
  count(get('owner'), by)
end

-- Adds to what is stored of a job and of its owner; that of a job is never less than nothing.
local function count_stored(bytes)
  local stored = number('stored_bytes')
  bytes = math.max(bytes, -stored)
  if bytes == 0 then return end
  set('stored_bytes', stored + bytes)
  count(get('owner') .. ' bytes', bytes)
end

local UNFINISHED = {queued = true, running = true, cancelling = true}

-- Takes what is left of an unfinished job out of the counts and the ready index. Returns how many items
-- have no result.
local function withdraw()
  local items = number('total') - number('succeeded') - number('failed')
  if UNFINISHED[get('status')] then
    count_items(-items)
    count('*jobs', -1)
    if items > 0 then make_unready() end
  end
  return items
end

-- Tells that a job of one item is done, with what its reader needs: the lengths of the parts, then these,
-- which are the fields and values of the record, the items and the results.
local function publish_end(status, results)
  local parts, lengths = {}, {}
  for field, value in pairs(RECORD) do
    parts[#parts + 1] = field
    parts[#parts + 1] = tostring(value)
  end
  parts[#parts + 1] = redis.call('HGET', ITEMS, 0)
  parts[#parts + 1] = results
  for at, part in ipairs(parts) do lengths[at] = #part end
  publish(status .. ' ' .. table.concat(lengths, ' ') .. '\n' .. table.concat(parts))
end

-- `results` are those of a job of one item, if it has some.
local function finish(status, results)
  local without_result = withdraw()
  set_status(status)
  set('finished_ms', wall_ms(), 'cancelled', without_result, 'running', 0)
  if number('given_up') > 0 then redis.call('UNLINK', RETURNED, ATTEMPTS, QUARANTINE) end
  if get('webhook_url') then redis.call('ZADD', HOOKS, now_ms(), JOB) end
  if number('parts') == 1 then redis.call('ZADD', MANIFESTS, now_ms(), JOB) end
  if results and number('awaited') == 1 then publish_end(status, results) else publish(status) end
end

local function claimable()
  return number('next_chunk') < number('chunk_count')
    or number('given_up') > 0 and redis.call('EXISTS', RETURNED) == 1
end

-- Puts up to `most` messages on the queue, and no more than make every slot of the workers look for work.
local function wake(slots, most)
  for number = 1, math.min(most, slots - redis.call('LLEN', QUEUE)) do
    local name = string.format('%s-%d-%d', JOB or 'recovery', now_ms(), number)
    redis.call('LPUSH', QUEUE, (string.gsub(WAKE_UP, '{id}', name)))
  end
end

local function items_of(chunk)
  local size = number('chunk_items')
  return math.min(size, number('total') - chunk * size)
end

local function lease_of(chunk, attempt)
  return string.format('lease %s %d %d %d', JOB, chunk, items_of(chunk), attempt)
end

-- How many attempts at a chunk ended without results.
local function ended_attempts(chunk)
  return tonumber(redis.call('HGET', ATTEMPTS, chunk)) or 0
end

-- Ends a lease; false if there is none. A chunk without a lease or a result is claimable or deferred.
local function end_lease(chunk, attempt)
  if redis.call('ZREM', DUE, lease_of(chunk, attempt)) == 0 then return false end
  redis.call('DECRBY', RUNNING, items_of(chunk))
  local status = get('status')
  if status == 'running' or status == 'cancelling' then increase('running', -items_of(chunk)) end
  return true
end

-- The lease of `attempt`, or else that of the latest attempt.
local function end_latest_lease(chunk, attempt)
  return end_lease(chunk, attempt) or end_lease(chunk, ended_attempts(chunk) + 1)
end

-- Ends an attempt without results. A job where this never happened has no returned chunks, attempts and
-- quarantine.
local function give_up(chunk, attempt)
  if not end_lease(chunk, attempt) or get('status') ~= 'running' then return end
  increase('given_up', 1)
  redis.call('HSET', ATTEMPTS, chunk, attempt)
end

local function return_chunk(chunk)
  local status = get('status')
  if status == 'running' then
    redis.call('ZADD', RETURNED, now_ms(), chunk)
    make_ready()
  elseif status == 'cancelling' and number('running') == 0 then
    finish('cancelled')
  end
end

-- Stores the model card, which all jobs of the model share, and lists the job under its owner.
local function register(card)
  local digest = redis.sha1hex(card)
  local shared, ttl_ms = 'piqueue:card:' .. digest, number('ttl_ms')
  if redis.call('PTTL', shared) < ttl_ms then
    redis.call('SET', shared, card, 'PX', ttl_ms + CARD_SPARE_MS)
  end
  set('card', digest)
  if not get('unlisted') then redis.call('ZADD', list_of(get('owner')), 0, JOB) end
end

-- ARGV: id, model card, then the fields and values of the record.
local function open_draft()
  set(unpack(ARGV, 3))
  register(ARGV[2])
  set('created_ms', wall_ms(), 'expires_ms', wall_ms() + number('ttl_ms'), 'total', 0, 'succeeded', 0,
    'failed', 0, 'cancelled', 0)
  set_status('draft')
  redis.call('ZADD', DRAFTS, now_ms(), JOB)
  schedule_expiry()
end

-- Appended to the fingerprint of an id whose item is in the draft.
local ADDED = '+'

-- ARGV: id, then for each item its id, or '' for the next free number, its fingerprint, and what names
-- it without an id when its request is repeated, or ''. Reserves the ids before the uploads are stored,
-- so that no upload replaces another. Returns the id and the state of each item: free, added (the draft
-- has this item) or taken (it has another of this id); false if no draft is open.
local function reserve()
  if get('status') ~= 'draft' or number('closed') == 1 then return false end
  local answer, next_number = {}, math.max(number('next_number'), number('total'))
  for index = 2, #ARGV, 3 do
    local item, fingerprint, name = ARGV[index], ARGV[index + 1], ARGV[index + 2]
    if item == '' then
      item = name ~= '' and redis.call('HGET', IDS, name)
      if not item then
        while redis.call('HEXISTS', IDS, next_number) == 1 do next_number = next_number + 1 end
        item = string.format('%d', next_number)
        if name ~= '' then redis.call('HSET', IDS, name, item) end
      end
    end
    local found = redis.call('HGET', IDS, item)
    local state = 'taken'
    if not found or found == fingerprint then state = 'free'
    elseif found == fingerprint .. ADDED then state = 'added' end
    if not found then redis.call('HSET', IDS, item, fingerprint) end
    answer[#answer + 1] = item
    answer[#answer + 1] = state
  end
  set('next_number', next_number)
  return answer
end

-- ARGV: id. A request uses the draft.
local function touch()
  redis.call('ZADD', DRAFTS, 'XX', now_ms(), JOB)
end

-- ARGV: owner. Returns how many drafts the owner has, and their items.
local function drafts_of()
  local drafts, items = redis.call('ZRANGE', list_of(ARGV[1], 'draft'), 0, -1), 0
  for _, draft in ipairs(drafts) do
    use(draft)
    items = items + number('total')
  end
  return {#drafts, items}
end

-- ARGV: id, maximum of items, bytes of their uploads, then the reserved id, the fingerprint and the
-- row of each item.
-- Returns for each 1 if it is new, 0 if another request has added it meanwhile; -1 if no draft is
-- open, -2 if there would be too many.
local function add()
  local status = get('status')
  -- Uploads that were stored just now expire, but those of a job live as long as it does.
  if status and status ~= 'draft' then redis.call('PERSIST', BLOBS) end
  if status ~= 'draft' or number('closed') == 1 then return -1 end
  local answer, added = {}, 0
  for index = 4, #ARGV, 3 do
    local is_new = redis.call('HGET', IDS, ARGV[index]) == ARGV[index + 1]
    if is_new then redis.call('HSET', IDS, ARGV[index], ARGV[index + 1] .. ADDED) end
    answer[#answer + 1] = is_new and 1 or 0
    added = added + answer[#answer]
  end
  if number('total') + added > tonumber(ARGV[2]) then
    for position, is_new in ipairs(answer) do
      local index = 3 * position + 1
      if is_new == 1 then redis.call('HSET', IDS, ARGV[index], ARGV[index + 1]) end
    end
    return -2
  end
  for position, is_new in ipairs(answer) do
    if is_new == 1 then redis.call('RPUSH', DRAFT, ARGV[3 * position + 3]) end
  end
  if added > 0 then
    increase('total', added)
    count_stored(tonumber(ARGV[3]))
  end
  return answer
end

-- ARGV: id. The draft accepts no more items. Returns 0 if there is no draft.
local function close()
  if get('status') ~= 'draft' then return 0 end
  set('closed', 1)
  return 1
end

-- ARGV: id, slots of all workers, model card, count of chunks, key, value and time to live in seconds
-- of an extra key (or '' three times), how many items of this owner and of all owners may be unfinished,
-- owner and items of the job, how many bytes its owner may store, bytes of the uploads that do not count
-- yet, then three hashes, each as the number of its fields and values and these: the chunks that are not
-- stored yet, the record, and the uploads that are not stored yet. Wakes workers, and returns 1, -1
-- if too many items are unfinished, -2 if the owner would store too much, or false if some items are lost.
local function submit()
  local status, slots, chunks = get('status'), tonumber(ARGV[2]), tonumber(ARGV[4])
  -- Repeated because the first answer was lost.
  if status and status ~= 'draft' then return 1 end
  local owner, total, uploads = ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[13])
  local of_owner, of_all, stored = unpack(redis.call('HMGET', COUNTS, owner, '*', owner .. ' bytes'))
  local fits = (of_owner or 0) + total <= tonumber(ARGV[8]) and (of_all or 0) + total <= tonumber(ARGV[9])
  if not fits then return -1 end
  if uploads > 0 and (stored or 0) + uploads > tonumber(ARGV[12]) then return -2 end
  local missing = chunks - ARGV[14] / 2
  -- A Redis that was killed may have lost its last second.
  if missing > 0 and redis.call('HLEN', ITEMS) < missing then return false end
  if ARGV[5] ~= '' then redis.call('SET', ARGV[5], ARGV[6], 'EX', ARGV[7]) end
  local at, has_uploads = 14, false
  for _, hash in ipairs({ITEMS, META, BLOBS}) do
    local last = at + ARGV[at]
    if hash == META then set(unpack(ARGV, at + 1, last))
    elseif last > at then
      redis.call('HSET', hash, unpack(ARGV, at + 1, last))
      has_uploads = hash == BLOBS
    end
    at = last + 1
  end
  register(ARGV[3])
  local wall = wall_ms()
  set('expires_ms', wall + number('ttl_ms'), 'submitted_ms', wall, 'ready_ms', now_ms(), 'running', 0,
    'succeeded', 0, 'failed', 0, 'cancelled', 0, 'done_chunks', 0, 'next_chunk', 0)
  if not get('created_ms') then set('created_ms', wall) end
  set_status('queued')
  count_items(total)
  count('*jobs', 1)
  count_stored(uploads)
  schedule_expiry()
  make_ready()
  -- What was stored before would expire without this step.
  if missing > 0 then redis.call('PERSIST', ITEMS) end
  if not has_uploads then redis.call('PERSIST', BLOBS) end
  if status then redis.call('UNLINK', DRAFT, IDS) end
  -- Nobody knows a job that was no draft yet.
  if status then publish('queued') end
  wake(slots, chunks)
  return 1
end

-- Leases a chunk; returns the attempt.
local function claim(chunk, is_returned, lease_ms)
  local attempt, items = 1, items_of(chunk)
  if is_returned then
    attempt = ended_attempts(chunk) + 1
    local checkpoint = redis.call('HGET', QUARANTINE, 'at:' .. chunk)
    if checkpoint then
      local deaths = redis.call('HGET', QUARANTINE, 'deaths:' .. chunk) or ''
      redis.call('HSET', QUARANTINE, 'deaths:' .. chunk, deaths .. checkpoint .. ' ')
      redis.call('HDEL', QUARANTINE, 'at:' .. chunk)
    end
  end
  redis.call('ZADD', DUE, now_ms() + lease_ms, lease_of(chunk, attempt))
  redis.call('INCRBY', RUNNING, items)
  increase('running', items)
  if get('status') == 'queued' then
    set_status('running')
    set('started_ms', wall_ms())
    -- Nobody follows a job that is in no list.
    if not get('unlisted') then publish('running') end
  end
  set('ready_ms', now_ms())
  return attempt
end

-- Returns {id, chunk, attempt, ms that the job waited for this turn, items, checkpointed position of
-- each death, deferrals, the upload of a job of one item, and of the record: lane, items in a chunk,
-- use of the cache, whether results become files, how many items get thumbnails, name, version and hash
-- of the model, trace context, whether features are kept, the job whose features are scored}.
local function describe(chunk, attempt, waited_ms)
  local has_upload = number('total') == 1 and number('uploads') == 1
  local upload = has_upload and redis.call('HVALS', BLOBS)[1] or false
  local deaths, deferrals = '', 0
  if tonumber(attempt) > 1 then
    deaths = redis.call('HGET', QUARANTINE, 'deaths:' .. chunk) or ''
    deferrals = tonumber(redis.call('HGET', ATTEMPTS, 'deferrals:' .. chunk)) or 0
  end
  return {JOB, tonumber(chunk), tonumber(attempt), tonumber(waited_ms), redis.call('HGET', ITEMS, chunk),
    deaths, deferrals, upload, get('lane'), get('chunk_items'), get('use_cache'), get('parts'),
    get('thumbnails'), get('model'), get('version'), get('sha256'), get('traceparent'),
    get('keep_features'), get('rescore_of')}
end

local function holds(chunk, attempt)
  local status = get('status')
  return (status == 'running' or status == 'cancelling')
    and redis.call('ZSCORE', DUE, lease_of(chunk, attempt)) ~= false
end

-- Leases the next chunk of a job in the ready index, of which it may be all. Returns {job, chunk, attempt,
-- ms that it waited}.
local function claim_of(lane, owner, job, is_alone, share, lease_ms)
  use(job)
  local chunk, since_ms
  if number('given_up') > 0 then chunk, since_ms = unpack(redis.call('ZPOPMIN', RETURNED)) end
  local is_returned = chunk ~= nil
  if not is_returned then chunk, since_ms = increase('next_chunk', 1) - 1, number('ready_ms') end
  local items, waited_ms = items_of(chunk), now_ms() - since_ms
  local goes_on = claimable()
  if is_alone and not goes_on then clear_ready(lane, owner)
  else
    charge(lane, owner, goes_on and job, items, share)
    if not goes_on then make_unready() end
  end
  return {job, chunk, claim(chunk, is_returned, lease_ms), waited_ms}
end

-- The model of a job whose only item is an upload in Redis that was not claimed yet, or nil. It waits
-- for no host and no other store, so several such jobs of one owner are claimed together.
local function batchable()
  local one_upload = number('total') == 1 and number('uploads') == 1 and number('use_cache') == 0
    and number('keep_features') ~= 1
  return one_upload and get('status') == 'queued' and get('model_key') or nil
end

-- ARGV: lease in ms, share of the bulk lane, keys of the models that are warm, and of those that the
-- worker leaves to others, each as a JSON object, name of this request, chunks at most, slots of all
-- workers. Returns what `describe` does for each chunk. More than one is claimed if an owner has more
-- batchable jobs than the workers have slots.
local function claim_next()
  local lease_ms, request = ARGV[1], 'piqueue:claim:' .. ARGV[5]
  local answer = {}
  local earlier = redis.call('GET', request)
  if earlier then
    -- Its first answer was lost.
    for job, chunk, attempt, waited_ms in string.gmatch(earlier, '(%S+) (%S+) (%S+) (%S+)\n') do
      use(job)
      if holds(chunk, attempt) then answer[#answer + 1] = describe(chunk, attempt, waited_ms) end
    end
    if #answer > 0 then return answer end
  end
  local shares = {bulk = tonumber(ARGV[2]), interactive = 1 - ARGV[2]}
  local warm, others = cjson.decode(ARGV[3]), cjson.decode(ARGV[4])
  local model_key

  local function usable(lane, owner, job)
    use(job)
    model_key = get('model_key')
    -- A Redis that evicts keys has deleted the record.
    if not model_key then remove_ready(lane, owner, job) end
    return model_key and not others[model_key]
  end
  local function preferred() return warm[model_key] end

  local lane, owner, job, is_alone = next_ready(usable, preferred)
  if not job then return answer end
  use(job)
  local batch_key, claimed = batchable(), ''
  local most = 1
  if batch_key and not is_alone then
    most = math.min(ARGV[6], math.ceil(redis.call('ZCARD', jobs_of(lane, owner)) / ARGV[7]))
  end
  while true do
    local chunk = claim_of(lane, owner, job, is_alone, shares[lane], lease_ms)
    claimed = claimed .. table.concat(chunk, ' ') .. '\n'
    answer[#answer + 1] = describe(unpack(chunk, 2))
    if #answer >= most then break end
    job = redis.call('ZRANGE', jobs_of(lane, owner), 0, 0)[1]
    if not job then break end
    use(job)
    if batchable() ~= batch_key then break end
  end
  redis.call('SET', request, claimed, 'PX', lease_ms)
  return answer
end

-- ARGV: id, chunk, attempt, lease in ms. Returns 1 if the caller still has the lease.
local function renew()
  if not holds(ARGV[2], ARGV[3]) then return 0 end
  redis.call('ZADD', DUE, now_ms() + ARGV[4], lease_of(ARGV[2], ARGV[3]))
  return 1
end

-- ARGV: id, chunk, attempt, delay in ms, slots of all workers. The chunk can be claimed after the
-- delay, and the attempt does not count against its items.
local function release()
  local chunk, delay_ms = ARGV[2], tonumber(ARGV[4])
  if not holds(chunk, ARGV[3]) then return end
  if get('status') == 'running' then redis.call('HINCRBY', ATTEMPTS, 'deferrals:' .. chunk, 1) end
  redis.call('HDEL', QUARANTINE, 'at:' .. chunk)
  give_up(chunk, ARGV[3])
  if delay_ms == 0 or get('status') ~= 'running' then
    return_chunk(chunk)
    wake(tonumber(ARGV[5]), 1)
    return
  end
  redis.call('ZADD', DUE, now_ms() + delay_ms, 'defer ' .. JOB .. ' ' .. chunk)
end

-- ARGV: id, chunk, attempt, position of the item that is about to be scored, or ''.
local function checkpoint()
  if not holds(ARGV[2], ARGV[3]) then return 0 end
  if ARGV[4] == '' then
    redis.call('HDEL', QUARANTINE, 'at:' .. ARGV[2])
  else
    redis.call('HSET', QUARANTINE, 'at:' .. ARGV[2], ARGV[4])
  end
  return 1
end

-- The hosts of the largest weight are listed; the others are summed in '*'.
local KEPT_HOSTS, FAILURE_WEIGHT = 50, 10

-- Adds host statistics, as JSON (host_statistics.py): by name, {ok, timeouts, other,
-- {status: count}, {responses by duration}}.
local function add_hosts(counted)
  local hosts = cjson.decode(get('hosts') or '{}')
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
  set('hosts', cjson.encode(hosts))
end

-- Arguments: id, chunk, attempt, results, bytes of its thumbnails and features, the thumbnails or '' if
-- they are not stored in Redis, succeeded, failed, cached, host statistics or '', how many codes of
-- failures, these with their counts, then bytes and ids of the uploads that have scores. The first commit
-- of a chunk wins. Returns whether this one did.
local function commit(id, chunk, attempt, results, stored_bytes, thumbnails, succeeded_now, failed_now,
    cached, hosts, codes, ...)
  use(id)
  local status, rest = get('status'), {...}
  if status ~= 'running' and status ~= 'cancelling' then return 0 end
  if redis.call('HSETNX', RESULTS, chunk, results) == 0 then
    -- A Redis that lost its last claim before this chunk was committed has given it out again.
    end_latest_lease(chunk, attempt)
    if status == 'cancelling' and number('running') == 0 then finish('cancelled') end
    -- The same results are sent again if the first answer was lost.
    return redis.call('HGET', RESULTS, chunk) == results and 1 or 0
  end
  if number('chunk_count') > 1 then redis.call('SETBIT', DONE, chunk, 1) end
  if thumbnails ~= '' then redis.call('HSET', THUMBNAILS, chunk, thumbnails) end
  count_stored(tonumber(stored_bytes))
  if not end_latest_lease(chunk, attempt) then
    -- The lease of this attempt had expired, and no other worker has claimed the chunk.
    redis.call('ZREM', DUE, 'defer ' .. JOB .. ' ' .. chunk)
    if redis.call('ZREM', RETURNED, chunk) == 1 and not claimable() then make_unready() end
  end
  if number('given_up') > 0 then
    redis.call('HDEL', ATTEMPTS, chunk, 'deferrals:' .. chunk)
    redis.call('HDEL', QUARANTINE, 'at:' .. chunk, 'deaths:' .. chunk)
  end
  local succeeded = increase('succeeded', tonumber(succeeded_now))
  local failed = increase('failed', tonumber(failed_now))
  count_items(-succeeded_now - failed_now)
  if tonumber(cached) > 0 then increase('cached', tonumber(cached)) end
  if hosts ~= '' then add_hosts(hosts) end
  for index = 1, 2 * codes, 2 do
    increase('failure:' .. rest[index], tonumber(rest[index + 1]))
  end
  local first_id = 2 * codes + 2
  if #rest >= first_id then
    redis.call('HDEL', BLOBS, unpack(rest, first_id))
    count_stored(-rest[first_id - 1])
  end
  -- What finished in each ten seconds, for the rates.
  local bucket = 'piqueue:rate:' .. math.floor(wall_ms() / 10000)
  redis.call('HINCRBY', bucket, 'items', succeeded_now + failed_now)
  if redis.call('HINCRBY', bucket, 'chunks', 1) == 1 then redis.call('EXPIRE', bucket, 90) end
  local done = increase('done_chunks', 1)
  local budget = tonumber(get('max_failures'))
  if budget and failed > budget then
    set('error', 'failure_budget')
    finish('failed')
  elseif done == number('chunk_count') then
    local its_results = number('total') == 1 and results
    if failed == 0 then finish('succeeded', its_results)
    elseif succeeded == 0 then finish('failed', its_results)
    else finish('partially_succeeded') end
  elseif status == 'cancelling' and number('running') == 0 then
    finish('cancelled')
  else
    publish(status)
  end
  return 1
end

-- ARGV: for each chunk, how many arguments of `commit` follow, and these. Returns whether work waits,
-- then its answers.
local function commit_all()
  local answers, at = {}, 1
  while ARGV[at] do
    local last = at + ARGV[at]
    answers[#answers + 1] = commit(unpack(ARGV, at + 1, last))
    at = last + 1
  end
  return {redis.call('EXISTS', READY), unpack(answers)}
end

-- ARGV: id. Leased chunks may still finish; all others stop. Returns 0 for an unknown job.
local function cancel()
  local status = get('status')
  if not status then return 0 end
  if status ~= 'draft' and status ~= 'queued' and status ~= 'running' then return 1 end
  if number('running') == 0 then
    if status == 'draft' then redis.call('UNLINK', DRAFT, IDS) end
    finish('cancelled')
  else
    make_unready()
    redis.call('DEL', RETURNED)
    set_status('cancelling')
    publish('cancelling')
  end
  return 1
end

local function unlink()
  RECORD, CHANGES = nil, {}
  redis.call('UNLINK', META, ITEMS, RESULTS, DONE, RETURNED, ATTEMPTS, QUARANTINE, DRAFT, IDS, WEBHOOK,
    WEBHOOK_LOG, BLOBS, THUMBNAILS)
end

-- ARGV: id. Removes the items of a job that was not submitted. Returns 0 if it was submitted, which a
-- caller does not know when the answer to `submit` was lost.
local function abandon()
  if redis.call('EXISTS', META) == 1 then return 0 end
  unlink()
  return 1
end

local function forget()
  local owner, status = get('owner'), get('status')
  withdraw()
  count(owner .. ' bytes', -number('stored_bytes'))
  redis.call('ZREM', EXPIRIES, expiry_entry())
  if status == 'draft' then redis.call('ZREM', DRAFTS, JOB) end
  if not get('unlisted') then
    redis.call('ZREM', list_of(owner), JOB)
    redis.call('ZREM', list_of(owner, status), JOB)
  end
  if get('webhook_url') then redis.call('ZREM', HOOKS, JOB) end
  if number('parts') == 1 then redis.call('ZREM', MANIFESTS, JOB) end
  unlink()
  publish('erased')
end

-- ARGV: id.
local function erase()
  if get('owner') then forget() end
end

-- ARGV: milliseconds. Erases the draft that no request has used for the longest time, if it is longer
-- than this. Returns its id, or false.
local function erase_idle_draft()
  local before = now_ms() - ARGV[1]
  local draft = redis.call('ZRANGE', DRAFTS, '-inf', before, 'BYSCORE', 'LIMIT', 0, 1)[1]
  if not draft then return false end
  redis.call('ZREM', DRAFTS, draft)
  use(draft)
  erase()
  return draft
end

-- ARGV: how much to do at most, slots of all workers. Ends expired leases, makes deferred chunks
-- claimable, erases expired jobs, and wakes workers if chunks wait. Returns what was done.
local function recover()
  local done = {}
  for _, schedule in ipairs({DUE, EXPIRIES}) do
    local due = redis.call('ZRANGE', schedule, '-inf', now_ms(), 'BYSCORE', 'LIMIT', 0, ARGV[1] - #done)
    for _, entry in ipairs(due) do done[#done + 1] = entry end
  end
  for _, entry in ipairs(done) do
    local kind, job, rest = string.match(entry, '^(%a+) (%S+) ?(.*)$')
    use(job)
    if kind == 'lease' then
      local chunk, items, attempt = string.match(rest, '^(%d+) (%d+) (%d+)$')
      if get('status') then
        give_up(chunk, attempt)
        return_chunk(chunk)
      else
        -- The job was erased.
        redis.call('ZREM', DUE, entry)
        redis.call('DECRBY', RUNNING, items)
      end
    elseif kind == 'defer' then
      redis.call('ZREM', DUE, entry)
      return_chunk(rest)
    elseif get('owner') then
      forget()
    else
      -- A Redis that evicts keys has deleted the record, or an earlier version has put the entry into DUE.
      redis.call('ZREM', EXPIRIES, entry)
      redis.call('ZREM', DUE, entry)
      unlink()
    end
  end
  if redis.call('EXISTS', READY) == 1 then wake(tonumber(ARGV[2]), math.huge) end
  return done
end

local function offer_step(name, step, needs_room)
  offer(name, function()
    JOB, CHANGES, COUNTED = nil, {}, {}
    local answer = step()
    write()
    write_counts()
    return answer
  end, needs_room)
end

local function offer_step_of_job(name, step, needs_room)
  offer_step(name, function()
    use(ARGV[1])
    return step()
  end, needs_room)
end

-- A full Redis accepts no new jobs and gives out no chunks; what is claimed can be committed, and jobs
-- can be cancelled and erased.
local NEEDS_ROOM = true
offer_step_of_job('open_draft', open_draft, NEEDS_ROOM)
offer_step_of_job('reserve', reserve, NEEDS_ROOM)
offer_step_of_job('add', add, NEEDS_ROOM)
offer_step_of_job('close', close, NEEDS_ROOM)
offer_step_of_job('submit', submit, NEEDS_ROOM)
offer_step_of_job('touch', touch)
offer_step_of_job('renew', renew)
offer_step_of_job('release', release)
offer_step_of_job('checkpoint', checkpoint)
offer_step_of_job('cancel', cancel)
offer_step_of_job('erase', erase)
offer_step_of_job('abandon', abandon)
offer_step('claim_next', claim_next, NEEDS_ROOM)
offer_step('commit_all', commit_all)
offer_step('recover', recover)
offer_step('drafts_of', drafts_of)
offer_step('erase_idle_draft', erase_idle_draft)
