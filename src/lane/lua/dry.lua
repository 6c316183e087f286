-- Calls that are run dry: while one call waits for rows, those behind it run to learn what they will ask for. What they
-- write is kept apart and forgotten.

local inner = ...
local S, DRY_END, fetch, cells_at, note_read =
  inner.run_state, inner.DRY_END, inner.fetch, inner.cells_at, inner.note_read
local end_call = inner.end_call

-- Reads of one call that is run dry at most: it may look for what the suspended call has not written yet, for ever.
local DRY_READS_MAX <const> = 10000

-- Begins the dry run of an event.
local function begin_dry(event)
  S[EVENT], S[DRY_WRITES], S[DRY_READS], S[ENDED] = event, {}, 0, false
end

-- Keeps what a call that is run dry wrote: cells, or false.
local function note_dry(state, id, cells)
  local writes = S[DRY_WRITES][state]
  if not writes then
    writes = {}
    S[DRY_WRITES][state] = writes
  end
  writes[id] = cells
end

-- The row that a call sees that is run dry: its cells and where they begin, or nil. A call that looks at what the
-- suspended call wrote ends here: it must not see half of that.
local function dry_cells(state, id)
  S[DRY_READS] = S[DRY_READS] + 1
  if S[DRY_READS] > DRY_READS_MAX then end_call(DRY_END) end
  local writes, kind = S[DRY_WRITES][state], state[KIND]
  local cells = writes and writes[id]
  if cells then return cells, 1 end
  if cells == false then return nil end
  local slot = fetch(state, id)
  if not slot then
    if state[GONE][id] then end_call(DRY_END) end
    return nil
  end
  local d, at = cells_at(state, slot)
  local changed = d[at + kind.batch_at]
  if d[at + kind.writer_at] == S[SUSPENDED_WRITER] and (changed == S[BATCH] or changed == -S[BATCH]) then
    end_call(DRY_END)
  end
  return d, at
end

local function dry_get(state, id)
  local d, at = dry_cells(state, id)
  return d and state[KIND].copy(d, at)
end

-- A call that is run dry sees what it wrote itself only by id: what it would find is not told to it.
local function begin_read(state)
  note_read(state[KIND])
  if S[MODE] ~= DRY then return end
  S[DRY_READS] = S[DRY_READS] + 1
  if S[DRY_WRITES][state] or S[DRY_READS] > DRY_READS_MAX then end_call(DRY_END) end
end

return { begin_dry = begin_dry, note_dry = note_dry, dry_cells = dry_cells, dry_get = dry_get, begin_read = begin_read }
