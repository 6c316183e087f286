-- Letting go of rows: those that are only written once their batch is committed, and those that nobody used.

local inner = ...
local S, regions = inner.run_state, inner.regions
local cells_at, release, own, list_changed = inner.cells_at, inner.release, inner.own, inner.list_changed
local take_undo, take_touched, drop_found = inner.take_undo, inner.take_touched, inner.drop_found
local EMPTY <const>, let_region_go = inner.EMPTY, inner.let_region_go
local next, ipairs, move, sort = next, ipairs, table.move, table.sort

-- Rows of kinds that are never read, to be let go once their batch is committed: state, batch, slots, again and
-- again.
local passing, passing_first, passing_last = {}, 1, 0

local function pass(state, batch, slots)
  passing[passing_last + 1], passing[passing_last + 2], passing[passing_last + 3] = state, batch, slots
  passing_last = passing_last + 3
end

-- Whether nothing is known of a table, and it holds nothing that is not committed.
local function is_idle(state)
  return state[ROWS] == 0
    and state[DIRTY_COUNT] == 0
    and not state[TOUCHED]
    and next(state[CHANGED]) == nil
    and next(state[OLD]) == nil
end

-- Lets a region go if all of its tables are idle.
local function let_idle_go(region)
  for _, state in ipairs(region.tables) do
    if state and not is_idle(state) then return false end
  end
  return let_region_go(region)
end

local function let_go(state, number, slots)
  local kind, young, old, segments, gone = state[KIND], state[YOUNG], state[OLD], state[SEGMENTS], 0
  local changed = state[CHANGED]
  if kind.is_read then return end
  local id_at, batch_at, wipe = kind.id_at, kind.batch_at, kind.wipe
  local free, count = own(state, FREE), state[FREE_COUNT]
  local has_old, has_changed = next(old) ~= nil, next(changed) ~= nil
  for nth = 1, #slots do
    local slot = slots[nth]
    local d, at = segments[slot >> SHIFT], slot & MASK
    -- The row may have been moved meanwhile, and another one be here: that one goes, if that batch changed it last.
    local id, changed_in = d and d[at + id_at], d and d[at + batch_at]
    if id and (changed_in == number or changed_in == -number) and (young[id] or old[id]) == slot then
      young[id] = nil
      if has_old then old[id] = nil end
      if has_changed then changed[id] = nil end
      wipe(d, at)
      count, gone = count + 1, gone + 1
      free[count] = slot
    end
  end
  if gone > 0 then
    state[WHOLE], state[ROWS], state[FREE_COUNT] = false, state[ROWS] - gone, count
    if state[ROWS] == 0 then
      local region = regions[state[REGION_NUMBER]]
      if region and region.tables[kind.number] == state then let_idle_go(region) end
    end
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

-- Lets all rows go: the store was rolled back. Regions go with them.
local function forget()
  take_touched()
  take_undo()
  inner.forget_filtered()
  -- No call is under way, and none that waits will go on.
  S[REGION] = nil
  for _, region in next, regions do
    let_region_go(region)
  end
  passing, passing_first, passing_last = {}, 1, 0
end

-- Moves the last rows of a table into the slots that are free, so that segments at the end can go. All rows are in
-- OLD.
local function compact(state)
  local kind, segments, map = state[KIND], state[SEGMENTS], state[OLD]
  -- Rows that the batch wrote and that are gone do not stand in the way.
  local dirty, dirty_count, kept = state[DIRTY], state[DIRTY_COUNT], {}
  for at = 1, dirty_count do
    local d, cell = cells_at(state, dirty[at])
    if d[cell + kind.id_at] then
      kept[#kept + 1] = dirty[at]
    else
      release(state, dirty[at])
    end
  end
  if state[FREE_COUNT] == 0 then return end
  local free = state[FREE]
  for at = #free, state[FREE_COUNT] + 1, -1 do
    free[at] = nil
  end
  sort(free)
  local moved, top, last_cell = {}, state[TOP], (kind.rows_max - 1) * kind.width + 1
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
      local d, at = cells_at(state, top)
      if d[at + kind.id_at] then return end
      drop_top()
    end
  end
  drop_free_top()
  for _, hole in ipairs(free) do
    if hole >= top then break end
    local d, at = cells_at(state, top)
    move(d, at, at + kind.width - 1, hole & MASK, segments[hole >> SHIFT])
    map[d[at + kind.id_at]] = hole
    -- Who still has the old slot finds nothing there.
    d[at + kind.id_at] = false
    moved[top] = hole
    drop_top()
    drop_free_top()
  end
  for at, slot_of in ipairs(kept) do
    kept[at] = moved[slot_of] or slot_of
  end
  state[DIRTY], state[DIRTY_COUNT], state[TOP], state[FREE], state[FREE_COUNT] = kept, #kept, top, EMPTY, 0
end

local function sweep_table(state, committed)
  local gone = 0
  local young, old, changed, batch_at = state[YOUNG], state[OLD], state[CHANGED], state[KIND].batch_at
  local was_whole = state[WHOLE]
  drop_found(state)
  for id, slot_of in next, old do
    if young[id] == nil then
      local changed_in
      if slot_of then
        local d, at = cells_at(state, slot_of)
        changed_in = d[at + batch_at]
        if changed_in < 0 then changed_in = -changed_in end
      else
        changed_in = changed[id] or 0
      end
      if changed_in > committed then
        young[id] = slot_of
      else
        if slot_of then
          release(state, slot_of)
          state[WHOLE], state[ROWS] = false, state[ROWS] - 1
        end
        gone = gone + 1
      end
    end
  end
  for id, number in next, changed do
    if number <= committed then changed[id] = nil end
  end
  if next(changed) == nil then state[CHANGED] = EMPTY end
  state[OLD], state[YOUNG] = next(young) == nil and EMPTY or young, {}
  if was_whole and not state[WHOLE] and state[KIND].is_read then list_changed(state) end
  compact(state)
  return gone
end

-- Lets go of committed rows that were not used since the last sweep, and of regions that have none left. Rows of
-- batches that are not committed stay. Returns how many rows and regions went.
local function sweep()
  local committed, gone = S[COMMITTED], 0
  for _, region in next, regions do
    for _, state in ipairs(region.tables) do
      if state then gone = gone + sweep_table(state, committed) end
    end
    if let_idle_go(region) then gone = gone + 1 end
  end
  return gone
end

return { pass = pass, begin_batch = begin_batch, forget = forget, sweep = sweep }
