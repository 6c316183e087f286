-- What the open batch changed, handed out packed, once, at its end.

local inner = ...
local host, S, take_touched, take_undo, pass =
  inner.host, inner.run_state, inner.take_touched, inner.take_undo, inner.pass
local lookup, release, EMPTY <const> = inner.lookup, inner.release, inner.EMPTY
local make_room, PART_BYTES <const> = inner.make_room, inner.PART_BYTES
local next, spack, concat = next, string.pack, table.concat

-- What is handed out next: packed rows of one table behind those of another; and of each table its numbers, whether
-- those that are said to be new surely are, and how many bytes its rows take.
local out, count, bytes = {}, 0, 0
local heads, heads_count = {}, 0
local begun = 0 -- where the rows of the current table begin

-- Notes whose rows the last ones are.
local function end_table(state)
  if bytes == begun then return end
  heads_count = heads_count + 1
  local is_sure = (state[WHOLE] or not state[FILTERED]) and 1 or 0
  heads[heads_count] = spack("<I4I4BI4", state[KIND].number, state[REGION_NUMBER], is_sure, bytes - begun)
  begun = bytes
end

local function hand_out()
  if count == 0 then return end
  make_room(bytes)
  host.sealed(concat(heads), concat(out))
  out, count, bytes, heads, heads_count, begun = {}, 0, 0, {}, 0, 0
end

-- Hands out what the batch changed in one table, once there is enough of it.
local function seal_table(state)
  local kind, segments, dirty = state[KIND], state[SEGMENTS], state[DIRTY]
  local pack_row, batch = kind.pack, S[BATCH]
  local id_at, writer_at, batch_at = kind.id_at, kind.writer_at, kind.batch_at
  local pack_some, some = kind.pack_some, kind.some
  local function put(sealed)
    count = count + 1
    out[count] = sealed
    bytes = bytes + #sealed
    if bytes > PART_BYTES then
      end_table(state)
      hand_out()
    end
  end
  local from, last = 1, state[DIRTY_COUNT]
  while from <= last do
    local sealed = some > 0 and from + some - 1 <= last and pack_some(segments, dirty, from, batch)
    if sealed then
      put(sealed)
      from = from + some
    else
      local slot = dirty[from]
      local d, at = segments[slot >> SHIFT], slot & MASK
      local id = d[at + id_at]
      if id then
        put(pack_row(id, d[at + batch_at] == -batch and NEW or WRITTEN, d[at + writer_at], d, at))
      else
        release(state, slot)
      end
      from = from + 1
    end
  end
  for id in next, state[GONE] do
    -- What was made again is among the rows that were written.
    if not lookup(state, id) then put(spack("<s4Bi8", id, DELETED, 0)) end
  end
  end_table(state)
  if last > 0 and not kind.is_read then pass(state, batch, dirty) end
  state[DIRTY], state[DIRTY_COUNT], state[TOUCHED] = EMPTY, 0, false
  state[GONE] = EMPTY
end

-- Hands out what the batch changed; and with `after`, what it was before the blocks behind that one.
local function seal(after)
  take_undo(after)
  local touched, touched_count = take_touched()
  for at = 1, touched_count do
    seal_table(touched[at])
  end
  hand_out()
end

return { seal = seal }
