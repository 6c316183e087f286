-- The functions of Lua's library that have to know exact numbers, and null.

local inner = ...
local host, raise, numbers, numeric_meta = inner.host, inner.raise, inner.numbers, inner.numbers.meta
local metatable_of, describe, float_text = inner.metatable_of, inner.describe, inner.float_text
local rawmeta, type, tostring, tonumber, select, next = getmetatable, type, tostring, tonumber, select, next
local mtype, tointeger, abs, ceil, floor = math.type, math.tointeger, math.abs, math.ceil, math.floor
local format, find, gsub, gmatch = string.format, string.find, string.gsub, string.gmatch
local byte, sub, match = string.byte, string.sub, string.match
local rep, huge, modf = string.rep, math.huge, math.modf
local pack, unpack, rawlen, rawget, ipairs = table.pack, table.unpack, rawlen, rawget, ipairs
local concat, move = table.concat, table.move

local FEW <const> = 8 -- arguments that are looked at one by one; each look at one of many would pass by all before it
local FORMS_MAX <const>, FORM_BYTES_MAX <const> = 256, 256 -- forms of `string.format` that are known at a time
local null <const> = host.null

local FLOAT_END <const> = 2.0 ^ 53 -- below it a float holds every integer; this one may stand for the next as well

-- Whether a number may have more digits than a float holds.
local function is_beyond_floats(value)
  return value >= FLOAT_END or value <= -FLOAT_END
end

-- Whether a number is a float that may have lost digits.
local function is_inexact(value)
  return mtype(value) == "float" and is_beyond_floats(value)
end

-- An address would differ from process to process. A float has all its digits.
local function script_tostring(...)
  local value = ...
  local kind = type(value)
  if kind == "table" or kind == "function" then
    local meta = metatable_of(value)
    -- As Lua looks for them: not where a class inherits from.
    if meta == nil then return kind end
    local method = rawget(meta, "__tostring")
    if method == nil then
      local name = rawget(meta, "__name")
      return type(name) == "string" and name or kind
    end
    local made = method(value)
    if type(made) == "number" then return mtype(made) == "float" and float_text(made) or tostring(made) end
    if type(made) ~= "string" then raise("'__tostring' must return a string, got " .. describe(made)) end
    return made
  elseif kind == "number" then
    if mtype(value) == "float" then return float_text(value) end
  elseif value == null then
    return "null"
  end
  return tostring(...)
end

-- A text without what a pattern finds.
local function without(text, pattern)
  return (gsub(text, pattern, ""))
end

local PLAIN_DIGITS <const> = 11 -- so many of them fit an integer in any base

-- The number of some digits of a base, whatever its size: that of its first half times a power, and that of its second.
-- `powers` has what was computed of the base so far.
local function of_base(digits, base, powers)
  local count = #digits
  if count <= PLAIN_DIGITS then return numbers.new(tonumber(digits, base)) end
  local behind = count // 2
  local power = powers[behind]
  if not power then
    -- As a text of digits: the power itself.
    power = of_base("1" .. rep("0", behind), base, powers)
    powers[behind] = power
  end
  return of_base(sub(digits, 1, count - behind), base, powers) * power + of_base(sub(digits, -behind), base, powers)
end

-- A text of a number that no integer and no float is becomes an exact number.
local function script_tonumber(value, base)
  if numeric_meta == rawmeta(value) then
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
    local exact, problem = numbers.parse(digits)
    return exact or raise("tonumber: %s: %s", describe(value), problem)
  end
  -- Lua's own digits of other bases wrap around at 64 bits.
  if #digits <= PLAIN_DIGITS then return number end
  local exact = of_base(without(digits, "^[+-]"), base, {})
  if is_negative then exact = -exact end
  return numbers.plain(exact) or exact
end

