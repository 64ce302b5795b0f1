-- The clocks of the scripts; every script begins with this file.
-- `last` is the latest time that Redis told, `offset` what is added because its clock stepped back.
local CLOCK = 'piqueue:clock'

-- The time that people see, in ms since 1970.
local function wall_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The time for leases and schedules: it never steps back, whatever the clock of Redis does.
local function now_ms()
  local wall, clock = wall_ms(), redis.call('HMGET', CLOCK, 'last', 'offset')
  local last, offset = tonumber(clock[1]) or 0, tonumber(clock[2]) or 0
  if wall < last then
    offset = offset + last - wall
    redis.call('HSET', CLOCK, 'offset', offset)
  end
  if wall ~= last then redis.call('HSET', CLOCK, 'last', wall) end
  return wall + offset
end
