-- `ctx`: what a handler sees of its region. Behind each entity of it is the state of its table, out of
-- a script's reach.

local inner = ...
local host, raise, name_text, hidden = inner.host, inner.raise, inner.name_text, inner.hidden
local regions, state_of, delete, methods = inner.regions, inner.state_of, inner.delete, inner.methods
local setmeta, ipairs, tostring, concat = setmetatable, ipairs, tostring, table.concat

local function refuse_key(_, key)
  raise("ctx entities are read-only (" .. tostring(key) .. "); use set")
end

local kinds = {}
for number, given in ipairs(inner.kinds_given) do
  local kind = inner.make_kind(number, given)
  local own = inner.make_methods(kind, given.columns)
  own.get, own.set, own.delete, own.find, own.count = kind.get, kind.set, delete, methods.find, methods.count
  kind.meta = { __index = own, __newindex = refuse_key }
  hidden[kind.meta] = true
  kinds[number] = kind
end

local function unknown_field(_, key)
  local names = { "region", "block" }
  for _, kind in ipairs(kinds) do
    names[#names + 1] = kind.name
  end
  raise("ctx has no " .. name_text(key) .. host.nearest(tostring(key), names) .. "; it has " .. concat(names, ", "))
end
local fields_meta = { __index = unknown_field }

local function refuse_field(_, key)
  raise("ctx is read-only (" .. tostring(key) .. "); keep state in entities")
end

local new_table_state = inner.constructor("table_state", "kind, region_number, is_empty", {
  YOUNG = "{}",
  OLD = "{}",
  CHANGED = "{}",
  DIRTY = "{}",
  DIRTY_COUNT = "0",
  WHOLE = "is_empty",
  KIND = "kind",
  REGION_NUMBER = "region_number",
  TRIED = "false",
  SEGMENTS = "{}",
  FOUND = "nil",
  COUNTS = "nil",
  INDEXES = "nil",
  TOP = "0",
  FREE = "{}",
  FREE_COUNT = "0",
  GONE = "{}",
  TOUCHED = "false",
  ROWS = "0",
  FILTERED = "is_empty",
})

-- Makes a region known. `is_empty[kind]`: its table has no row in the store.
local function define_region(number, name, is_empty)
  local fields, tables = { region = name, block = 0 }, {}
  for kind_number, kind in ipairs(kinds) do
    local state = new_table_state(kind, number, is_empty[kind_number])
    local entity = setmeta({}, kind.meta)
    state_of[entity], kind.state_of[entity] = state, state
    tables[kind_number] = state
    fields[kind.name] = entity
  end
  local ctx_meta = { __index = setmeta(fields, fields_meta), __newindex = refuse_field }
  hidden[ctx_meta] = true
  regions[number] = {
    number = number,
    ctx = setmeta({}, ctx_meta),
    fields = fields,
    tables = tables,
    undo = {},
    undo_count = 0,
    journal = {},
    journal_count = 0,
  }
end

return { define_region = define_region }
