-- The world that a script sees: no files, no processes, no chance, no clock; and globals that cannot change once the
-- script is loaded, because state outside entities would not survive a restart.

local inner = ...
local host, raise, metatable_of, hidden = inner.host, inner.raise, inner.metatable_of, inner.hidden
local entity_metas = inner.entity_metas
local is_event, open_event, numbers, array = inner.is_event, inner.open_event, inner.numbers, inner.array
local check_write, give_metatable, shown_meta = inner.check_write, inner.give_metatable, inner.shown_meta
local frozen_meta, frozen_array_meta = inner.frozen_meta, inner.frozen_array_meta
local script_name <const> = inner.script_name
local set_handlers, failure_text = inner.set_handlers, inner.failure_text
local whole_event, refuse_number, script_tostring = inner.whole_event, inner.refuse_number, inner.script_tostring
local key_text, keys_in_order, is_before, placed = inner.key_text, inner.keys_in_order, inner.is_before, inner.placed

local S, check_range = inner.run_state, inner.check_range
local begin_loading, stop_loading, finish_loading = inner.begin_loading, inner.stop_loading, inner.finish_loading
local rawmeta, setmeta, next, type, load, xpcall, select = getmetatable, setmetatable, next, type, load, xpcall, select
local move, dump, tointeger = table.move, string.dump, inner.plain_tointeger
local rawget, error, insert = rawget, error, table.insert
local text_meta = rawmeta("")

-- The table of globals of a script, which stays empty, and what it stands for.
local worlds = setmeta({}, { __mode = "k" })

local function refuse_write(_, key)
  raise("globals are read-only once the script is loaded (" .. key_text(key) .. "); keep state in entities")
end

-- Several tables, or functions, have no order among themselves but that of their addresses.
local function check_order(key, other, what)
  local kind = type(key)
  if (kind == "table" or kind == "function") and type(other) == kind then
    raise("%s: several keys of the table are %ss, which have no order; take texts or numbers as keys", what, kind)
  end
end

-- The keys of a table in the order in which scripts see them.
local function keys_of(tab, what)
  local keys, count = keys_in_order(tab)
  for at = 2, count do
    check_order(keys[at], keys[at - 1], what)
  end
  return keys, count
end

-- The first of them, without putting all in order; nil if the table is empty.
local function first_key(tab)
  local first, equal
  for key in next, tab do
    if first == nil or is_before(key, first) then
      first, equal = key, nil
    elseif not is_before(first, key) then
      equal = key
    end
  end
  check_order(first, equal, "next")
  return first
end

-- Where `next` stands in tables that are being gone through: their keys, and the place of the last one.
local passes = setmeta({}, { __mode = "k" })

-- The place of a key among keys in order, or of the last one before it.
local function place_of(keys, key)
  local low, high = 0, #keys
  while low < high do
    local middle = (low + high + 1) // 2
    if rawequal(keys[middle], key) then return middle end
    if is_before(keys[middle], key) then
      low = middle
    else
      high = middle - 1
    end
  end
  return low
end

-- Like Lua's own, whose order differs from process to process, but in the order of `pairs`.
local function next_in_order(tab, key)
  if key == nil then
    passes[tab] = nil
    local first = first_key(tab)
    if first == nil then return nil end
    return first, rawget(tab, first)
  end
  local pass = passes[tab]
  if not (pass and rawequal(pass[1][pass[2]], key)) then
    local keys = keys_of(tab, "next")
    pass = { keys, place_of(keys, key) }
    passes[tab] = pass
  end
  local keys, at = pass[1], pass[2]
  while at < #keys do
    at = at + 1
    local value = rawget(tab, keys[at])
    -- What was removed meanwhile is passed by.
    if value ~= nil then
      pass[2] = at
      return keys[at], value
    end
  end
  passes[tab] = nil
  return nil
end

local function script_next(tab, ...)
  local meta = rawmeta(tab)
  if is_event(meta) then open_event(tab) end
  refuse_number(tab, "next")
  if type(tab) ~= "table" then raise("next: expected a table, got a " .. type(tab)) end
  return next_in_order(worlds[tab] or tab, (...))
end

