-- Exact numbers for scripts.
--
-- A whole number below 10^36 is two limbs of base 10^18, {high, low} with 0 <= low < 10^18, and never leaves Lua.
-- Any other is {false, text}, its canonical text, and is computed by the host. A number has one form only, so that
-- equal numbers have equal fields. One that came as a number of JSON says so in [FROM_JSON]: passed on unchanged, it
-- becomes one again. Numbers are immutable.

local inner = ...
local host, raise, probe = inner.host, inner.raise, inner.probe

local SMALL <const> = 3037000499 -- its square fits 63 bits
local rawmeta, setmeta, rawset, rawequal, mtype, type = getmetatable, setmetatable, rawset, rawequal, math.type, type
local tonumber, find, sub, format = tonumber, string.find, string.sub, string.format

local meta = inner.told_apart({ __name = "numeric" })
local parse

local function text_of(high, low)
  if high < 0 then
    if low > 0 then
      high, low = -high - 1, LIMB - low
    else
      high = -high
    end
    if high == 0 then return format("-%d", low) end
    return format("-%d%018d", high, low)
  end
  if high == 0 then return format("%d", low) end
  return format("%d%018d", high, low)
end

local function make(high, low)
  if high >= LIMB or high < -LIMB or (high == -LIMB and low == 0) then
    return setmeta({ false, text_of(high, low) }, meta)
  end
  return setmeta({ high, low }, meta)
end

local function negate(high, low)
  if low > 0 then return -high - 1, LIMB - low end
  return -high, 0
end

-- The number of a text of digits, 36 of them at most.
local function from_digits(digits, negative)
  local high, low
  if #digits <= 18 then
    high, low = 0, tonumber(digits)
  else
    high, low = tonumber(sub(digits, 1, -19)), tonumber(sub(digits, -18))
  end
  if negative then
    high, low = negate(high, low)
  end
  return setmeta({ high, low }, meta)
end

local function from_canonical(text)
  local first, last = find(text, "^%-?%d+$")
  if first then
    local negative = sub(text, 1, 1) == "-"
    if last <= (negative and 37 or 36) then return from_digits(negative and sub(text, 2) or text, negative) end
  end
  return setmeta({ false, text }, meta)
end

