-- What a script keeps: all that it made while it was loaded and can reach from then on. A run that goes on later does
-- not know what calls wrote there, and calls of other regions see it while one waits for a row. So it is frozen:
-- functions that assign to what outlives a call are refused, and tables are read-only. `bytecode/keeping.rs` puts
-- instructions into the script that compare a table with the probe before they write to it, and that tell what a
-- closure shares.

local inner = ...
local host, raise, probe, hidden = inner.host, inner.raise, inner.probe, inner.hidden
local array_meta, number_meta = inner.array_meta, inner.number_meta
local script_name <const>, script_line = inner.script_name, inner.script_line
local rawmeta, setmeta, rawget, rawset, rawequal = getmetatable, setmetatable, rawget, rawset, rawequal
local type, next, ipairs = type, next, ipairs
local keys_in_order, beginning = inner.keys_in_order, inner.beginning
local pack, format = table.pack, string.format

local NAME_MAX <const>, LINE_MAX <const> = 40, 120 -- bytes of a name and of a line that are shown

-- The names of what a script keeps, by its tables. Other frozen tables are metatables that a call has made.
local names = setmeta({}, { __mode = "k" })

local function refuse_write(tab)
  local name = names[tab]
  if not name then raise("setmetatable: a metatable is read-only once it is in use; give it its fields before") end
  raise(
    "%s is read-only once the script is loaded; keep state in entities, or make the table in the call%s",
    name,
    beginning(script_line(), LINE_MAX)
  )
end

-- The metatables of frozen tables, and what a script sees in their place: its own one, or false for none.
local frozen_metas = setmeta({}, { __mode = "k" })

-- Whether a table is one of ours that values are told apart by. A script's `__eq` is never asked about it: it could
-- pass a table off as an exact number or an event, or keep the probe.
local function is_ours(tab)
  return hidden[tab] or frozen_metas[tab] ~= nil or rawequal(tab, probe)
end

-- What a script holds all the same, from a metatable that it changed while it was loaded, it can do nothing with.
local probe_meta = {
  __newindex = function()
    raise("this table is not of the script, and cannot be changed")
  end,
}
setmeta(probe, probe_meta)
hidden[probe_meta] = true

-- What `==` says of a frozen table that says nothing itself, and another one: as in Lua, what the other one says.
local function is_equal_to(a, b)
  local meta = rawmeta(b) ~= nil and host.metatable(b) or nil
  local own = frozen_metas[meta]
  if own ~= nil then meta = own or nil end
  local equals = meta ~= nil and rawget(meta, "__eq") or nil
  return equals ~= nil and not is_ours(a) and not is_ours(b) and equals(a, b)
end

local frozen_meta = {
  __eq = function(a, b)
    if rawequal(b, probe) then refuse_write(a) end
    return is_equal_to(a, b)
  end,
  __newindex = refuse_write,
}
frozen_metas[frozen_meta] = false
inner.asked_in_place(frozen_meta)

-- Raises if a table, or a number, must not be changed.
local function check_write(tab)
  return tab == probe
end

-- The metatables of frozen tables that have one, by it: the same, but for writes.
local frozen_copies = setmeta({}, { __mode = "k" })

local function frozen_copy(meta)
  local copy = frozen_copies[meta]
  if copy then return copy end
  copy = {}
  for name, method in next, meta do
    copy[name] = method
  end
  local equals = copy.__eq
  copy.__eq = function(a, b)
    if rawequal(b, probe) then refuse_write(a) end
    if equals == nil then return is_equal_to(a, b) end
    return not is_ours(a) and not is_ours(b) and equals(a, b)
  end
  copy.__newindex = refuse_write
  frozen_copies[meta], frozen_metas[copy] = copy, meta
  return copy
end

-- Arrays stay arrays.
local frozen_array_meta = frozen_copy(array_meta)
inner.told_apart(frozen_array_meta)