-- What `pairs` gives: an iterator, the table, and where it begins. The iterator begins anew where it is given no key,
-- and goes on from any key that it is given.
local function in_order(tab, is_of_event, given)
  local keys, count = keys_of(tab, "pairs")
  local at = 0
  local function step(_, key)
    if key == nil then
      at = 0
    elseif not rawequal(keys[at], key) then
      at = place_of(keys, key)
      if not rawequal(keys[at], key) then raise("pairs: the loop goes on from a key that the table does not have") end
    end
    while at < count do
      at = at + 1
      local value = rawget(tab, keys[at])
      -- What was removed meanwhile is passed by. An event that was kept says that it was.
      if value == nil and is_of_event then value = tab[keys[at]] end
      if value ~= nil then return keys[at], value end
    end
    return nil
  end
  return step, given, nil
end

local function script_pairs(tab)
  if type(tab) ~= "table" then raise("pairs: expected a table, got a " .. type(tab)) end
  refuse_number(tab, "pairs")
  local meta = metatable_of(tab)
  if is_event(meta) then return in_order(open_event(tab), true, tab) end
  if meta and rawget(meta, "__pairs") ~= nil then return pairs(tab) end
  return in_order(worlds[tab] or tab, false, tab)
end

-- Our own metatables, and that of all strings, are out of a script's reach.
hidden[rawmeta("")] = true

local function script_getmetatable(value)
  if type(value) == "function" or type(value) == "number" then return nil end
  return shown_meta(rawmeta(value))
end

local function script_setmetatable(tab, meta)
  if type(tab) ~= "table" then raise("setmetatable: expected a table, got a " .. type(tab)) end
  if meta ~= nil and type(meta) ~= "table" then
    raise("setmetatable: expected a table or nil as the metatable, got a " .. type(meta))
  end
  if hidden[rawmeta(tab)] then raise("the metatable of this value is protected") end
  check_write(tab)
  if worlds[meta] then raise("setmetatable: _G is no metatable; make a table of its own") end
  if meta == nil then return setmeta(tab, nil) end
  return give_metatable(tab, meta)
end

-- Lua's own functions that write to a table write to one that is frozen, too.
local function check_written(tab, name)
  if type(tab) ~= "table" then raise("table.%s: expected a table, got a %s", name, type(tab)) end
  check_write(tab)
end

local LIST_MAX <const> = 0x7fffffff -- what Lua's own sort takes

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
  check_written(tab, "sort")
  if is_less ~= nil and type(is_less) ~= "function" then
    raise("table.sort: expected a function to compare with, got a " .. type(is_less))
  end
  is_less = is_less or natural
  local count, from, to = #tab, {}, {}
  if count > LIST_MAX then raise("table.sort: a list of %d is too long", count) end
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

local function script_insert(tab, ...)
  check_written(tab, "insert")
  return insert(tab, ...)
end

local function script_remove(tab, ...)
  check_written(tab, "remove")
  local count = #tab
  local place = count
  if (...) ~= nil then
    place = tointeger((...))
    if not place or (place ~= count and (place < 1 or place > count + 1)) then
      raise("table.remove: there is no place %s in a list of %d", script_tostring((...)), count)
    end
  end
  local value = tab[place]
  while place < count do
    tab[place] = tab[place + 1]
    place = place + 1
  end
  tab[place] = nil
  return value
end

local function script_move(from, ...)
  local first, last, _, to = ...
  check_range(first, last)
  if to == nil then to = from end
  refuse_number(from, "table.move")
  check_write(to)
  local ok, answer = inner.script_pcall(move, from, ...)
  if not ok then error(answer, 0) end
  return answer
end

-- A frozen array is one; of another frozen table there is a copy that is one.
local function script_array(tab)
  local meta = rawmeta(tab)
  if frozen_array_meta == meta then return tab end
  if frozen_meta ~= meta then return array(tab) end
  local copy = {}
  for key, value in next, tab do
    copy[key] = value
  end
  return array(copy)
end

-- What scripts find in their world.
local PRELUDE <const> = {
  assert = assert,
  error = inner.script_error,
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
  numeric = numbers.new,
  timestamp = inner.timestamp,
  null = host.null,
  array = script_array,
}

