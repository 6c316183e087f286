-- The slow ways of `get`, `set` and `delete`, where those that `kinds.lua` compiles do not go; and what a batch wrote.

local inner = ...
local raise, S, has_history = inner.raise, inner.run_state, inner.has_history
local cells_at, add_row, release, lookup, note_read, own =
  inner.cells_at, inner.add_row, inner.release, inner.lookup, inner.note_read, inner.own
local fetch, is_absent, taken = inner.fetch, inner.is_absent, inner.taken
local note_before, note_new, note_row = inner.note_before, inner.note_new, inner.note_row
local key_of, check_columns, no_entity = inner.key_of, inner.check_columns, inner.no_entity
local note_dry, dry_get = inner.note_dry, inner.dry_get
local state_of, note_unknown = inner.state_of, inner.note_unknown
local leave, enter, needs_before = inner.leave, inner.enter, inner.needs_before
local puts_aside, log_write = inner.puts_aside, inner.log_write
local move = table.move

-- Handles of tables that the open batch changed, and how many rows it did.
local touched, touched_count, changed_rows = {}, 0, 0

local function touch(state)
  if not state[TOUCHED] then
    state[TOUCHED] = true
    touched_count = touched_count + 1
    touched[touched_count] = state
  end
end

-- Notes that the open batch wrote the row at a slot, for the first time.
local function mark(state, id, slot)
  local count = state[DIRTY_COUNT] + 1
  state[DIRTY_COUNT] = count
  changed_rows = changed_rows + 1
  if count == 1 then
    state[DIRTY] = { slot }
    touch(state)
  else
    state[DIRTY][count] = slot
  end
  if not state[WHOLE] and state[KIND].is_read then own(state, CHANGED)[id] = S[BATCH] end
end

-- What is known of an id by a call that is about to write it.
local function before_write(state, id)
  local before = lookup(state, id)
  if before == nil and needs_before(state) then before = fetch(state, id) end
  return before
end

-- Keeps what a call that is run dry writes.
local function write_dry(state, id, cells)
  if needs_before(state) then fetch(state, id) end
  note_dry(state, id, cells)
end

-- `set`, where the way that is compiled for the kind does not go.
local function slow_set(state, id, row)
  id = key_of(state, id, "set")
  row = check_columns(state, id, row)
  local kind = state[KIND]
  if S[MODE] ~= RUN then
    local cells = {}
    kind.read(row, cells, 1)
    if S[MODE] == SNAPSHOT then raise("on_snapshot may read, and not write") end
    return write_dry(state, id, cells)
  end
  local before = before_write(state, id)
  -- Nothing has changed yet, if a column is refused.
  kind.read(row, taken, 1)
  if puts_aside then log_write(state, id, false) end
  local batch, slot, d, at = S[BATCH], before
  if before then
    leave(state, id, before)
    d, at = cells_at(state, before)
    local changed = d[at + kind.batch_at]
    if changed ~= batch and changed ~= -batch then
      mark(state, id, before)
      d[at + kind.batch_at] = batch
    end
    if has_history and d[at + kind.block_at] ~= S[BLOCK] then note_row(state, id, d, at) end
  else
    if has_history then note_new(state, id, before) end
    if before == nil and not state[FILTERED] then note_unknown(kind) end
    slot, d, at =
      add_row(state, id, 0, (before == false or state[FILTERED]) and not state[GONE][id] and -batch or batch)
    mark(state, id, slot)
  end
  move(taken, 1, kind.cells, at, d)
  d[at + kind.writer_at] = S[WRITER]
  if has_history then d[at + kind.block_at] = S[BLOCK] end
  if state[INDEXES] then enter(state, id, slot) end
end

local function delete_row(state, id)
  local before = before_write(state, id)
  if before == false or (before == nil and is_absent(state, id)) then return end
  if puts_aside then log_write(state, id, true) end
  if before then
    leave(state, id, before)
    local kind = state[KIND]
    local d, at = cells_at(state, before)
    if has_history and d[at + kind.block_at] ~= S[BLOCK] then note_row(state, id, d, at) end
    local changed = d[at + kind.batch_at]
    if changed ~= -S[BATCH] or not state[WHOLE] then own(state, GONE)[id] = true end
    if changed == S[BATCH] or changed == -S[BATCH] then
      -- It stays among the rows that the batch wrote; without an id it is passed by, and its slot is free after that.
      d[at + kind.id_at] = false
    else
      release(state, before)
    end
    state[ROWS] = state[ROWS] - 1
  else
    own(state, GONE)[id] = true
    if has_history then note_before(state, id, UNKNOWN) end
  end
  state[YOUNG][id] = false
  if state[OLD][id] ~= nil then state[OLD][id] = nil end
  own(state, CHANGED)[id] = S[BATCH]
  changed_rows = changed_rows + 1
  touch(state)
end

-- `get`, where the way that is compiled for the kind does not go.
local function slow_get(state, id)
  if state[YOUNG][id] == nil then id = key_of(state, id, "get") end
  note_read(state[KIND])
  if S[MODE] == DRY then return dry_get(state, id) end
  local slot = fetch(state, id)
  if slot then return state[KIND].copy(cells_at(state, slot)) end
  return nil
end

local function delete(entity, id)
  local state = state_of[entity] or no_entity("delete", entity, state_of)
  id = key_of(state, id, "delete")
  if S[MODE] == RUN then return delete_row(state, id) end
  if S[MODE] == SNAPSHOT then raise("on_snapshot may read, and not write") end
  return write_dry(state, id, false)
end

-- The tables that the batch changed and how many they are; the next batch begins with none.
local function take_touched()
  local tables, count = touched, touched_count
  touched, touched_count, changed_rows = {}, 0, 0
  return tables, count
end

return {
  mark = mark,
  slow_set = slow_set,
  slow_get = slow_get,
  delete = delete,
  take_touched = take_touched,
  changed_rows = function()
    return changed_rows
  end,
  -- A call that failed has changed that many rows, and its writes are taken back.
  uncount_rows = function(rows)
    changed_rows = changed_rows - rows
  end,
}
