-- Functions of the library whose time no hook bounds, as a dry run calls them: it sees rows as they were before the
-- call that waits, and with these a pattern may look at a text for ever that in its order is short. Where they might
-- take long, the dry run ends.

local inner = ...
local S, end_call, DRY_END = inner.run_state, inner.end_call, inner.DRY_END
local type, select, min = type, select, math.min
local find, match, gmatch, gsub = string.find, string.match, string.gmatch, string.gsub

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

-- The same for ranges of a list: a length may be whatever `__len` says.
local function check_range(first, last)
  if S[MODE] == DRY and type(first) == "number" and type(last) == "number" and last - first > STEPS_MAX then
    end_call(DRY_END)
  end
end

return { bounded_string = bounded_string, check_range = check_range }