local function freeze(tab, meta, name)
  names[tab] = name
  if meta then
    host.set_metatable(tab, frozen_copy(meta))
  else
    setmeta(tab, frozen_meta)
  end
end

----------------------------------------------------------------------------------------------------------- metatables

local guards = setmeta({}, { __mode = "k" }) -- functions of ours -> what of a script they stand for

local function acts_by_chance(meta)
  return rawget(meta, "__gc") ~= nil or rawget(meta, "__mode") ~= nil or rawget(meta, "__close") ~= nil
end

local function is_callable(value)
  if type(value) == "function" then return true end
  local meta = type(value) == "table" and rawmeta(value) ~= nil and host.metatable(value)
  return meta and rawget(meta, "__call") ~= nil
end

-- Brings a script's metatable into a form that the comparisons with the probe do not disturb, and that writes to no
-- frozen table by itself.
local function guard_fields(meta)
  local equals, target = rawget(meta, "__eq"), rawget(meta, "__newindex")
  if is_callable(equals) and not guards[equals] then
    local function guarded(a, b)
      return not is_ours(b) and not is_ours(a) and equals(a, b)
    end
    guards[guarded] = equals
    rawset(meta, "__eq", guarded)
  end
  if type(target) == "table" then
    local function write(_, key, value)
      check_write(target)
      target[key] = value
    end
    guards[write] = target
    rawset(meta, "__newindex", write)
  end
end

local function guard(meta)
  if acts_by_chance(meta) then
    raise("setmetatable: __gc, __mode and __close are not for handlers; when they act is chance, or amid an error")
  end
  local equals = rawget(meta, "__eq")
  if equals ~= nil and not is_callable(equals) then
    raise("setmetatable: __eq is no function but a " .. type(equals))
  end
  guard_fields(meta)
end

local is_loading = false
local ready = setmeta({}, { __mode = "k" }) -- metatables that cannot change any more, and are guarded

-- Gives a table a metatable. Once the script is loaded, one is read-only as soon as it is used: what is put into it
-- later would act without having been looked at. It may be the table itself, so it is made read-only last.
local function give_metatable(tab, meta)
  if ready[meta] then return setmeta(tab, meta) end
  if hidden[rawmeta(meta)] then
    raise("setmetatable: the metatable of this value is protected, so it is none itself")
  end
  guard(meta)
  setmeta(tab, meta)
  if is_loading then return tab end
  local own = rawmeta(meta) ~= nil and host.metatable(meta) or nil
  if frozen_metas[own] == nil then freeze(meta, own, nil) end
  ready[meta] = true
  return tab
end

-- What a script sees of a metatable: nil, false if it is ours, or its own.
local function shown(meta)
  if hidden[meta] then return false end
  local own = frozen_metas[meta]
  if own == nil then return meta end
  return own or nil
end

----------------------------------------------------------------------------------------------- what a closure shares

local readers -- closure -> its reader, or a list of them
local end_loading -- ends the handing out of readers

