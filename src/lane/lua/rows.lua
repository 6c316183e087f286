-- Rows that are here: cells in lists, see `kinds.lua`; and where each row's cells lie.

local inner = ...
local has_history <const> = inner.has_history
local next, ipairs, setmeta, error = next, ipairs, setmetatable, error

local regions = {} -- by number

-- `ctx.<entity>` of one region is an empty table; the state of the table is out of a script's reach. False stands for
-- that of a region that is not being handled.
local state_of = {}
local entity_metas = {} -- the metatables of all `ctx.<entity>`

-- What a table has none of. All share it until they have some: most tables are small, and there may be one of each kind
-- for each of a million regions.
local EMPTY <const> = setmeta({}, {
  __newindex = function()
    error("a table that all share is written to")
  end,
})

-- The list of that name of a table, its own.
local function own(state, name)
  local list = state[name]
  if list == EMPTY then
    list = {}
    state[name] = list
  end
  return list
end

-- The segment of a slot, and the row's first cell in it.
local function cells_at(state, slot)
  return state[SEGMENTS][slot >> SHIFT], slot & MASK
end

-- A slot for one more row.
local function new_slot(state)
  local count = state[FREE_COUNT]
  if count > 0 then
    state[FREE_COUNT] = count - 1
    return state[FREE][count]
  end
  local kind, slot = state[KIND], state[TOP]
  if slot == 0 or (slot & MASK) + 2 * kind.width > kind.rows_max * kind.width + 1 then
    local segments = state[SEGMENTS]
    if segments == EMPTY then
      state[SEGMENTS], slot = { kind.new_segment() }, 1 << SHIFT | 1
    else
      segments[#segments + 1] = {}
      slot = #segments << SHIFT | 1
    end
  else
    slot = slot + kind.width
  end
  state[TOP] = slot
  return slot
end

-- Gives a row's slot back.
local function release(state, slot)
  local count = state[FREE_COUNT] + 1
  state[KIND].wipe(state[SEGMENTS][slot >> SHIFT], slot & MASK)
  own(state, FREE)[count], state[FREE_COUNT] = slot, count
end

-- Makes a row known that is not; its columns are for the caller to fill in. Returns the slot and its cells.
local function add_row(state, id, writer, changed_in)
  local slot = new_slot(state)
  local kind = state[KIND]
  local d, at = cells_at(state, slot)
  -- In the order of cells, so that a new segment stays a list.
  for cell = at, at + kind.cells - 1 do
    d[cell] = false
  end
  d[at + kind.id_at], d[at + kind.writer_at], d[at + kind.batch_at] = id, writer, changed_in
  if has_history then d[at + kind.block_at] = false end
  state[YOUNG][id] = slot
  if state[OLD][id] ~= nil then state[OLD][id] = nil end
  state[ROWS] = state[ROWS] + 1
  return slot, d, at
end

-- The slot of an id, or false; whichever generation it is in.
local function lookup(state, id)
  local slot = state[YOUNG][id]
  if slot ~= nil then return slot end
  slot = state[OLD][id]
  if slot ~= nil then
    -- In this order: memory may be used up in between.
    state[YOUNG][id] = slot
    state[OLD][id] = nil
    return slot
  end
  if state[WHOLE] then return false end
  return nil
end

-- Brings CHANGED up to date with the rows that changed in this run.
local function list_changed(state)
  local batch_at = state[KIND].batch_at
  for _, map in ipairs { state[YOUNG], state[OLD] } do
    for id, slot in next, map do
      if slot then
        local d, at = cells_at(state, slot)
        local changed_in = d[at + batch_at]
        if changed_in ~= 0 then own(state, CHANGED)[id] = changed_in < 0 and -changed_in or changed_in end
      end
    end
  end
end

-- Notes that rows of a kind are read. Until then they are let go as soon as their batch is committed.
local function note_read(kind)
  if kind.is_read then return end
  for _, known in next, regions do
    local state = known.tables[kind.number]
    if state and not state[WHOLE] then list_changed(state) end
  end
  kind.is_read = true
end

local unknown = {} -- by number of the kind

-- Notes a row of which it was not known whether it exists.
local function note_unknown(kind)
  unknown[kind.number] = (unknown[kind.number] or 0) + 1
end

-- How many of them there were since it was asked last.
local function take_unknown(kind_number)
  local rows = unknown[kind_number] or 0
  unknown[kind_number] = nil
  return rows
end

local filtered = {} -- by number of the kind

-- The host knows from now on which rows of a kind there may be.
local function set_filtered(kind_number)
  filtered[kind_number] = true
  for _, known in next, regions do
    local state = known.tables[kind_number]
    if state then state[FILTERED] = true end
  end
end

local function is_filtered(kind_number)
  return filtered[kind_number] or false
end

-- The host does not know of any kind any more.
local function forget_filtered()
  filtered = {}
end

return {
  note_unknown = note_unknown,
  take_unknown = take_unknown,
  set_filtered = set_filtered,
  is_filtered = is_filtered,
  forget_filtered = forget_filtered,
  regions = regions,
  state_of = state_of,
  entity_metas = entity_metas,
  EMPTY = EMPTY,
  own = own,
  cells_at = cells_at,
  new_slot = new_slot,
  release = release,
  add_row = add_row,
  lookup = lookup,
  list_changed = list_changed,
  note_read = note_read,
}
