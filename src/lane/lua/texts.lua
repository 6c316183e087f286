-- Functions of the library that take texts. Of a float that is given for one Lua makes 14 digits; here it has all.

local inner = ...
local raise, describe, float_text, bounded = inner.raise, inner.describe, inner.float_text, inner.bounded_string
local is_inexact, mtype, type = inner.is_inexact, math.type, type
local find, match, gmatch, gsub = bounded.find, bounded.match, bounded.gmatch, bounded.gsub
local byte, lower, upper = string.byte, string.lower, string.upper
local reverse, sub, rep, pack, unpack = string.reverse, string.sub, string.rep, string.pack, string.unpack
local codepoint, codes, offset = utf8.codepoint, utf8.codes, utf8.offset
local pack_values, unpack_values = table.pack, table.unpack

local function text_of(value)
  if mtype(value) == "float" then return float_text(value) end
  return value
end

-- Each names what it calls as scripts do: a message has the name.
local texts, script_utf8 = {}, {}

function texts.byte(text, ...)
  return byte(text_of(text), ...)
end

do
  local len = string.len

  function texts.len(text)
    return len(text_of(text))
  end
end

function texts.lower(text)
  return lower(text_of(text))
end

function texts.reverse(text)
  return reverse(text_of(text))
end

function texts.sub(text, ...)
  return sub(text_of(text), ...)
end

function texts.upper(text)
  return upper(text_of(text))
end

function script_utf8.codepoint(text, ...)
  return codepoint(text_of(text), ...)
end

function script_utf8.codes(text, ...)
  return codes(text_of(text), ...)
end

function script_utf8.offset(text, ...)
  return offset(text_of(text), ...)
end

do
  local len = utf8.len

  function script_utf8.len(text, ...)
    return len(text_of(text), ...)
  end
end

function texts.rep(text, count, between, ...)
  return rep(text_of(text), count, text_of(between), ...)
end

function texts.find(text, pattern, ...)
  return find(text_of(text), text_of(pattern), ...)
end

function texts.match(text, pattern, ...)
  return match(text_of(text), text_of(pattern), ...)
end

function texts.gmatch(text, pattern, ...)
  return gmatch(text_of(text), text_of(pattern), ...)
end

function texts.unpack(form, text, ...)
  return unpack(text_of(form), text_of(text), ...)
end

-- What string.pack takes for each place of a form: the letter of its kind.
local function places_of(form)
  local places, is_alignment = {}, false
  for letter in gmatch(form, "%a") do
    if is_alignment then
      is_alignment = false
    elseif letter == "X" then
      is_alignment = true
    elseif letter ~= "x" then
      places[#places + 1] = letter
    end
  end
  return places
end

-- A float where a text is to stand has all its digits; one that may have lost digits is no integer, and a text is no
-- number.
function texts.pack(form, ...)
  form = text_of(form)
  if type(form) ~= "string" then return pack(form, ...) end
  local places, values = places_of(form), pack_values(...)
  for at = 1, #places do
    local value, place = values[at], places[at]
    local is_text = find(place, "[szc]")
    if type(value) == "string" and not is_text then
      raise("string.pack: expected a number, got %s", describe(value))
    elseif mtype(value) == "float" then
      if is_text then
        values[at] = float_text(value)
      elseif is_inexact(value) and not find(place, "[fdn]") then
        raise("string.pack: a float of 2^53 or more has no exact value (%s): keep it an integer", describe(value))
      end
    end
  end
  return pack(form, unpack_values(values, 1, values.n))
end

-- What a table or a function puts in the place of a match is a text too.
local function replacement(given)
  local kind = type(given)
  if kind == "function" then
    return function(...)
      return text_of((given(...)))
    end
  elseif kind == "table" then
    return function(key)
      return text_of(given[key])
    end
  end
  return text_of(given)
end

function texts.gsub(text, pattern, given, ...)
  return gsub(text_of(text), text_of(pattern), replacement(given), ...)
end

return { script_string = texts, script_utf8 = script_utf8 }
