-- Every library begins with this file: the clocks, and `offer`.
-- `last` is a time that Redis told at most TICK_MS ago, `offset` what is added because its clock
-- stepped back.
local CLOCK = 'piqueue:clock'
local TICK_MS = 1000

-- Keys and arguments of the call.
local KEYS, ARGV
-- Both times are read once in a call.
local wall_time, ledger_time

-- Makes `step` a function of the library. A full Redis refuses one that needs room.
local function offer(name, step, needs_room)
  redis.register_function{
    function_name = 'piqueue_' .. name .. '_' .. HASH,
    flags = needs_room and {} or {'allow-oom'},
    callback = function(keys, args)
      KEYS, ARGV, wall_time, ledger_time = keys, args, nil, nil
      return step()
    end
  }
end

-- The time that people see, in ms since 1970.
local function wall_ms()
  if not wall_time then
    local time = redis.call('TIME')
    wall_time = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return wall_time
end

-- The time for leases and schedules: it never steps back, whatever the clock of Redis does.
local function now_ms()
  if ledger_time then return ledger_time end
  local wall, clock = wall_ms(), redis.call('HMGET', CLOCK, 'last', 'offset')
  local last, offset = tonumber(clock[1]) or 0, tonumber(clock[2]) or 0
  if wall < last then
    offset = offset + last - wall
    redis.call('HSET', CLOCK, 'offset', offset)
  end
  if wall < last or wall >= last + TICK_MS then redis.call('HSET', CLOCK, 'last', wall) end
  ledger_time = wall + offset
  return ledger_time
end
