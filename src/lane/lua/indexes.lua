-- Indexes over the rows that have to be looked up here: made at the first query by a column, and kept by each write.

local inner = ...
local ordered, column_key, matches = inner.ordered, inner.column_key, inner.matches
local add, take_out, list_of = ordered.add, ordered.take_out, ordered.list_of
local next = next

local function place_of_row(handle, id)
  local place = handle[YOUNG][id]
  if place == nil then place = handle[OLD][id] end
  return place
end

-- Visits the rows that have to be looked up here, by id and place.
local function each_here(handle, visit)
  local young, old = handle[YOUNG], handle[OLD]
  if handle[WHOLE] then
    for id, place in next, young do
      if place then visit(id, place) end
    end
    for id, place in next, old do
      if place and young[id] == nil then visit(id, place) end
    end
  else
    for id in next, handle[CHANGED] do
      local place = place_of_row(handle, id)
      if place then visit(id, place) end
    end
  end
end

local function key_in(handle, index, place, id)
  if index.place == 0 then return id end
  return column_key(handle, index.place, place)
end

local function index_of(handle, place)
  local indexes = handle[INDEXES]
  if not indexes then
    indexes = {}
    handle[INDEXES] = indexes
  end
  local index = indexes[place]
  if index and index.is_whole == handle[WHOLE] then return index end
  index = { place = place, is_whole = handle[WHOLE] }
  local values, nulls = {}, {}
  each_here(handle, function(id, at)
    local value = key_in(handle, index, at, id)
    if value == nil then
      nulls[#nulls + 1] = { 0, id }
    else
      values[#values + 1] = { value, id }
    end
  end)
  index.values, index.nulls = list_of(values), list_of(nulls)
  indexes[place] = index
  return index
end

-- Keep the indexes and counts right. The row at a place, or none if it is false, is about to change or go; it has
-- changed.
local function leave(handle, id, place)
  if not place then return end
  local is_first = not handle[WHOLE] and handle[CHANGED][id] == nil
  for _, index in next, handle[INDEXES] or {} do
    if not is_first or index.is_whole then
      local value = key_in(handle, index, place, id)
      if value == nil then
        take_out(index.nulls, 0, id)
      else
        take_out(index.values, value, id)
      end
    end
  end
  if is_first then
    for _, count in next, handle[COUNTS] or {} do
      if matches(handle, place, count.tests) then count.rows = count.rows - 1 end
    end
  end
end

local function enter(handle, id, place)
  for _, index in next, handle[INDEXES] or {} do
    local value = key_in(handle, index, place, id)
    if value == nil then
      add(index.nulls, 0, id)
    else
      add(index.values, value, id)
    end
  end
end

-- Whether a write must know what the row was.
local function needs_before(handle)
  return handle[COUNTS] ~= nil and not handle[WHOLE]
end

-- Forgets what was found: rows are let go.
local function drop(handle)
  handle[FOUND], handle[COUNTS], handle[INDEXES] = nil, nil, nil
end

return {
  place_of_row = place_of_row,
  index_of = index_of,
  leave = leave,
  enter = enter,
  needs_before = needs_before,
  drop_found = drop,
}
