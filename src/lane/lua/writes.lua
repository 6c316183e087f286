-- The slow ways of `get`, `set` and `delete`, where those that `kinds.lua` compiles do not go; and what a batch wrote.

local inner = ...
local raise, S, has_history = inner.raise, inner.state, inner.has_history
local cells_at, add_row, release, lookup, note_read =
  inner.cells_at, inner.add_row, inner.release, inner.lookup, inner.note_read
local fetch, is_absent, taken = inner.fetch, inner.is_absent, inner.taken
local note_before, note_new, note_row = inner.note_before, inner.note_new, inner.note_row
local key_of, check_columns, no_entity = inner.key_of, inner.check_columns, inner.no_entity
local note_dry, dry_get = inner.note_dry, inner.dry_get
local handle_of = inner.handle_of
local leave, enter, needs_before = inner.leave, inner.enter, inner.needs_before
local move = table.move

-- Handles of tables that the open batch changed, and how many rows it did.
local touched, touched_count, changed_rows = {}, 0, 0

local function touch(handle)
  if not handle[TOUCHED] then
    handle[TOUCHED] = true
    touched_count = touched_count + 1
    touched[touched_count] = handle
  end
end

-- Notes that the open batch wrote the row at a place, for the first time.
local function mark(handle, id, place)
  local count = handle[DIRTY_COUNT] + 1
  handle[DIRTY_COUNT] = count
  handle[DIRTY][count] = place
  changed_rows = changed_rows + 1
  if count == 1 then touch(handle) end
  if not handle[WHOLE] and handle[KIND].is_read then handle[CHANGED][id] = S[BATCH] end
end

-- What is known of an id by a call that is about to write it.
local function before_write(handle, id)
  local before = lookup(handle, id)
  if before == nil and needs_before(handle) then before = fetch(handle, id) end
  return before
end

-- Keeps what a call that is run dry writes.
local function write_dry(handle, id, cells)
  if needs_before(handle) then fetch(handle, id) end
  note_dry(handle, id, cells)
end

-- `set`, where the way that is compiled for the kind does not go.
local function slow_set(handle, id, row)
  id = key_of(handle, id, "set")
  check_columns(handle, id, row)
  local kind = handle[KIND]
  if S[MODE] ~= RUN then
    local cells = {}
    kind.read(row, cells, 1)
    if S[MODE] == SNAPSHOT then raise("on_snapshot may read, and not write") end
    return write_dry(handle, id, cells)
  end
  local before = before_write(handle, id)
  -- Nothing has changed yet, if a column is refused.
  kind.read(row, taken, 1)
  local batch, place, d, at = S[BATCH], before
  if before then
    leave(handle, id, before)
    d, at = cells_at(handle, before)
    local changed = d[at + kind.batch_at]
    if changed ~= batch and changed ~= -batch then
      mark(handle, id, before)
      d[at + kind.batch_at] = batch
    end
    if has_history and d[at + kind.block_at] ~= S[BLOCK] then note_row(handle, id, d, at) end
  else
    if has_history then note_new(handle, id, before) end
    place, d, at =
      add_row(handle, id, 0, (before == false or handle[FILTERED]) and not handle[GONE][id] and -batch or batch)
    mark(handle, id, place)
  end
  move(taken, 1, kind.cells, at, d)
  d[at + kind.writer_at] = S[WRITER]
  if has_history then d[at + kind.block_at] = S[BLOCK] end
  if handle[INDEXES] then enter(handle, id, place) end
end

local function delete_row(handle, id)
  local before = before_write(handle, id)
  if before == false or (before == nil and is_absent(handle, id)) then return end
  if before then
    leave(handle, id, before)
    local kind = handle[KIND]
    local d, at = cells_at(handle, before)
    if has_history and d[at + kind.block_at] ~= S[BLOCK] then note_row(handle, id, d, at) end
    local changed = d[at + kind.batch_at]
    if changed ~= -S[BATCH] or not handle[WHOLE] then handle[GONE][id] = true end
    if changed == S[BATCH] or changed == -S[BATCH] then
      -- It stays among the rows that the batch wrote; without an id it is passed by, and its place is free after that.
      d[at + kind.id_at] = false
    else
      release(handle, before)
    end
    handle[ROWS] = handle[ROWS] - 1
  else
    handle[GONE][id] = true
    if has_history then note_before(handle, id, UNKNOWN) end
  end
  handle[YOUNG][id], handle[OLD][id] = false, nil
  handle[CHANGED][id] = S[BATCH]
  changed_rows = changed_rows + 1
  touch(handle)
end

-- `get`, where the way that is compiled for the kind does not go.
local function slow_get(handle, id)
  if handle[YOUNG][id] == nil then id = key_of(handle, id, "get") end
  note_read(handle[KIND])
  if S[MODE] == DRY then return dry_get(handle, id) end
  local place = fetch(handle, id)
  if place then return handle[KIND].copy(cells_at(handle, place)) end
  return nil
end

local function delete(entity, id)
  local handle = handle_of[entity] or no_entity("delete")
  id = key_of(handle, id, "delete")
  if S[MODE] == RUN then return delete_row(handle, id) end
  if S[MODE] == SNAPSHOT then raise("on_snapshot may read, and not write") end
  return write_dry(handle, id, false)
end

-- The tables that the batch changed and how many they are; the next batch begins with none.
local function take_touched()
  local handles, count = touched, touched_count
  touched, touched_count, changed_rows = {}, 0, 0
  return handles, count
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
}
