-- The functions of Lua's library that have to know exact numbers, and null.

local inner = ...
local host, raise, numbers, numeric_meta = inner.host, inner.raise, inner.numbers, inner.numbers.meta
local metatable_of, describe = inner.metatable_of, inner.describe
local rawmeta, type, tostring, tonumber, select = getmetatable, type, tostring, tonumber, select
local mtype, tointeger, abs, ceil, floor = math.type, math.tointeger, math.abs, math.ceil, math.floor
local format, find, gsub, gmatch = string.format, string.find, string.gsub, string.gmatch
local lower, byte, sub, match = string.lower, string.byte, string.sub, string.match
local rep, huge = string.rep, math.huge
local pack, unpack, rawlen, ipairs = table.pack, table.unpack, rawlen, ipairs
local null <const> = host.null

local FLOAT_MAX <const> = 2.0 ^ 53 -- up to here a float holds every integer

-- An address would differ from process to process.
local function script_tostring(...)
  local value = ...
  local kind = type(value)
  if kind == "table" or kind == "function" then
    local meta = metatable_of(value)
    if not (meta and meta.__tostring) then return meta and type(meta.__name) == "string" and meta.__name or kind end
  elseif value == null then
    return "null"
  end
  return tostring(...)
end

-- A text without what a pattern finds.
local function without(text, pattern)
  return (gsub(text, pattern, ""))
end

-- The number of some digits of a base, whatever its size.
local function of_base(digits, base, is_negative)
  local number = numbers.new(0)
  for digit in gmatch(lower(digits), "%w") do
    number = number * base + tonumber(digit, 36)
  end
  return is_negative and -number or number
end

-- A text of a number that no integer and no float is becomes an exact number.
local function script_tonumber(value, base)
  if rawmeta(value) == numeric_meta then
    local plain = numbers.plain(value)
    return plain or value
  end
  local number
  if base == nil then
    number = tonumber(value)
  else
    number = tonumber(value, base)
  end
  if type(value) ~= "string" or number == nil then return number end
  local digits = without(without(value, "^%s+"), "%s+$")
  local is_negative = byte(digits) == 45
  if find(digits, "[xX]") and not base then
    if mtype(number) == "float" then return number end
    digits, base = without(digits, "^[+-]?0[xX]"), 16
  elseif not base then
    if mtype(number) == "integer" then return number end
    if find(digits, "[.eE]") and host.float_of(digits) then return number end
    return numbers.parse(digits) or number
  end
  -- Lua's own digits of other bases wrap around at 64 bits.
  if #digits <= 11 then return number end
  local exact = of_base(without(digits, "^[+-]"), base, is_negative)
  return numbers.plain(exact) or exact
end

-- Digits with their sign, laid out as the flags and the width of a specification have it.
local function laid_out(spec, sign, digits, may_fill)
  local flags, width = match(spec, "^%%([-+ #0]*)(%d*)")
  if sign == "" then sign = find(flags, "+", 1, true) and "+" or find(flags, " ", 1, true) and " " or "" end
  local missing = (tonumber(width) or 0) - #sign - #digits
  if missing <= 0 then return sign .. digits end
  if find(flags, "-", 1, true) then return sign .. digits .. rep(" ", missing) end
  if may_fill and find(flags, "0", 1, true) then return sign .. rep("0", missing) .. digits end
  return rep(" ", missing) .. sign .. digits
end