-- Each script has libraries of its own, which it may add to while it is loaded: what is ours stays as it is.
local LIBRARIES <const> = { math = math, string = string, table = table, utf8 = utf8 }

-- A handler that draws lots, or that reads memory addresses, would not come to the same state twice.
local LACKING <const> = { random = true, randomseed = true, dump = true }

local OWN <const> = {
  table = { insert = script_insert, sort = script_sort, remove = script_remove, move = script_move },
  string = inner.script_string,
  utf8 = inner.script_utf8,
}

function PRELUDE.print(...)
  local parts = table.pack(...)
  for at = 1, parts.n do
    parts[at] = script_tostring(parts[at])
  end
  -- What a dry run says is said when the call counts.
  if S[MODE] ~= DRY then host.print(table.concat(parts, "\t")) end
end

local function library_of(name)
  local library = {}
  for function_name, value in next, LIBRARIES[name] do
    if not LACKING[function_name] then library[function_name] = value end
  end
  for function_name, value in next, OWN[name] or {} do
    library[function_name] = value
  end
  return library
end

-- The functions that keep nothing from call to call. Those that `ipairs` and the like return are among them.
local keeps_nothing = { [ipairs({})] = true, [utf8.codes("")] = true, [utf8.codes("", true)] = true }

-- A world for a script that is being loaded: its globals, its methods of texts, and the function that closes it, which
-- returns its handlers, or nil and what is wrong.
local function new_world()
  local world, is_loaded = {}, false
  for name, value in next, PRELUDE do
    world[name] = value
    if type(value) == "function" then keeps_nothing[value] = true end
  end
  for name in next, LIBRARIES do
    world[name] = library_of(name)
    for _, value in next, world[name] do
      if type(value) == "function" then keeps_nothing[value] = true end
    end
  end
  local texts = world.string
  local meta = {
    __index = world,
    __newindex = function(_, key, value)
      if is_loaded then refuse_write(nil, key) end
      world[key] = value
    end,
    __metatable = false,
  }
  local globals = setmeta({}, meta)
  world._G, worlds[globals], hidden[meta] = globals, world, true
  return globals,
    texts,
    function()
      is_loaded = true
      -- What a call sees of a table is nothing of how far it was gone through before.
      passes = setmeta({}, { __mode = "k" })
      local problem = finish_loading(world, texts, keeps_nothing)
      if problem then return nil, problem end
      return { on_event = world.on_event, on_snapshot = world.on_snapshot, texts = texts }
    end
end

-- Runs the script's text. What it raises is for the caller. Returns its handlers, or nil and a message.
local function run_script(text)
  local globals, texts, close = new_world()
  local chunk, problem = load(text, "@" .. script_name, "t", globals) -- as host.place() looks for it
  if not chunk then return nil, problem end
  local code
  code, problem = host.checked(dump(chunk))
  if not code then return nil, problem end
  chunk, problem = load(code, "@" .. script_name, "b", globals)
  if not chunk then return nil, problem end
  text_meta.__index = texts
  begin_loading()
  local ok, failure = xpcall(chunk, placed)
  if not ok then
    stop_loading()
    return nil, failure
  end
  return close()
end

-- Loads the script; returns whether it has on_snapshot, or nil and a message.
local function load_script(text)
  inner.set_script_text(text)
  local found, problem = run_script(text)
  if not found then return nil, failure_text(problem) end
  if type(found.on_event) ~= "function" then
    return nil, script_name .. ": there is no function on_event(event, ctx)"
  end
  if found.on_snapshot ~= nil and type(found.on_snapshot) ~= "function" then
    return nil,
      script_name .. ": on_snapshot is a " .. type(found.on_snapshot) .. "; expected a function on_snapshot(ctx)"
  end
  set_handlers(found)
  return found.on_snapshot ~= nil
end

-- What an encoder should look at instead of this table; a message if it has no form in JSON.
local function plain(tab)
  local meta = rawmeta(tab)
  if is_event(meta) then return whole_event(tab) end
  if entity_metas[meta] then return "an entity of ctx has no form in JSON; its rows have: get or find them" end
  if hidden[meta] and rawget(meta, "region") then return "ctx has no form in JSON" end
  return worlds[tab] or tab
end

return { load_script = load_script, plain = plain }