-- Lua would name the function by what it is called here, and take a text for a number, through a float.
local function check_number(value, name)
  if mtype(value) then return end
  local hint = ""
  if numeric_meta == rawmeta(value) then
    hint = ', which is an exact one: tonumber(string.format("%.15g", n)) is a float'
  elseif type(value) == "string" and tonumber(value) then
    hint = ": numeric(…) makes an exact number of a text, tonumber(…) a plain one"
  end
  raise("%s: expected a number, got %s%s", name, describe(value), hint)
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
    local fixed, problem = host.numeric_fixed(digits, precision)
    digits = fixed or raise("string.format: " .. problem)
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

-- What the places of a form take, by the form: the kind of a number, false for what has a text.
local forms, forms_count = {}, 0

local function takes_numbers(form)
  local places = forms[form]
  if places then return places end
  places = {}
  for kind in gmatch(form, "%%[-+ #0-9.]*(.)") do
    if kind == "p" then raise("string.format: %p would differ in each process") end
    if kind ~= "%" then places[#places + 1] = find(kind, "[diouxXceEfgGaA]") and kind or false end
  end
  if #form > FORM_BYTES_MAX then return places end
  if forms_count >= FORMS_MAX then
    forms, forms_count = {}, 0
  end
  forms[form], forms_count = places, forms_count + 1
  return places
end

-- A float, as a place for numbers takes it: one that may have lost digits is written with all that it has, or refused.
-- `%q` has every digit, in hex.
local function float_as(spec, value)
  if find(spec, "[eEgGaAq]$") or value - value ~= 0 or not is_inexact(value) then return value end
  if host.is_given(value) then return numbers.from_float(value) end
  raise(
    "string.format: a float of 2^53 or more has no exact value for %s: compute with numeric(…), or write it with %%g",
    spec
  )
end

-- The texts of tables and functions without their addresses; numbers with all their digits. A text is no number.
local function script_format(form, ...)
  if mtype(form) == "float" then form = float_text(form) end
  if type(form) ~= "string" then return format(form, ...) end
  local places, has_odd, count = takes_numbers(form), false, select("#", ...)
  local given = count > FEW and pack(...)
  for at = 1, count do
    local value
    if given then
      value = given[at]
    else
      value = (select(at, ...))
    end
    local kind = type(value)
    if kind == "number" then
      local place, is_large = places[at], is_beyond_floats(value)
      if mtype(value) == "float" then
        has_odd = has_odd or is_large or not place
      else
        has_odd = has_odd or is_large and place == "f"
      end
    elseif kind == "table" or kind == "function" or value == null then
      has_odd = true
    elseif kind == "string" and places[at] then
      check_number(value, "string.format")
    end
  end
  if not has_odd then return format(form, ...) end
  local values, place = pack(...), 0
  -- Each specification on its own place: what is formatted here becomes %s.
  form = gsub(form, "%%([-+ #0-9.]*)(.)", function(flags, kind)
    if kind == "%" then return nil end
    place = place + 1
    local value = values[place]
    if numeric_meta == rawmeta(value) and find(kind, "[diouxXeEfgGaA]") then
      local is_text
      values[place], is_text = formatted("%" .. flags .. kind, value)
      return is_text and "%s" or nil
    end
    local of = type(value)
    if of == "number" and kind == "s" then
      values[place] = script_tostring(value)
    elseif of == "number" and mtype(value) == "float" then
      local number, is_text = float_as("%" .. flags .. kind, value)
      if number ~= value and value == value then
        values[place], is_text = formatted("%" .. flags .. kind, number)
      end
      return is_text and "%s" or nil
    elseif of == "number" and kind == "f" and is_beyond_floats(value) then
      values[place] = formatted("%" .. flags .. kind, (numbers.parse(value)))
      return "%s"
    elseif (of == "table" or of == "function" or value == null) and (kind == "s" or numeric_meta == rawmeta(value)) then
      values[place] = script_tostring(value)
    end
    return nil
  end)
  return format(form, unpack(values, 1, values.n))
end
string.format = script_format

------------------------------------------------------------------------------------------------------------ math

-- A float that stands for an integer is one only as far as a float holds them all.
local function rounded(name, round, is_up)
  return function(value, ...)
    if numeric_meta == rawmeta(value) then return numbers.rounded(value, is_up) end
    if is_inexact(value) then return value end
    check_number(value, name)
    return round(value, ...)
  end
end
math.floor, math.ceil = rounded("math.floor", floor, false), rounded("math.ceil", ceil, true)

function math.abs(value, ...)
  if numeric_meta == rawmeta(value) then return value < 0 and -value or value end
  check_number(value, "math.abs")
  if value == math.mininteger then raise("math.abs: 9223372036854775808 leaves the 64 bits of an integer") end
  return abs(value, ...)
end

function math.tointeger(value, ...)
  if numeric_meta == rawmeta(value) then
    local plain = numbers.plain(value)
    return mtype(plain) == "integer" and plain or nil
  end
  if is_inexact(value) then return nil end
  if type(value) == "string" then check_number(value, "math.tointeger") end
  return tointeger(value, ...)
end

-- The largest or smallest, where one is exact; the first of equal ones.
local function extreme(name, plain, is_before)
  return function(...)
    local count = select("#", ...)
    if count == 0 then raise("%s: expected numbers, got none", name) end
    local has_numeric = false
    local values = count > FEW and pack(...)
    for at = 1, count do
      local value
      if values then
        value = values[at]
      else
        value = (select(at, ...))
      end
      if numeric_meta == rawmeta(value) then
        has_numeric = true
      else
        check_number(value, name)
      end
    end
    if not has_numeric then return plain(...) end
    local found = ...
    for at = 2, count do
      local value
      if values then
        value = values[at]
      else
        value = (select(at, ...))
      end
      if is_before(value, found) then found = value end
    end
    return found
  end
end
math.max = extreme("math.max", math.max, function(a, b)
  return b < a
end)
math.min = extreme("math.min", math.min, function(a, b)
  return a < b
end)

-- The whole part of a float that may have lost digits stays a float.
function math.modf(value, ...)
  if numeric_meta ~= rawmeta(value) then check_number(value, "math.modf") end
  if is_inexact(value) and value - value == 0 then return value, 0.0 end
  return modf(value, ...)
end

-- Of the others none takes a text for a number, or an exact one.
local function of_numbers(name, plain)
  return function(...)
    check_number((...), name)
    for at = 2, select("#", ...) do
      local value = (select(at, ...))
      if value ~= nil then check_number(value, name) end
    end
    return plain(...)
  end
end

-- All that there are, also those of earlier versions of Lua.
local LOOKED_AFTER <const> = " abs ceil floor max min modf tointeger type random randomseed "
for name, plain in next, math do
  if type(plain) == "function" and not find(LOOKED_AFTER, " " .. name .. " ", 1, true) then
    math[name] = of_numbers("math." .. name, plain)
  end
end

----------------------------------------------------------------------------------------------------------- tables

-- A number is no table, though it is made of one.
local function refuse_number(value, what)
  if numeric_meta == rawmeta(value) then raise("%s: expected a table, got the number %s", what, tostring(value)) end
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

-- A bound of a list, as Lua takes it: a number, or the text of one.
local function bound(value)
  if type(value) == "string" then value = tonumber(value) end
  return mtype(value) and tointeger(value)
end

-- Floats have all their digits here too.
function table.concat(list, between, first, last, ...)
  if type(list) ~= "table" or numeric_meta == rawmeta(list) then return concat(list, between, first, last, ...) end
  if mtype(between) == "float" then between = float_text(between) end
  local from, to = bound(first or 1), bound(last or #list)
  if not (from and to) then return concat(list, between, first, last, ...) end
  -- What a method gives is asked for once.
  local texts = rawmeta(list) ~= nil and {} or nil
  for at = from, to do
    local value = list[at]
    if value == nil then break end
    if mtype(value) == "float" then
      texts = texts or move(list, from, at - 1, from, {})
      value = float_text(value)
    end
    if texts then texts[at] = value end
  end
  return concat(texts or list, between, from, to, ...)
end

return {
  script_tostring = script_tostring,
  script_tonumber = script_tonumber,
  script_ipairs = script_ipairs,
  script_rawlen = script_rawlen,
  refuse_number = refuse_number,
  plain_tointeger = tointeger,
  is_inexact = is_inexact,
}
