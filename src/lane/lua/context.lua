-- `ctx`: what a handler sees of its region. Behind each entity of it is the state of its table, out of
-- a script's reach.

local inner = ...
local host, raise, raise_final, name_text, key_text =
  inner.host, inner.raise, inner.raise_final, inner.name_text, inner.key_text
local regions, state_of, delete, methods = inner.regions, inner.state_of, inner.delete, inner.methods
local hidden, entity_metas = inner.hidden, inner.entity_metas
local rawmeta, setmeta, next, ipairs, concat, format =
  getmetatable, setmetatable, next, ipairs, table.concat, string.format

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

local new_table_state = inner.constructor("table_state", "kind, region_number, is_empty, is_filtered", {
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
  COUNTS = "false",
  INDEXES = "false",
  TOP = "0",
  FREE = "{}",
  FREE_COUNT = "0",
  GONE = "{}",
  TOUCHED = "false",
  ROWS = "0",
  FILTERED = "is_filtered",
})

-- Makes a region known. `is_empty[kind]`: its table has no row in the store; `is_filtered[kind]`: the host knows which
-- rows there may be.
local function define_region(number, name, is_empty, is_filtered)
  local tables = {}
  for kind_number, kind in ipairs(kinds) do
    tables[kind_number] = new_table_state(kind, number, is_empty[kind_number], is_filtered[kind_number])
  end
  regions[number] = {
    number = number,
    name = name,
    fields = setmeta({ region = name, block = 0 }, fields_meta),
    tables = tables,
    ctx = false, -- what scripts have, made for the first call, and the entities in it by kind
    ctx_meta = false,
    entities = {},
    undo = {},
    undo_count = 0,
    journal = {},
    journal_count = 0,
  }
end

------------------------------------------------------------------------------------------- one ctx is in use at a time

local CTX_CALLS <const> = 64 -- calls of one region that may share a `ctx`
local FRESH_CALLS <const> = 1024 -- of the first calls each has its own: what a script keeps it keeps from the beginning

local in_use -- the region whose ctx works now
local calls = 0

-- Says what is wrong with a ctx, or what comes from it, that is not the one of the call: a run that begins at this
-- event would not have it. `region` is its region, if that is known.
local function refuse_kept(what, region)
  local whose = "an earlier call"
  if region and region ~= in_use then whose = format("a call for region %q", region.name) end
  local now = in_use and format(" for region %q", in_use.name) or ""
  raise_final("%s: this ctx was given to %s, and works in that call only; use the ctx of this call%s", what, whose, now)
end

local function refuse_kept_entity(what, entity)
  for _, region in next, regions do
    for _, one in ipairs(region.entities) do
      if one == entity then refuse_kept(what, region) end
    end
  end
  refuse_kept(what)
end

local function kept_field(ctx, key)
  refuse_kept("ctx." .. key_text(key), rawmeta(ctx).region)
end

-- Lets a region's ctx work, or not.
local function set_use(region, is_used)
  region.ctx_meta.__index = is_used and region.fields or kept_field
  local entities, tables = region.entities, region.tables
  for number = 1, #kinds do
    local entity, state = entities[number], is_used and tables[number]
    state_of[entity], kinds[number].state_of[entity] = state, state
  end
end

-- Gives a region another ctx. The one that it had does not work again.
local function renew_ctx(region)
  if region.ctx then
    region.ctx_meta.__index = kept_field
    for number, entity in ipairs(region.entities) do
      state_of[entity], kinds[number].state_of[entity] = nil, nil
    end
  end
  local meta = { __index = kept_field, __newindex = refuse_field, region = region }
  hidden[meta] = true
  region.ctx, region.ctx_meta = setmeta({}, meta), meta
  for number, kind in ipairs(kinds) do
    local entity = setmeta({}, kind.meta)
    region.entities[number], region.fields[kind.name] = entity, entity
  end
  set_use(region, region == in_use)
end

-- From now on the ctx of that region works, and no other. Without a region none does.
local function use_ctx(region)
  if region == in_use then return end
  local before = in_use
  in_use = region
  if before then set_use(before, false) end
  if not region then return end
  if region.ctx then
    set_use(region, true)
  else
    renew_ctx(region)
  end
end

-- Gives the region the ctx of its next call; returns for how many calls it may be, and the ctx.
local function next_ctx(region)
  renew_ctx(region)
  calls = calls + 1
  return calls <= FRESH_CALLS and 1 or CTX_CALLS, region.ctx
end

return { define_region = define_region, use_ctx = use_ctx, next_ctx = next_ctx, refuse_kept = refuse_kept_entity }
