-- The world that a script sees: no files, no processes, no chance, no clock; and globals that cannot change once the
-- script is loaded, because state outside entities would not survive a restart.

local inner = ...
local host, raise, metatable_of, hidden = inner.host, inner.raise, inner.metatable_of, inner.hidden
local is_event, open_event, numbers, array = inner.is_event, inner.open_event, inner.numbers, inner.array
local script_name <const> = inner.script_name
local set_handlers, failure_text = inner.set_handlers, inner.failure_text
local whole_event, refuse_number, script_tostring = inner.whole_event, inner.refuse_number, inner.script_tostring
local key_text, placed = inner.key_text, inner.placed

local rawmeta, setmeta, next, type, load, sort = getmetatable, setmetatable, next, type, load, table.sort
local rawget, xpcall = rawget, xpcall

-- Read-only tables, what they stand for, and the way back.
local frozen = setmeta({}, { __mode = "k" })
local stand_ins = setmeta({}, { __mode = "k" })

local function refuse_write(_, key)
  raise("globals are read-only once the script is loaded (" .. key_text(key) .. "); keep state in entities")
end

-- Metamethods that a stand-in answers itself; the others see the table it stands for.
local OWN <const> =
  { __index = true, __newindex = true, __len = true, __pairs = true, __metatable = true, __gc = true, __mode = true }

local function stand_in_meta(original)
  local meta = {
    __index = original,
    __newindex = refuse_write,
    __len = function()
      return #original
    end,
    __metatable = false,
  }
  for name, method in next, metatable_of(original) or {} do
    if type(method) == "function" and not OWN[name] then
      meta[name] = function(a, b, ...)
        return method(frozen[a] or a, frozen[b] or b, ...)
      end
    end
  end
  return meta
end

local function freeze(original)
  if stand_ins[original] then return stand_ins[original] end
  local stand_in = {}
  stand_ins[original], frozen[stand_in] = stand_in, original
  for key, value in next, original do
    if type(value) == "table" and not hidden[rawmeta(value)] and not frozen[value] then
      original[key] = freeze(value)
    end
  end
  return setmeta(stand_in, stand_in_meta(original))
end

local function script_next(tab, key)
  if is_event(rawmeta(tab)) then open_event(tab) end
  refuse_number(tab, "next")
  return next(frozen[tab] or tab, key)
end

-- The order of `next` differs from process to process; that of `pairs` does not: 1 to n, other numbers, texts in
-- order, the rest.
local function before(a, b)
  local kind_a, kind_b = type(a), type(b)
  if kind_a ~= kind_b then return kind_a < kind_b end
  if kind_a == "number" or kind_a == "string" then return a < b end
  return false
end

local function in_order(tab, is_of_event)
  local keys, count = {}, 0
  for key in next, tab do
    count = count + 1
    keys[count] = key
  end
  sort(keys, before)
  local at = 0
  return function()
    while at < count do
      at = at + 1
      local value = rawget(tab, keys[at])
      -- What was removed meanwhile is passed by. An event that was kept says that it was.
      if value == nil and is_of_event then value = tab[keys[at]] end
      if value ~= nil then return keys[at], value end
    end
  end
end

local function script_pairs(tab)
  if type(tab) ~= "table" then raise("pairs: expected a table, got a " .. type(tab)) end
  refuse_number(tab, "pairs")
  local meta = metatable_of(tab)
  if is_event(meta) then return in_order(open_event(tab), true) end
  if meta and meta.__pairs then return pairs(tab) end
  return in_order(frozen[tab] or tab)
end

-- Our own metatables, and that of all strings, are out of a script's reach.
hidden[rawmeta("")] = true

local function script_getmetatable(value)
  local meta = rawmeta(value)
  if hidden[meta] then return false end
  return stand_ins[meta] or meta
end

local function script_setmetatable(tab, meta)
  if hidden[rawmeta(tab)] then raise("the metatable of this value is protected") end
  local original = frozen[meta] or meta
  if type(original) == "table" and (original.__gc or original.__mode or original.__close) then
    raise("setmetatable: __gc, __mode and __close are not for handlers; when they act is chance, or amid an error")
  end
  -- Lua looks metamethods up without asking a stand-in.
  return setmeta(tab, frozen[meta] or meta)
end

-- Lua's own sort picks pivots by the clock, so that equal elements end up in an order of chance. This one keeps theirs.
local function merge(from, to, first, middle, last, is_less)
  local left, right = first, middle + 1
  for place = first, last do
    if left <= middle and (right > last or not is_less(from[right], from[left])) then
      to[place], left = from[left], left + 1
    else
      to[place], right = from[right], right + 1
    end
  end
