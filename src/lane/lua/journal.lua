-- The journal of a call: what each row was before the call wrote it, so that a call that fails leaves nothing behind.
-- It is kept only where events are put aside; elsewhere a failed call ends the run.
--
-- A region handles one call at a time, so it has one journal. Whatever writes a row calls `log_write` just before.
-- Rows may be loaded while a call waits, so only what the call itself has changed is taken back.

local inner = ...
local S, cells_at, new_slot, release = inner.run_state, inner.cells_at, inner.new_slot, inner.release
local EMPTY <const> = inner.EMPTY
local list_changed, drop_found, own = inner.list_changed, inner.drop_found, inner.own
local move = table.move

-- Entries lie one behind the other; behind the head of one come the row's cells, if there was a row.
local HEAD <const> = 10
local NONE <const> = -1 -- stands for nil

-- A call begins: its region, as it is now, is what a failure comes back to.
local function begin_call(region)
  region.journal_count, region.undo_mark, region.unreadable = 0, region.undo_count, nil
end

-- Notes the state of a row that is about to be written, or deleted.
local function log_write(state, id, is_delete)
  local region = S[REGION]
  local log, at = region.journal, region.journal_count
  if not log then
    log = {}
    region.journal = log
  end
  local young, old, kind = state[YOUNG][id], state[OLD][id], state[KIND]
  local slot = young
  if slot == nil then slot = old end
  log[at + 1], log[at + 2] = state, id
  log[at + 3] = young == nil and NONE or young
  log[at + 4] = old == nil and NONE or old
  log[at + 5], log[at + 6] = state[CHANGED][id] or NONE, state[GONE][id] or false
  log[at + 7], log[at + 8], log[at + 9], log[at + 10] = state[DIRTY_COUNT], state[WHOLE], kind.is_read, is_delete
  at = at + HEAD
  if slot then
    local d, first = cells_at(state, slot)
    move(d, first, first + kind.width - 1, at + 1, log)
    at = at + kind.width
  end
  region.journal_count = at
end

-- Puts a row back that was changed or deleted: into its slot, or into another one if that was given back.
local function restore_row(state, id, slot, log, first, was_whole)
  local kind = state[KIND]
  local d, at = cells_at(state, slot)
  if d[at + kind.id_at] ~= id or state[YOUNG][id] == false then
    local changed_in = log[first + kind.batch_at]
    if changed_in ~= S[BATCH] and changed_in ~= -S[BATCH] then
      slot = new_slot(state)
      d, at = cells_at(state, slot)
    end
    state[ROWS] = state[ROWS] + 1
  end
  -- In the order of cells, so that a new segment stays a list.
  for cell = 0, kind.width - 1 do
    d[at + cell] = log[first + cell]
  end
  -- Since the table is wholly here, only rows that are not in the store are new.
  if state[WHOLE] and not was_whole and d[at + kind.batch_at] == -S[BATCH] then d[at + kind.batch_at] = S[BATCH] end
  state[YOUNG][id] = slot
  if state[OLD][id] ~= nil then state[OLD][id] = nil end
  return d[at + kind.batch_at]
end

-- Forgets a row that was not here: what the store has of it is as unknown as before.
local function forget_row(state, id, young, old, was_whole)
  local slot = state[YOUNG][id]
  if slot then
    release(state, slot)
    state[ROWS] = state[ROWS] - 1
  end
  if young == NONE then young = nil end
  if old == NONE then old = nil end
  state[YOUNG][id] = young
  if old ~= nil or state[OLD][id] ~= nil then own(state, OLD)[id] = old end
  if young == nil and old == nil and state[WHOLE] and not was_whole then
    -- The table was loaded while the call's own row hid the store's.
    state[WHOLE] = false
    if state[KIND].is_read then list_changed(state) end
  end
end

-- Takes the write of one entry back; returns how many rows fewer the batch has changed.
local function undo_write(log, at)
  local state, id, young, old = log[at + 1], log[at + 2], log[at + 3], log[at + 4]
  local changed, gone, dirty_count, was_whole = log[at + 5], log[at + 6], log[at + 7], log[at + 8]
  local was_read, is_delete = log[at + 9], log[at + 10]
  local dirty, count = state[DIRTY], state[DIRTY_COUNT]
  for place = count, dirty_count + 1, -1 do
    dirty[place] = nil
  end
  state[DIRTY_COUNT] = dirty_count
  if gone or state[GONE][id] then own(state, GONE)[id] = gone or nil end
  local slot, changed_in = young, 0
  if slot == NONE then slot = old end
  if slot == NONE then slot = false end
  if slot then
    changed_in = restore_row(state, id, slot, log, at + HEAD + 1, was_whole)
  else
    forget_row(state, id, young, old, was_whole)
  end
  if changed == NONE and not was_read and state[KIND].is_read and not state[WHOLE] and changed_in ~= 0 then
    -- It is read since, and so its changes are listed.
    changed = changed_in < 0 and -changed_in or changed_in
  end
  if changed ~= NONE then
    own(state, CHANGED)[id] = changed
  elseif state[CHANGED][id] then
    state[CHANGED][id] = nil
  end
  if state[INDEXES] or state[FOUND] or state[COUNTS] then drop_found(state) end
  return is_delete and 1 or count - dirty_count
end

-- Takes back what the failed call of the current region has written; returns how many rows fewer the batch has changed.
local function undo_call()
  local region = S[REGION]
  local log, places, at = region.journal or EMPTY, {}, 0
  while at < region.journal_count do
    places[#places + 1] = at
    local state, young, old = log[at + 1], log[at + 3], log[at + 4]
    local slot = young
    if slot == NONE then slot = old end
    at = at + HEAD + ((slot and slot ~= NONE) and state[KIND].width or 0)
  end
  local rows = 0
  for number = #places, 1, -1 do
    rows = rows + undo_write(log, places[number])
  end
  region.undo_count = region.undo_mark
  region.journal, region.journal_count, region.unreadable = false, 0, nil
  return rows
end

return { begin_call = begin_call, log_write = log_write, undo_call = undo_call }
