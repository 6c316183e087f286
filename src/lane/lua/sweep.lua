-- Letting go of rows: those that are only written once their batch is committed, and those that nobody used.

local inner = ...
local S, regions = inner.state, inner.regions
local cells_at, release, list_changed = inner.cells_at, inner.release, inner.list_changed
local take_undo, take_touched, drop_found = inner.take_undo, inner.take_touched, inner.drop_found
local next, ipairs, move, sort = next, ipairs, table.move, table.sort

-- Rows of kinds that are never read, to be let go once their batch is committed: handle, batch, places, again and
-- again.
local passing, passing_first, passing_last = {}, 1, 0

local function pass(handle, batch, places)
  passing[passing_last + 1], passing[passing_last + 2], passing[passing_last + 3] = handle, batch, places
  passing_last = passing_last + 3
end

local function let_go(handle, number, places)
  local kind, young, old, segments, gone = handle[KIND], handle[YOUNG], handle[OLD], handle[SEGMENTS], 0
  local changed = handle[CHANGED]
  if kind.is_read then return end
  local id_at, batch_at = kind.id_at, kind.batch_at
  for place_in = 1, #places do
    local place = places[place_in]
    local d, at = segments[place >> SHIFT], place & MASK
    -- The row may have been moved meanwhile, and another one be here: that one goes, if that batch changed it last.
    local id, changed_in = d and d[at + id_at], d and d[at + batch_at]
    if id and (changed_in == number or changed_in == -number) and (young[id] or old[id]) == place then
      young[id], old[id], changed[id] = nil, nil, nil
      release(handle, place)
      gone = gone + 1
    end
  end
  if gone > 0 then
    handle[WHOLE], handle[ROWS] = false, handle[ROWS] - gone
  end
end

local function begin_batch(number, committed)
  S[BATCH], S[COMMITTED] = number, committed
  while passing_first < passing_last and passing[passing_first + 1] <= committed do
    let_go(passing[passing_first], passing[passing_first + 1], passing[passing_first + 2])
    for at = passing_first, passing_first + 2 do
      passing[at] = nil
    end
    passing_first = passing_first + 3
  end
end

-- Lets all rows go: the store was rolled back.
local function forget()
  for _, region in next, regions do
    for _, handle in ipairs(region.handles) do
      handle[YOUNG], handle[OLD], handle[CHANGED], handle[DIRTY], handle[DIRTY_COUNT] = {}, {}, {}, {}, 0
      handle[WHOLE], handle[TRIED], handle[TOUCHED], handle[FILTERED] = false, false, false, false
      handle[SEGMENTS], handle[TOP], handle[FREE], handle[FREE_COUNT], handle[GONE], handle[ROWS] = {}, 0, {}, 0, {}, 0
      drop_found(handle)
    end
  end
  take_touched()
  take_undo()
  passing, passing_first, passing_last = {}, 1, 0
end

-- Moves the last rows of a table into the places that are free, so that segments at the end can go. All rows are in
-- OLD.
local function compact(handle)
  local kind, segments, free, map = handle[KIND], handle[SEGMENTS], handle[FREE], handle[OLD]
  -- Rows that the batch wrote and that are gone do not stand in the way.
  local dirty, dirty_count, kept = handle[DIRTY], handle[DIRTY_COUNT], {}
  for at = 1, dirty_count do
    local d, cell = cells_at(handle, dirty[at])
    if d[cell + kind.id_at] then
      kept[#kept + 1] = dirty[at]
    else
      release(handle, dirty[at])
    end
  end
  if handle[FREE_COUNT] == 0 then return end
  for at = #free, handle[FREE_COUNT] + 1, -1 do
    free[at] = nil
  end
  sort(free)
  local moved, top, last_cell = {}, handle[TOP], (kind.rows_max - 1) * kind.width + 1
  local function drop_top()
    if top & MASK > 1 then
      top = top - kind.width
    else
      segments[top >> SHIFT] = nil
      top = top >> SHIFT == 1 and 0 or ((top >> SHIFT) - 1) << SHIFT | last_cell
    end
  end
  local function drop_free_top()
    while top > 0 do
      local d, at = cells_at(handle, top)
      if d[at + kind.id_at] then return end
      drop_top()
    end
  end
  drop_free_top()
  for _, hole in ipairs(free) do
    if hole >= top then break end
    local d, at = cells_at(handle, top)
    move(d, at, at + kind.width - 1, hole & MASK, segments[hole >> SHIFT])
    map[d[at + kind.id_at]] = hole
    -- Who still has the old place finds nothing there.
    d[at + kind.id_at] = false
    moved[top] = hole
    drop_top()
    drop_free_top()
  end
  for at, place_of_row in ipairs(kept) do
    kept[at] = moved[place_of_row] or place_of_row
  end
  handle[DIRTY], handle[DIRTY_COUNT], handle[TOP], handle[FREE], handle[FREE_COUNT] = kept, #kept, top, {}, 0
end

-- Lets go of committed rows that were not used since the last sweep. Rows of batches that are not committed stay.
local function sweep()
  local committed = S[COMMITTED]
  for _, swept in next, regions do
    for _, handle in ipairs(swept.handles) do
      local young, old, changed, batch_at = handle[YOUNG], handle[OLD], handle[CHANGED], handle[KIND].batch_at
      local was_whole = handle[WHOLE]
      drop_found(handle)
      for id, place_of_row in next, old do
        if young[id] == nil then
          local changed_in
          if place_of_row then
            local d, at = cells_at(handle, place_of_row)
            changed_in = d[at + batch_at]
            if changed_in < 0 then changed_in = -changed_in end
          else
            changed_in = changed[id] or 0
          end
          if changed_in > committed then
            young[id] = place_of_row
          elseif place_of_row then
            release(handle, place_of_row)
            handle[WHOLE], handle[ROWS] = false, handle[ROWS] - 1
          end
        end
      end
      for id, number in next, changed do
        if number <= committed then changed[id] = nil end
      end
      handle[OLD], handle[YOUNG] = young, {}
      if was_whole and not handle[WHOLE] and handle[KIND].is_read then list_changed(handle) end
      compact(handle)
    end
  end
end

return { pass = pass, begin_batch = begin_batch, forget = forget, sweep = sweep }
