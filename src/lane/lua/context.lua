-- `ctx`: what a handler sees of its region. Behind each entity of it is the state of its table, out of
-- a script's reach.

local inner = ...
local host, raise, raise_final, name_text, key_text =
  inner.host, inner.raise, inner.raise_final, inner.name_text, inner.key_text
local regions, state_of, delete, methods = inner.regions, inner.state_of, inner.delete, inner.methods
local hidden, entity_metas = inner.hidden, inner.entity_metas
local S, EMPTY <const> = inner.run_state, inner.EMPTY
local has_history <const>, puts_aside <const> = inner.has_history, inner.puts_aside
local rawmeta, setmeta, ipairs, load = getmetatable, setmetatable, ipairs, load
local concat, format = table.concat, string.format

local function refuse_key(_, key)
  raise("ctx entities are read-only (" .. key_text(key) .. "); use set")
end

local kinds = {}
for number, given in ipairs(inner.kinds_given) do
  local kind = inner.make_kind(number, given)
  local own = inner.make_methods(kind, given.columns)
  own.get, own.set, own.delete, own.find, own.count = kind.get, kind.set, delete, methods.find, methods.count
  kind.meta = { __index = own, __newindex = refuse_key }
  hidden[kind.meta], entity_metas[kind.meta] = true, true
  kinds[number] = kind
end