local function from_integer(value)
  return setmeta({ value // LIMB, value % LIMB }, meta)
end

-- The number of some digits in JSON.
local function from_json(digits)
  local number = from_canonical(digits)
  rawset(number, FROM_JSON, true)
  return number
end

-- The number that a float means: its shortest decimal form. Of more digits than a float keeps (15), that is known only
-- of a float that came with the event and was not computed with.
local FLOAT_DIGITS <const> = 15
local function from_float(value, is_strict)
  local text, problem, digits = host.numeric_float(value)
  if not text then return nil, problem end
  if is_strict and digits > FLOAT_DIGITS and not host.is_given(value) then
    return nil, text .. " has more digits than a float keeps: compute with numeric(…), or give it as a text"
  end
  return from_canonical(text)
end

-- A number from a text, an integer or a float; nil and a message if it is none. If it `is_compared`, any float will do.
function parse(value, is_compared)
  local kind = type(value)
  if kind == "string" then
    if #value <= 36 and find(value, "^%d+$") then return from_digits(value, false) end
    local text, problem = host.numeric_text(value)
    if text then return from_canonical(text) end
    return nil, problem
  elseif kind == "number" then
    if mtype(value) == "integer" then return from_integer(value) end
    return from_float(value, not is_compared)
  elseif meta == rawmeta(value) then
    return value
  end
  return nil, "expected a number or a text of digits, got " .. kind
end

-- Texts of the current event that are whole numbers, each before its limbs, which came along. NaN equals nothing.
local hints = {}
for at = 1, 3 * HINTS_MAX, 3 do
  hints[at], hints[at + 1], hints[at + 2] = 0 / 0, 0, 0
end

local function operand(value)
  if meta == rawmeta(value) then return value end
  local number, problem = parse(value)
  if not number then raise("numeric: " .. problem) end
  return number
end

local function text(number)
  local high = number[1]
  if high then return text_of(high, number[2]) end
  return number[2]
end

local function by_host(operation, a, b)
  local result, problem = host.numeric_op(operation, text(a), text(b))
  if not result then raise("numeric: " .. problem) end
  return from_canonical(result)
end

-- These two are most of what handlers compute: all in one function.
function meta.__add(a, b)
  if meta ~= rawmeta(a) then
    a = operand(a)
  elseif meta ~= rawmeta(b) then
    b = operand(b)
  end
  local high, other = a[1], b[1]
  if high and other then
    local low = a[2] + b[2]
    high = high + other
    if low >= LIMB then
      high, low = high + 1, low - LIMB
    end
    if high < LIMB and high > -LIMB then return setmeta({ high, low }, meta) end
    return make(high, low)
  end
  return by_host("+", a, b)
end

function meta.__sub(a, b)
  if meta ~= rawmeta(a) then
    a = operand(a)
  elseif meta ~= rawmeta(b) then
    b = operand(b)
  end
  local high, other = a[1], b[1]
  if high and other then
    local low = a[2] - b[2]
    high = high - other
    if low < 0 then
      high, low = high - 1, low + LIMB
    end
    if high < LIMB and high > -LIMB then return setmeta({ high, low }, meta) end
    return make(high, low)
  end
  return by_host("-", a, b)
end

function meta.__mul(a, b)
  a, b = operand(a), operand(b)
  if a[1] == 0 and b[1] == 0 and a[2] <= SMALL and b[2] <= SMALL then return from_integer(a[2] * b[2]) end
  return by_host("*", a, b)
end

function meta.__div(a, b)
  return by_host("/", operand(a), operand(b))
end

function meta.__idiv(a, b)
  a, b = operand(a), operand(b)
  if a[1] == 0 and b[1] == 0 and b[2] > 0 then return from_integer(a[2] // b[2]) end
  return by_host("//", a, b)
end

function meta.__mod(a, b)
  a, b = operand(a), operand(b)
  if a[1] == 0 and b[1] == 0 and b[2] > 0 then return from_integer(a[2] % b[2]) end
  return by_host("%", a, b)
end

function meta.__unm(a)
  local high, low = a[1], a[2]
  if high then
    if low > 0 then return setmeta({ -high - 1, LIMB - low }, meta) end
    return setmeta({ -high, 0 }, meta)
  end
  return by_host("-", from_integer(0), a)
end

function meta.__eq(a, b)
  if meta ~= rawmeta(a) or meta ~= rawmeta(b) then
    if rawequal(b, probe) then raise("numeric: a number cannot be changed") end
    return false
  end
  return a[1] == b[1] and a[2] == b[2]
end

-- Whether a value is a float that is no finite number.
local function is_odd(value)
  return mtype(value) == "float" and value - value ~= 0
end

-- Two values to be compared: numbers, or, if one is a float that is no finite number, floats.
local function comparable(a, b)
  if is_odd(a) or is_odd(b) then return meta == rawmeta(a) and 0.0 or a, meta == rawmeta(b) and 0.0 or b end
  local number, problem = parse(a, true)
  local other, other_problem = parse(b, true)
  if not (number and other) then raise("numeric: " .. (problem or other_problem)) end
  return number, other
end

-- How two numbers stand that the host has to compare: below zero, zero, or above.
local function order_of(a, b)
  local order, problem = host.numeric_compare(text(a), text(b))
  if not order then raise("numeric: " .. problem) end
  return order
end

function meta.__lt(a, b)
  if meta ~= rawmeta(a) or meta ~= rawmeta(b) then
    a, b = comparable(a, b)
    if mtype(a) or mtype(b) then return a < b end
  end
  local ah, bh = a[1], b[1]
  if ah and bh then return ah < bh or (ah == bh and a[2] < b[2]) end
  return order_of(a, b) < 0
end

function meta.__le(a, b)
  if meta ~= rawmeta(a) or meta ~= rawmeta(b) then
    a, b = comparable(a, b)
    if mtype(a) or mtype(b) then return a <= b end
  end
  local ah, bh = a[1], b[1]
  if ah and bh then return ah < bh or (ah == bh and a[2] <= b[2]) end
  return order_of(a, b) <= 0
end

meta.__tostring = text

-- What `..` puts into a text, with all digits.
local function joined(value)
  if meta == rawmeta(value) then return text(value) end
  if mtype(value) == "float" then return inner.float_text(value) end
  return value
end

function meta.__concat(a, b)
  return joined(a) .. joined(b)
end

function meta.__newindex()
  raise("numeric: a number cannot be changed")
end

function meta.__len()
  raise("#: a number has no length; tostring(…) gives its digits")
end

-- The plain number that is the same, an integer or a float; nil if there is none.
local function plain(number)
  local high, low = number[1], number[2]
  if high and (high == 0 or high == -1 or (high < 9 and high >= -9)) then return high * LIMB + low end
  local digits = text(number)
  return host.integer(digits) or (find(digits, ".", 1, true) and host.float_of(digits)) or nil
end

-- The whole number that is not above it, or not below: a plain one if it fits.
local function rounded(number, is_up)
  local whole = is_up and -(-number // 1) or number // 1
  return plain(whole) or whole
end

local numbers = {
  meta = meta,
  parse = parse,
  text = text,
  canonical = from_canonical,
  from_json = from_json,
  from_float = from_float,
  plain = plain,
  rounded = rounded,
  -- A number that crossed the border as two limbs, or as text where they do not suffice.
  from_limbs = function(high, low, spilled)
    if spilled ~= "" then return from_canonical(spilled) end
    return make(high, low)
  end,
  hints = hints,
  -- The function `numeric` of scripts.
  new = function(value)
    if value == hints[1] then return setmeta({ hints[2], hints[3] }, meta) end
    for at = 4, 3 * HINTS_MAX, 3 do
      if value == hints[at] then return setmeta({ hints[at + 1], hints[at + 2] }, meta) end
    end
    local number, problem = parse(value)
    if not number then raise("numeric: " .. problem) end
    if number[FROM_JSON] then return setmeta({ number[1], number[2] }, meta) end
    return number
  end,
}

return { numbers = numbers, numeric_meta = meta, exact = from_json, canonical = from_canonical }
