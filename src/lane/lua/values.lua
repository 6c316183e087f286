-- Values as scripts and messages see them.

local inner = ...
local host, raise, numeric_meta, unsaid = inner.host, inner.raise, inner.numbers.meta, inner.unsaid
local script_name <const> = inner.script_name
local rawmeta, setmeta, type, pcall, tostring = getmetatable, setmetatable, type, pcall, tostring
local mtype, format, sub, find, match = math.type, string.format, string.sub, string.find, string.match
local byte = string.byte
local next, sort = next, table.sort

-- The metatable of a value, as Lua itself goes by it. What `getmetatable` gives may be anything: its `__metatable`
-- field.
local function metatable_of(value)
  local meta = rawmeta(value)
  if meta == nil then return nil end
  if type(value) == "table" then return host.metatable(value) end
  return type(meta) == "table" and meta or nil
end

local SHOWN_BYTES_MAX <const> = 40 -- of a text in a message

-- The beginning of a text, so many bytes at most and no part of a character.
local function beginning(text, bytes_max)
  if #text <= bytes_max then return text end
  local last = bytes_max
  while last > bytes_max - 4 and (byte(text, last + 1) or 0) & 0xC0 == 0x80 do
    last = last - 1
  end
  return sub(text, 1, last)
end

local function shortened(text)
  return #text > SHOWN_BYTES_MAX and beginning(text, SHOWN_BYTES_MAX) .. "…" or text
end

-- A name that is not known, as a message shows it.
local function name_text(name)
  return type(name) == "string" and format("%q", shortened(name)) or "a " .. type(name)
end

-- The same without quotes. No code of the script runs for it.
local function key_text(key)
  if type(key) == "number" or type(key) == "boolean" then return tostring(key) end
  return type(key) == "string" and shortened(key) or "a " .. type(key)
end

-- The order in which messages, `pairs` and `next` of scripts name keys: false, true, numbers, texts, the rest. That of
-- Lua's own `next` differs from process to process.
local function before(a, b)
  local kind_a, kind_b = type(a), type(b)
  if kind_a ~= kind_b then return kind_a < kind_b end
  if kind_a == "number" or kind_a == "string" then return a < b end
  return kind_a == "boolean" and not a and b
end

-- The keys of a table in that order, and how many they are.
local function keys_in_order(tab)
  local keys, count = {}, 0
  for key in next, tab do
    count = count + 1
    keys[count] = key
  end
  sort(keys, before)
  return keys, count
end

-- The first key of a table that is odd.
local function first_odd(tab, is_odd)
  local first
  for key in next, tab do
    if is_odd(key) and (first == nil or before(key, first)) then first = key end
  end
  return first
end

-- A value as a message shows it.
local function describe(value)
  local kind = type(value)
  if kind == "string" then return format("the text %q", shortened(value)) end
  if kind == "number" or kind == "boolean" then return format("%s %s", mtype(value) or kind, tostring(value)) end
  if numeric_meta == rawmeta(value) then return "the number " .. tostring(value) end
  if value == host.null then return "null" end
  return "a " .. kind
end

-- What went wrong, with the script's name where Lua gives no place. It may be of the script's making.
local function failure_text(failure)
  failure = unsaid(failure)
  local text = failure
  local meta = metatable_of(failure)
  if type(failure) == "table" and meta and rawget(meta, "__tostring") ~= nil then
    local ok, made = pcall(tostring, failure)
    text = ok and made
  elseif type(failure) == "number" then
    text = tostring(failure)
  elseif type(failure) == "userdata" and failure ~= host.null then
    -- Of the host: where it stood in our files is nothing for users.
    text = tostring(failure)
    text = sub(text, 1, (find(text, "\nstack traceback:", 1, true) or 0) - 1)
  end
  if type(text) ~= "string" then text = "it raised a " .. type(failure) .. ", and no message" end
  text = match(text, "^inner:[%l_]+:%d+: (.*)$") or text
  if sub(text, 1, #script_name + 1) ~= script_name .. ":" then text = script_name .. ": " .. text end
  return text
end

-- A value from its JSON.
local function decode(json)
  local value, problem = host.decode(json)
  if problem then raise(problem) end
  return value
end

local array_meta = inner.told_apart({ __name = "array" })

-- The function `array` of scripts: marks a table as a list, so that an empty one is `[]` in JSON.
local function array(tab)
  if type(tab) ~= "table" or (rawmeta(tab) ~= nil and array_meta ~= rawmeta(tab)) then
    raise("array: expected a plain table")
  end
  return setmeta(tab, array_meta)
end

return {
  metatable_of = metatable_of,
  beginning = beginning,
  name_text = name_text,
  key_text = key_text,
  is_before = before,
  keys_in_order = keys_in_order,
  first_odd = first_odd,
  describe = describe,
  failure_text = failure_text,
  decode = decode,
  array = array,
  array_meta = array_meta,
}
