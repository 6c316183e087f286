-- Exact numbers for scripts.
--
-- A whole number below 10^36 is two limbs of base 10^18, {high, low} with 0 <= low < 10^18, and never leaves Lua.
-- Any other is {false, text}, its canonical text, and is computed by the host. A number has one form only, so that
-- equal numbers have equal fields. Numbers are immutable.

local inner = ...
local host, raise = inner.host, inner.raise

local SMALL <const> = 3037000499 -- its square fits 63 bits
local rawmeta, setmeta, mtype, type = getmetatable, setmetatable, math.type, type
local tonumber, find, sub, format = tonumber, string.find, string.sub, string.format

local meta = { __name = "numeric" }
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

-- A number from a text, an integer or a float; nil and a message if it is none.
function parse(value)
  local kind = type(value)
  if kind == "string" then
    if #value <= 36 and find(value, "^%d+$") then return from_digits(value, false) end
    local text, problem = host.numeric_text(value)
    if text then return from_canonical(text) end
    return nil, problem
  elseif kind == "number" then
    if mtype(value) == "integer" then return from_integer(value) end
    local text, problem = host.numeric_float(value)
    if text then return from_canonical(text) end
    return nil, problem
  elseif rawmeta(value) == meta then
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
  if rawmeta(value) == meta then return value end
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
  if rawmeta(a) ~= meta then
    a = operand(a)
  elseif rawmeta(b) ~= meta then
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
  if rawmeta(a) ~= meta then
    a = operand(a)
  elseif rawmeta(b) ~= meta then
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
  if a[1] then return make(negate(a[1], a[2])) end
  return by_host("-", from_integer(0), a)
end

function meta.__eq(a, b)
  return rawmeta(a) == meta and rawmeta(b) == meta and a[1] == b[1] and a[2] == b[2]
end

function meta.__lt(a, b)
  a, b = operand(a), operand(b)
  local ah, bh = a[1], b[1]
  if ah and bh then return ah < bh or (ah == bh and a[2] < b[2]) end
  return host.numeric_compare(text(a), text(b)) < 0
end

function meta.__le(a, b)
  a, b = operand(a), operand(b)
  local ah, bh = a[1], b[1]
  if ah and bh then return ah < bh or (ah == bh and a[2] <= b[2]) end
  return host.numeric_compare(text(a), text(b)) <= 0
end

meta.__tostring = text

function meta.__concat(a, b)
  if rawmeta(a) == meta then a = text(a) end
  if rawmeta(b) == meta then b = text(b) end
  return a .. b
end

function meta.__newindex()
  raise("numeric: a number cannot be changed")
end

local numbers = {
  meta = meta,
  parse = parse,
  text = text,
  canonical = from_canonical,
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
    return number
  end,
}

return { numbers = numbers, numeric_meta = meta, numeric = from_canonical }