end

local function natural(a, b)
  return a < b
end

local function script_sort(tab, is_less)
  if type(tab) ~= "table" then raise("table.sort: expected a table, got a " .. type(tab)) end
  if is_less ~= nil and type(is_less) ~= "function" then
    raise("table.sort: expected a function to compare with, got a " .. type(is_less))
  end
  is_less = is_less or natural
  local count, from, to = #tab, {}, {}
  for place = 1, count do
    from[place] = tab[place]
  end
  local width = 1
  while width < count do
    for first = 1, count, 2 * width do
      merge(from, to, first, math.min(first + width - 1, count), math.min(first + 2 * width - 1, count), is_less)
    end
    from, to, width = to, from, 2 * width
  end
  for place = 1, count do
    tab[place] = from[place]
  end
end
table.sort = script_sort

-- What scripts find in their world.
local PRELUDE <const> = {
  assert = assert,
  error = error,
  ipairs = inner.script_ipairs,
  next = script_next,
  pairs = script_pairs,
  pcall = inner.script_pcall,
  rawequal = rawequal,
  rawlen = inner.script_rawlen,
  select = select,
  setmetatable = script_setmetatable,
  getmetatable = script_getmetatable,
  tonumber = inner.script_tonumber,
  tostring = script_tostring,
  type = type,
  xpcall = inner.script_xpcall,
  _VERSION = _VERSION,
  math = math,
  string = string,
  table = table,
  utf8 = utf8,
  numeric = numbers.new,
  timestamp = inner.timestamp,
  null = host.null,
  array = array,
}

-- A handler that draws lots, or that reads memory addresses, would not come to the same state twice.
math.random, math.randomseed = nil, nil
local dump = string.dump
string.dump = nil

local is_silent = false

function PRELUDE.print(...)
  if is_silent then return end
  local parts = table.pack(...)
  for at = 1, parts.n do
    parts[at] = script_tostring(parts[at])
  end
  host.print(table.concat(parts, "\t"))
end

-- A world for a script that is being loaded: its globals, and the function that closes it.
local function new_world()
  local world, is_loaded = {}, false
  for name, value in next, PRELUDE do
    world[name] = value
  end
  local globals = setmeta({}, {
    __index = world,
    __newindex = function(_, key, value)
      if is_loaded then refuse_write(nil, key) end
      world[key] = value
    end,
    __metatable = false,
  })
  world._G, frozen[globals] = globals, world
  return globals, function()
    is_loaded = true
    for name, value in next, world do
      if type(value) == "table" and value ~= globals and not hidden[rawmeta(value)] then world[name] = freeze(value) end
    end
    return { on_event = world.on_event, on_snapshot = world.on_snapshot }
  end
end

-- Runs the script's text, with its arithmetic checked everywhere or less. What it raises is for the caller. Returns its
-- handlers, or nil and a message; and whether they are sure of large integers.
local function run_script(text, is_all)
  local globals, close = new_world()
  local chunk, problem = load(text, "@" .. script_name, "t", globals) -- as host.place() looks for it
  if not chunk then return nil, problem end
  local code, is_sure = host.checked(dump(chunk), is_all)
  if not code then return nil, is_sure end
  chunk, problem = load(code, "@" .. script_name, "b", globals)
  if not chunk then return nil, problem end
  local ok, failure = xpcall(chunk, placed)
  if not ok then return nil, failure end
  return close(), is_sure
end

-- The handlers of the same script with less of its arithmetic checked. It is loaded in silence.
local function load_less(text)
  is_silent = true
  local found, is_sure = run_script(text, false)
  is_silent = false
  return found, is_sure
end

-- Loads the script; returns whether it has on_snapshot, or nil and a message.
local function load_script(text)
  inner.set_script_text(text)
  local found, problem = run_script(text, true)
  if not found then return nil, failure_text(problem) end
  if type(found.on_event) ~= "function" then
    return nil, script_name .. ": there is no function on_event(event, ctx)"
  end
  if found.on_snapshot ~= nil and type(found.on_snapshot) ~= "function" then
    return nil,
      script_name .. ": on_snapshot is a " .. type(found.on_snapshot) .. "; expected a function on_snapshot(ctx)"
  end
  set_handlers(found, function()
    return load_less(text)
  end)
  return found.on_snapshot ~= nil
end

-- What an encoder should look at instead of this table.
local function plain(tab)
  if is_event(rawmeta(tab)) then return whole_event(tab) end
  return frozen[tab] or tab
end

return { load_script = load_script, plain = plain }