-- An exact number as a specification has it: a text and true, or the plain number that Lua is to format.
local function formatted(spec, value)
  local kind, precision = sub(spec, -1), match(spec, "%.(%d*)")
  local sign, digits = match(numbers.text(value), "^(-?)(.*)$")
  if kind == "f" then
    format(spec, 0.0) -- Lua says what is wrong with it
    precision = precision and (tonumber(precision) or 0) or 6
    digits = host.numeric_fixed(digits, precision)
    if precision == 0 and find(match(spec, "^%%[-+ #0]*"), "#", 1, true) then digits = digits .. "." end
    return laid_out(spec, sign, digits, true), true
  end
  if find(kind, "[eEgGaA]") then
    local float = tonumber(sign .. digits) + 0.0
    if float - float ~= 0 then raise("string.format: %%%s takes floats, and none is as large as this number", kind) end
    return float
  end
  local plain = numbers.plain(value)
  if mtype(plain) == "integer" then return plain end
  if find(digits, ".", 1, true) then raise("string.format: %s%s has no form without a fraction", sign, digits) end
  -- Digits of other bases end at 64 bits, which Lua says of this one.
  if kind ~= "d" and kind ~= "i" then return huge end
  format(spec, 0)
  digits = rep("0", (tonumber(precision) or 0) - #digits) .. digits
  return laid_out(spec, sign, digits, not precision), true
end

-- The texts of tables and functions without their addresses; exact numbers with all their digits.
local function script_format(form, ...)
  if type(form) ~= "string" then return format(form, ...) end
  if find(form, "%%[-+ #0-9.]*p") then raise("string.format: %p would differ in each process") end
  local has_odd = false
  for at = 1, select("#", ...) do
    local value = (select(at, ...))
    local kind = type(value)
    if kind == "table" or kind == "function" or value == null then has_odd = true end
  end
  if not has_odd then return format(form, ...) end
  local values, place = pack(...), 0
  -- Each specification on its own place: what is formatted here becomes %s.
  form = gsub(form, "%%([-+ #0-9.]*)(.)", function(flags, kind)
    if kind == "%" then return nil end
    place = place + 1
    local value = values[place]
    if rawmeta(value) == numeric_meta and find(kind, "[diouxXeEfgGaA]") then
      local is_text
      values[place], is_text = formatted("%" .. flags .. kind, value)
      return is_text and "%s" or nil
    end
    local of = type(value)
    if of == "table" or of == "function" or value == null then values[place] = script_tostring(value) end
    return nil
  end)
  return format(form, unpack(values, 1, values.n))
end
string.format = script_format

------------------------------------------------------------------------------------------------------------ math

-- Lua would name the function by what it is called here.
local function check_number(value, name)
  if mtype(value) or tonumber(value) then return end
  raise("math.%s: expected a number, got %s", name, describe(value))
end

-- A float that stands for an integer is one only as far as a float holds them all.
local function rounded(name, round, is_up)
  return function(value, ...)
    if rawmeta(value) == numeric_meta then return numbers.rounded(value, is_up) end
    if mtype(value) == "float" and (value > FLOAT_MAX or value < -FLOAT_MAX) then return value end
    check_number(value, name)
    return round(value, ...)
  end
end
math.floor, math.ceil = rounded("floor", floor, false), rounded("ceil", ceil, true)

function math.abs(value, ...)
  if rawmeta(value) == numeric_meta then return value < 0 and -value or value end
  if value == math.mininteger then raise("math.abs: 9223372036854775808 leaves the 64 bits of an integer") end
  return abs(value, ...)
end

function math.tointeger(value, ...)
  if rawmeta(value) == numeric_meta then
    local plain = numbers.plain(value)
    return mtype(plain) == "integer" and plain or nil
  end
  if mtype(value) == "float" and (value > FLOAT_MAX or value < -FLOAT_MAX) then return nil end
  return tointeger(value, ...)
end

-- The largest or smallest, where one is exact; the first of equal ones.
local function extreme(name, plain, is_before)
  return function(...)
    local count = select("#", ...)
    if count == 0 then raise("math.%s: expected numbers, got none", name) end
    local has_numeric = false
    for at = 1, count do
      local value = (select(at, ...))
      if rawmeta(value) == numeric_meta then
        has_numeric = true
      else
        check_number(value, name)
      end
    end
    if not has_numeric then return plain(...) end
    local found = ...
    for at = 2, count do
      local value = (select(at, ...))
      if is_before(value, found) then found = value end
    end
    return found
  end
end
math.max = extreme("max", math.max, function(a, b)
  return b < a
end)
math.min = extreme("min", math.min, function(a, b)
  return a < b
end)

----------------------------------------------------------------------------------------------------------- tables

-- A number is no table, though it is made of one.
local function refuse_number(value, what)
  if rawmeta(value) == numeric_meta then raise("%s: expected a table, got the number %s", what, tostring(value)) end
end

local function script_ipairs(value, ...)
  refuse_number(value, "ipairs")
  return ipairs(value, ...)
end

local function script_rawlen(value)
  refuse_number(value, "rawlen")
  return rawlen(value)
end

function table.unpack(value, ...)
  refuse_number(value, "table.unpack")
  return unpack(value, ...)
end

return {
  script_tostring = script_tostring,
  script_tonumber = script_tonumber,
  script_ipairs = script_ipairs,
  script_rawlen = script_rawlen,
  refuse_number = refuse_number,
}
