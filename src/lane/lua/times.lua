-- Times that a script makes of numbers.

local inner = ...
local host, raise, describe, numbers = inner.host, inner.raise, inner.describe, inner.numbers
local mtype = math.type

local UNITS <const> = { s = "seconds", ms = "milliseconds" }

-- The function `timestamp` of scripts: the time that many seconds, or units, after 1970 began, as a timestamptz column
-- has it. Digits after the microsecond are cut off.
local function timestamp(value, unit)
  unit = unit == nil and "s" or unit
  local name = UNITS[unit]
  if not name then raise('timestamp: expected the unit "s" or "ms", got %s', describe(unit)) end
  local text, problem
  if mtype(value) == "float" then
    text, problem = host.numeric_float(value)
  else
    local number
    number, problem = numbers.parse(value)
    text = number and numbers.text(number)
  end
  if not text then raise("timestamp: expected %s since 1970, got %s (%s)", name, describe(value), problem) end
  local time = host.time_since_1970(text, unit)
  return time or raise("timestamp: %s %s since 1970 lie outside the years -4712 to 9999", text, name)
end

return { timestamp = timestamp }
