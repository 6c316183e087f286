-- Arithmetic with plain numbers that is exact or an error.
--
-- Lua's own sums and products of integers wrap around at 64 bits, and it takes texts for numbers. Here a text is an
-- error, and an operation that `bytecode/` leaves to it calls what the metatable of all numbers says, which stands
-- below. Exact numbers have their own metatable, and come here only as the second operand.

local inner = ...
local raise, describe, numeric_meta = inner.raise, inner.describe, inner.numbers.meta
local host, hidden = inner.host, inner.hidden
local script_line = inner.script_line
local mtype, rawmeta, rawget, type, next = math.type, getmetatable, rawget, type, next
local tostring, tonumber = tostring, tonumber
local mininteger, tointeger = math.mininteger, math.tointeger

local SMALL <const> = 3037000499 -- its square fits 63 bits
local FLOAT_END <const> = 2.0 ^ 53 -- below it a float holds every integer
local SIGNS <const> = {
  __add = "+",
  __sub = "-",
  __mul = "*",
  __div = "/",
  __idiv = "//",
  __mod = "%",
  __pow = "^",
  __unm = "-",
  __band = "&",
  __bor = "|",
  __bxor = "~",
  __shl = "<<",
  __shr = ">>",
  __bnot = "~",
}

local function overflow(a, sign, b)
  raise(
    "%d %s %d leaves the 64 bits of an integer; numeric(%d) %s %d is exact, and goes into a numeric column",
    a,
    sign,
    b,
    a,
    sign,
    b
  )
end

-- The method of a table of the script, as Lua itself finds it: whatever the table lets be seen of its metatable.
local function method_of(value, event)
  local meta = type(value) == "table" and rawmeta(value) ~= nil and host.metatable(value)
  return meta and rawget(meta, event)
end

-- An operation on a value that is no plain number.
local function foreign(event, a, b)
  if numeric_meta == rawmeta(a) or numeric_meta == rawmeta(b) then
    local method = numeric_meta[event]
    if method then return method(a, b) end
  end
  for _, value in next, { a, b } do
    local method = method_of(value, event)
    if method then return method(a, b) end
  end
  local sign = SIGNS[event]
  for _, value in next, { a, b } do
    if type(value) == "string" then
      raise(
        "attempt to compute with %s (%s): numeric(…) makes an exact number of a text, tonumber(…) a plain one",
        describe(value),
        sign
      )
    end
  end
  local is_behind = type(a) == "number"
  local odd = a
  if is_behind then odd = b end
  raise(
    "attempt to perform arithmetic on a %s value (%s the %s)%s",
    odd == host.null and "null" or type(odd),
    is_behind and "behind" or "before",
    sign,
    script_line()
  )
end

local number_meta = { __name = "number" }

function number_meta.__add(a, b)
  local kind, other = mtype(a), mtype(b)
  if kind == "integer" and other == "integer" then
    local sum = a + b
    if (a ~ sum) & (b ~ sum) < 0 then overflow(a, "+", b) end
    return sum
  end
  if kind and other then return a + b end
  return foreign("__add", a, b)
end

function number_meta.__sub(a, b)
  local kind, other = mtype(a), mtype(b)
  if kind == "integer" and other == "integer" then
    local difference = a - b
    if (a ~ b) & (a ~ difference) < 0 then overflow(a, "-", b) end
    return difference
  end
  if kind and other then return a - b end
  return foreign("__sub", a, b)
end

function number_meta.__mul(a, b)
  local kind, other = mtype(a), mtype(b)
  if kind == "integer" and other == "integer" then
    local product = a * b
    if a <= SMALL and a >= -SMALL and b <= SMALL and b >= -SMALL then return product end
    if a ~= 0 and (product // a ~= b or product % a ~= 0 or (a == -1 and b == math.mininteger)) then
      overflow(a, "*", b)
    end
    return product
  end
  if kind and other then return a * b end
  return foreign("__mul", a, b)
end

function number_meta.__idiv(a, b)
  local kind, other = mtype(a), mtype(b)
  if kind == "integer" and other == "integer" and b == -1 and a == mininteger then overflow(a, "//", b) end
  if kind and other then return a // b end
  return foreign("__idiv", a, b)
end

function number_meta.__unm(a)
  if mtype(a) == "integer" and a == mininteger then
    raise("-(%d) leaves the 64 bits of an integer; -numeric(%d) is exact, and goes into a numeric column", a, a)
  end
  return -a
end

-- What operations on bits make of a float is an integer, and no column sees any more that digits may be lost.
local function check_bits(value, event)
  if not tointeger(value) then raise("number has no integer representation") end
  if mtype(value) == "float" and (value >= FLOAT_END or value <= -FLOAT_END) and value - value == 0 then
    raise(
      "attempt to take the bits of %s (%s): a float of 2^53 or more has no exact value, an integer has",
      describe(value),
      SIGNS[event]
    )
  end
end

local function bitwise(event, operate)
  return function(a, b)
    if not (mtype(a) and mtype(b)) then return foreign(event, a, b) end
    check_bits(a, event)
    check_bits(b, event)
    return operate(a, b)
  end
end

number_meta.__band = bitwise("__band", function(a, b)
  return a & b
end)
number_meta.__bor = bitwise("__bor", function(a, b)
  return a | b
end)
number_meta.__bxor = bitwise("__bxor", function(a, b)
  return a ~ b
end)
number_meta.__shl = bitwise("__shl", function(a, b)
  return a << b
end)
number_meta.__shr = bitwise("__shr", function(a, b)
  return a >> b
end)
number_meta.__bnot = bitwise("__bnot", function(a)
  return ~a
end)

-- The text of a float: with as many digits as tell it from all others, where Lua's own 14 do not.
local function float_text(value)
  local text = tostring(value)
  if value - value ~= 0 or tonumber(text) == value then return text end
  return host.float_text(value)
end

-- An instruction of the script asks for the text of a number that may be long, and is joined to what is beside it.
-- What is no text has a method for that, which gets the number.
function number_meta.__gc(value, beside)
  if mtype(value) ~= "float" then return value end
  local kind = type(beside)
  if kind ~= "string" and kind ~= "number" then return value end
  return float_text(value)
end

-- Texts are no numbers, whatever Lua makes of them.
local text_meta = rawmeta("")
for event in next, SIGNS do
  text_meta[event] = function(a, b)
    return foreign(event, a, b)
  end
end

hidden[number_meta] = true

return { number_meta = number_meta, float_text = float_text }
