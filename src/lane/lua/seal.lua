-- What the open batch changed, handed out packed, once, at its end.

local inner = ...
local host, S, take_touched, take_undo, pass =
  inner.host, inner.run_state, inner.take_touched, inner.take_undo, inner.pass
local lookup, release = inner.lookup, inner.release
local make_room, PART_BYTES <const> = inner.make_room, inner.PART_BYTES
local next, spack, concat = next, string.pack, table.concat

-- Hands out what the batch changed in one table.
local function seal_table(state)
  local kind, segments, dirty, out, count, bytes = state[KIND], state[SEGMENTS], state[DIRTY], {}, 0, 0
  local pack_row, batch = kind.pack, S[BATCH]
  local id_at, writer_at, batch_at = kind.id_at, kind.writer_at, kind.batch_at
  local pack_some, some = kind.pack_some, kind.some
  local is_sure = state[WHOLE] or not state[FILTERED]
  local function put(sealed)
    count = count + 1
    out[count] = sealed
    bytes = bytes + #sealed
    if bytes > PART_BYTES then
      make_room(bytes)
      host.sealed(kind.number, state[REGION_NUMBER], is_sure, concat(out))
      out, count, bytes = {}, 0, 0
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
  host.sealed(kind.number, state[REGION_NUMBER], is_sure, concat(out))
  if not kind.is_read then pass(state, batch, dirty) end
  state[DIRTY], state[DIRTY_COUNT], state[TOUCHED] = {}, 0, false
  if next(state[GONE]) ~= nil then state[GONE] = {} end
end

-- Hands out what the batch changed; and with `after`, what it was before the blocks behind that one.
local function seal(after)
  take_undo(after)
  local touched, count = take_touched()
  for at = 1, count do
    seal_table(touched[at])
  end
end

return { seal = seal }