local function unknown_field(_, key)
  local names = { "region", "block" }
  for _, kind in ipairs(kinds) do
    names[#names + 1] = kind.name
  end
  raise("ctx has no " .. name_text(key) .. host.nearest(key_text(key), names) .. "; it has " .. concat(names, ", "))
end
local fields_meta = { __index = unknown_field }

local function refuse_field(_, key)
  raise("ctx is read-only (" .. key_text(key) .. "); keep state in entities")
end

local new_table_state = inner.constructor("table_state", "kind, region_number, is_whole, is_filtered, EMPTY", {
  YOUNG = "{}",
  OLD = "EMPTY",
  CHANGED = "EMPTY",
  DIRTY = "EMPTY",
  DIRTY_COUNT = "0",
  WHOLE = "is_whole",
  KIND = "kind",
  REGION_NUMBER = "region_number",
  TRIED = "false",
  SEGMENTS = "EMPTY",
  FOUND = "nil",
  COUNTS = "false",
  INDEXES = "false",
  TOP = "0",
  FREE = "EMPTY",
  FREE_COUNT = "0",
  GONE = "EMPTY",
  TOUCHED = "false",
  ROWS = "0",
  FILTERED = "is_filtered",
})

-- Makes a region known. `is_empty[kind]`: its table had no row in the store when the run began. `is_back`: it was known
-- before, and let go of, so there may be rows of it by now.
local function define_region(number, name, is_empty, is_back)
  local region = { number = number, name = name, tables = {}, view = false, is_empty = is_empty, is_back = is_back }
  if has_history then
    region.undo, region.undo_count = false, 0
  end
  if puts_aside then
    region.journal, region.journal_count = false, 0
  end
  regions[number] = region
end

-- The state of a table of a region. It is made for the first use of it.
local function table_of(region, number)
  local state = region.tables[number]
  if not state then
    local is_empty = region.is_empty[number]
    local is_filtered = is_empty or inner.is_filtered(number)
    state = new_table_state(kinds[number], region.number, is_empty and not region.is_back, is_filtered, EMPTY)
    -- In order, so that it stays a list.
    for before = #region.tables + 1, number - 1 do
      region.tables[before] = false
    end
    region.tables[number] = state
  end
  return state
end

------------------------------------------------------------------------------------------- one ctx is in use at a time

local CTX_CALLS <const> = 64 -- calls of one region that may share a `ctx`
local FRESH_CALLS <const> = 1024 -- of the first calls each has its own: what a script keeps it keeps from the beginning
local VIEWS_MAX <const> = 1024 -- regions that keep their `ctx` from one turn to the next

-- Makes what a region has with its `ctx`: what is behind that, and the entities in it by kind.
local new_view
do
  local entities, fields = {}, {}
  for number, kind in ipairs(kinds) do
    entities[number], fields[number] = "false, ", format(", [%q] = false", kind.name)
  end
  local form = "return function() return { %sctx = false, meta = false, is_waiting = false, "
    .. "fields = { region = false, block = 0%s } } end"
  new_view = load(format(form, concat(entities), concat(fields)), "=inner:view", "t")()
end

local in_use -- the region whose ctx works now
local calls = 0
local views = 0 -- regions that have one
local owner_of = setmeta({}, { __mode = "k" }) -- of each entity in a ctx, the name of the region

-- Says what is wrong with a ctx, or what comes from it, that is not the one of the call: a run that begins at this
-- event would not have it. `name` is that of its region, if it is known.
local function refuse_kept(what, name)
  local whose = "an earlier call"
  if name and not (in_use and name == in_use.name) then whose = format("a call for region %q", name) end
  local now = in_use and format(" for region %q", in_use.name) or ""
  raise_final("%s: this ctx was given to %s, and works in that call only; use the ctx of this call%s", what, whose, now)
end

local function refuse_kept_entity(what, entity)
  refuse_kept(what, owner_of[entity])
end

local function kept_field(ctx, key)
  refuse_kept("ctx." .. key_text(key), rawmeta(ctx).region)
end

-- Lets a region's ctx work, or not.
local function set_use(region, is_used)
  local view = region.view
  view.meta.__index = is_used and view.fields or kept_field
  local tables = region.tables
  for number = 1, #kinds do
    local entity, state = view[number], is_used and tables[number] or nil
    state_of[entity], kinds[number].state_of[entity] = state, state
  end
end

-- Takes a region's ctx away. It does not work again.
local function drop_view(region)
  if region == in_use then set_use(region, false) end
  region.view = false
  views = views - 1
end

-- Gives a region another ctx. The one that it had does not work again.
local function renew_ctx(region)
  if region.view then drop_view(region) end
  local name, view = region.name, new_view()
  local fields, meta = view.fields, { __index = kept_field, __newindex = refuse_field, region = name }
  hidden[meta] = true
  view.ctx, view.meta, fields.region = setmeta({}, meta), meta, name
  setmeta(fields, fields_meta)
  for number, kind in ipairs(kinds) do
    local entity = setmeta({}, kind.meta)
    view[number], fields[kind.name], owner_of[entity] = entity, entity, name
  end
  region.view = view
  views = views + 1
  if region == in_use then set_use(region, true) end
end

-- From now on the ctx of that region works, and no other. Without a region none does.
local function use_ctx(region)
  if region == in_use then return end
  local before = in_use
  if before and before.view then
    set_use(before, false)
    in_use = nil
    if views > VIEWS_MAX and not before.view.is_waiting then drop_view(before) end
  end
  in_use = region
  if not region then return end
  if region.view then
    set_use(region, true)
  else
    renew_ctx(region)
  end
end

-- Gives the region the ctx of its next call; returns for how many calls it may be, and what is behind it.
local function next_ctx(region)
  renew_ctx(region)
  calls = calls + 1
  return calls <= FRESH_CALLS and 1 or CTX_CALLS, region.view
end

-- Gives the region a ctx that no call has had, and returns what is behind it.
local function fresh_ctx(region)
  local had_one = region.view
  use_ctx(region)
  if had_one or not region.view then renew_ctx(region) end
  return region.view
end

-- The state of the table of an entity that has none yet; nothing if the entity's ctx is not in use.
local function make_state(entity)
  local view = in_use and in_use.view
  for number = 1, view and #kinds or 0 do
    if view[number] == entity then
      local state = table_of(in_use, number)
      state_of[entity], kinds[number].state_of[entity] = state, state
      return state
    end
  end
end

-- Lets a region go that nothing is known of any more: neither rows nor what they were. It is made known again for its
-- next call. Returns whether it went.
local function let_region_go(region)
  if region == S[REGION] or (region.undo_count or 0) > 0 then return false end
  if region == in_use then use_ctx(nil) end
  if region.view then drop_view(region) end
  regions[region.number] = nil
  host.forget_region(region.number)
  return true
end

return {
  define_region = define_region,
  table_of = table_of,
  make_state = make_state,
  use_ctx = use_ctx,
  next_ctx = next_ctx,
  fresh_ctx = fresh_ctx,
  refuse_kept = refuse_kept_entity,
  let_region_go = let_region_go,
}
