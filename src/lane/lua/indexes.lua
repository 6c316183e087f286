-- Indexes over the rows that have to be looked up here: made at the first query by a column, and kept by each write.

local inner = ...
local ordered, column_key, matches = inner.ordered, inner.column_key, inner.matches
local add, take_out, list_of = ordered.add, ordered.take_out, ordered.list_of
local next = next

local function slot_of(state, id)
  local slot = state[YOUNG][id]
  if slot == nil then slot = state[OLD][id] end
  return slot
end

-- Visits the rows that have to be looked up here, by id and slot.
local function each_here(state, visit)
  local young, old = state[YOUNG], state[OLD]
  if state[WHOLE] then
    for id, slot in next, young do
      if slot then visit(id, slot) end
    end
    for id, slot in next, old do
      if slot and young[id] == nil then visit(id, slot) end
    end
  else
    for id in next, state[CHANGED] do
      local slot = slot_of(state, id)
      if slot then visit(id, slot) end
    end
  end
end

local function key_in(state, index, slot, id)
  if index.column == 0 then return id end
  return column_key(state, index.column, slot)
end

local function index_of(state, column)
  local indexes = state[INDEXES]
  if not indexes then
    indexes = {}
    state[INDEXES] = indexes
  end
  local index = indexes[column]
  if index and index.is_whole == state[WHOLE] then return index end
  index = { column = column, is_whole = state[WHOLE] }
  local values, nulls = {}, {}
  each_here(state, function(id, at)
    local value = key_in(state, index, at, id)
    if value == nil then
      nulls[#nulls + 1] = { 0, id }
    else
      values[#values + 1] = { value, id }
    end
  end)
  index.values, index.nulls = list_of(values), list_of(nulls)
  indexes[column] = index
  return index
end

-- Keep the indexes and counts right. The row at a slot, or none if it is false, is about to change or go; it has
-- changed.
local function leave(state, id, slot)
  if not slot then return end
  local is_first = not state[WHOLE] and state[CHANGED][id] == nil
  for _, index in next, state[INDEXES] or {} do
    if not is_first or index.is_whole then
      local value = key_in(state, index, slot, id)
      if value == nil then
        take_out(index.nulls, 0, id)
      else
        take_out(index.values, value, id)
      end
    end
  end
  if is_first then
    for _, count in next, state[COUNTS] or {} do
      if matches(state, slot, count.tests) then count.rows = count.rows - 1 end
    end
  end
end

local function enter(state, id, slot)
  for _, index in next, state[INDEXES] or {} do
    local value = key_in(state, index, slot, id)
    if value == nil then
      add(index.nulls, 0, id)
    else
      add(index.values, value, id)
    end
  end
end

-- Whether a write must know what the row was.
local function needs_before(state)
  return state[COUNTS] and not state[WHOLE]
end

-- Forgets what was found: rows are let go.
local function drop(state)
  state[FOUND], state[COUNTS], state[INDEXES] = nil, false, false
end

return {
  slot_of = slot_of,
  index_of = index_of,
  leave = leave,
  enter = enter,
  needs_before = needs_before,
  drop_found = drop,
}