-- An instruction of the script hands out a closure and its reader; or, twice, the function that ends the loading.
local function_meta = {}
function function_meta.__mode(closure, reader)
  if closure == reader then
    end_loading = closure
    return nil
  end
  local known = readers[closure]
  if known == nil then
    readers[closure] = reader
  elseif type(known) == "function" then
    readers[closure] = { known, reader }
  else
    known[#known + 1] = reader
  end
  return nil
end
hidden[function_meta] = true

-- An instruction of the script asks for the probe.
function number_meta.__mode()
  return probe
end

local function place(line)
  return format("%s:%d: ", script_name, line)
end

-- What is wrong with a closure that assigns to a local of a function around it, or of the script.
local function keeps_state(line, name)
  return format(
    "%sa function assigns to %s, a local outside of it that outlives the call: calls of other regions see it while one"
      .. " waits for a row, and a run that goes on later does not know it; hand it to functions as an argument, or keep"
      .. " it in a row",
    place(line),
    name
  )
end

local function is_iterator(where, name)
  return format(
    "%s%s is an iterator that goes on from call to call: call pairs or string.gmatch in the loop",
    where,
    name
  )
end

-- Looks at a function, and hands what it shares to `visit`; returns what is wrong with it. `where` says who holds it.
local function look_at(fun, library, name, where, visit)
  local known = readers[fun]
  if known == nil then
    if guards[fun] then visit(guards[fun], name, where) end
    if guards[fun] or library[fun] or host.is_of_script(fun) then return nil end
    return is_iterator(where, name)
  end
  for _, reader in next, type(known) == "table" and known or { known } do
    local all = pack(reader())
    if all[1] then return keeps_state(all[1], all[2]) end
    for at = 4, all.n, 2 do
      visit(all[at + 1], all[at], place(all[3]))
    end
  end
  return nil
end

local function shown_name(key, name)
  return type(key) == "string" and beginning(key, NAME_MAX) or name
end

-- All tables that a script can reach from its globals and the methods of texts, with their metatables and names; or nil
-- and what is wrong.
local function reachable(world, texts, library)
  local queue, holders, places, count = {}, {}, {}, 0
  local seen = { [world] = true }
  local function visit(value, name, where)
    local kind = type(value)
    if (kind ~= "table" and kind ~= "function") or seen[value] then return end
    seen[value], count = true, count + 1
    queue[count], holders[count], places[count] = value, name, where
  end
  -- What is reached in several ways has the name of the first.
  for _, name in ipairs(keys_in_order(world)) do
    visit(world[name], shown_name(name, "a global"), script_name .. ": ")
    visit(name, "a global", script_name .. ": ")
  end
  visit(texts, "string", script_name .. ": ")
  local tables, metas, tables_names, tables_count, at = {}, {}, {}, 0, 0
  while at < count do
    at = at + 1
    local value, name, where = queue[at], holders[at], places[at]
    if type(value) == "function" then
      local problem = look_at(value, library, name, where, visit)
      if problem then return nil, problem end
    else
      local meta = rawmeta(value) ~= nil and host.metatable(value) or nil
      local is_array = rawequal(meta, array_meta)
      if is_array or not (hidden[meta] or frozen_metas[meta] ~= nil) then
        tables_count = tables_count + 1
        tables[tables_count], metas[tables_count], tables_names[tables_count] = value, meta, name
        for _, key in ipairs(keys_in_order(value)) do
          visit(key, name, where)
          visit(rawget(value, key), name, where)
        end
        if not is_array then visit(meta, name, where) end
      end
    end
  end
  return tables, metas, tables_names
end

local function by_chance(name)
  return format("%s: %s: __gc, __mode and __close are not for handlers; when they act is chance", script_name, name)
end

local function begin_loading()
  readers, end_loading, is_loading = setmeta({}, { __mode = "k" }), nil, true
end

local function stop_loading()
  readers, end_loading, is_loading = nil, nil, false
end

-- The script is loaded: freezes what it keeps. `library` has the functions that keep nothing. Returns nil, or what is
-- wrong with the script.
local function finish_loading(world, texts, library)
  if end_loading then end_loading() end
  local tables, metas, tables_names = reachable(world, texts, library)
  stop_loading()
  if not tables then return metas end
  for at = 1, #tables do
    if metas[at] and acts_by_chance(metas[at]) then return by_chance(tables_names[at]) end
  end
  for at = 1, #tables do
    local tab = tables[at]
    -- It may become a metatable in a call; what the script sees of it does not change then.
    guard_fields(tab)
    freeze(tab, metas[at], tables_names[at])
  end
  return nil
end

return {
  function_meta = function_meta,
  frozen_array_meta = frozen_array_meta,
  begin_loading = begin_loading,
  stop_loading = stop_loading,
  finish_loading = finish_loading,
  check_write = check_write,
  give_metatable = give_metatable,
  shown_meta = shown,
  frozen_meta = frozen_meta,
}
