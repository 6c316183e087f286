-- Functions of the library whose time no hook bounds, as a dry run calls them: it sees rows as they were before the
-- call that waits, and with these a pattern may look at a text for ever that in its order is short. Where they might
-- take long, the dry run ends.

local inner = ...
local S, raise, end_call, DRY_END = inner.run_state, inner.raise, inner.end_call, inner.DRY_END
local describe, is_inexact = inner.describe, inner.is_inexact
local type, select, min = type, select, math.min
local find, match, gmatch, gsub, pack = string.find, string.match, string.gmatch, string.gsub, string.pack

local FEW <const> = inner.few_arguments
local STEPS_MAX <const>, PATTERN_BYTES_MAX <const> = 1000000, 1000

-- How many steps a pattern may take over a text, about: it goes on from each place, and from each it tries all that
-- each of its repetitions may take.
local function steps(text, pattern)
  if #pattern > PATTERN_BYTES_MAX then return STEPS_MAX + 1 end
  local _, pairs_of = gsub(pattern, "%%b", "")
  local plain = gsub(pattern, "%%.", "x")
  plain = gsub(plain, "%[%^?%]?[^%]]*%]", "x")
  local _, repeated = gsub(plain, "[*+-]", "")
  local _, perhaps = gsub(plain, "?", "")
  local places = pairs_of + repeated + (find(pattern, "^%^") and 0 or 1)
  return (#text + 1.0) ^ places * 2.0 ^ min(perhaps, 64)
end

local function check_steps(text, pattern)
  if type(text) == "string" and type(pattern) == "string" and steps(text, pattern) > STEPS_MAX then
    end_call(DRY_END)
  end
end

local bounded_string = {}

function bounded_string.find(text, pattern, ...)
  if S[MODE] == DRY and not select(2, ...) then check_steps(text, pattern) end
  return find(text, pattern, ...)
end

function bounded_string.match(text, pattern, ...)
  if S[MODE] == DRY then check_steps(text, pattern) end
  return match(text, pattern, ...)
end

function bounded_string.gmatch(text, pattern, ...)
  if S[MODE] == DRY then check_steps(text, pattern) end
  return gmatch(text, pattern, ...)
end

function bounded_string.gsub(text, pattern, ...)
  if S[MODE] == DRY then check_steps(text, pattern) end
  return gsub(text, pattern, ...)
end

-- What string.pack takes for each place of a form: whether it becomes an integer.
local function takes_integers(form)
  local places, is_alignment = {}, false
  for letter in gmatch(form, "%a") do
    if is_alignment then
      is_alignment = false
    elseif letter == "X" then
      is_alignment = true
    elseif letter ~= "x" then
      places[#places + 1] = find(letter, "[fdnsz]") == nil
    end
  end
  return places
end

-- A float that may have lost digits is no integer.
function bounded_string.pack(form, ...)
  local count = select("#", ...)
  local values = count > FEW and table.pack(...)
  for at = 1, count do
    local value
    if values then
      value = values[at]
    else
      value = (select(at, ...))
    end
    if is_inexact(value) and type(form) == "string" and takes_integers(form)[at] then
      raise("string.pack: a float of 2^53 or more has no exact value (%s): keep it an integer", describe(value))
    end
  end
  return pack(form, ...)
end

-- The same for ranges of a list: a length may be whatever `__len` says.
local function check_range(first, last)
  if S[MODE] == DRY and type(first) == "number" and type(last) == "number" and last - first > STEPS_MAX then
    end_call(DRY_END)
  end
end

return { bounded_string = bounded_string, check_range = check_range }
