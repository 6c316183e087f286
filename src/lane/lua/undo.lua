-- What rows were before blocks, kept as far back as the store can be rolled back.

local inner = ...
local host, S, EMPTY <const> = inner.host, inner.run_state, inner.EMPTY
local undo_depth <const>, memory_bytes <const> = host.undo_depth, host.memory_bytes
local collectgarbage = collectgarbage
local next, ipairs, spack, concat, move = next, ipairs, string.pack, table.concat, table.move

-- Keeps what rows were before the current block: see `seal_undo`. Entries lie one behind the other: block, state, id,
-- what the row was, and if it was one, its cells.
local UNDO_HEAD <const> = 4
local logged = {} -- regions of which something is kept

local function note_before(state, id, what)
  local region = S[REGION]
  local undo, at = region.undo, region.undo_count
  if at == 0 then logged[#logged + 1] = region end
  if not undo then
    undo = {}
    region.undo = undo
  end
  undo[at + 1], undo[at + 2], undo[at + 3], undo[at + 4] = S[BLOCK], state, id, what
  region.undo_count = at + UNDO_HEAD
end

local function note_new(state, id, slot)
  note_before(state, id, (slot == false or state[WHOLE]) and ABSENT or UNKNOWN)
end

local function note_row(state, id, d, at)
  note_before(state, id, ROW)
  local region = S[REGION]
  local cells, count = state[KIND].cells, region.undo_count
  move(d, at, at + cells - 1, count + 1, region.undo)
  region.undo_count = count + cells
end

-- Where the entry behind that one begins.
local function next_undo(undo, at)
  return at + UNDO_HEAD + (undo[at + 3] == ROW and undo[at + 1][KIND].cells or 0)
end

-- Lets go of what lies too far back to be rolled back, now that `block` has come.
local function prune_undo(block)
  local region = S[REGION]
  local undo, count, oldest = region.undo, region.undo_count, block - undo_depth
  if count == 0 or oldest > block or undo[1] > oldest then return end
  local from = 1
  while from <= count and undo[from] <= oldest do
    from = next_undo(undo, from)
  end
  -- Moving costs as much as what stays, so it waits until that is less than what goes.
  if from - 1 < count // 2 then return end
  local kept = count - from + 1
  move(undo, from, count, 1)
  for at = count, kept + 1, -1 do
    undo[at] = nil
  end
  region.undo_count = kept
end

-- Handed out at a time, so that sealing needs little memory beside the rows.
local PART_BYTES <const> = 256 * 1024

-- Collects what is let go of, where little room is left to put a part together: Lua does not by itself where a buffer
-- does not fit.
local function make_room(bytes)
  if collectgarbage("count") * 1024 + 4 * (bytes + PART_BYTES) > memory_bytes then collectgarbage() end
end

-- A list of packed entries for one of the host's functions, handed out in parts, in order.
local function new_out(hand_out, kind, region)
  return { hand_out = hand_out, kind = kind.number, region = region.number, count = 0, bytes = 0 }
end

local function flush(out)
  make_room(out.bytes)
  out.hand_out(out.kind, out.region, concat(out, "", 1, out.count))
  for at = 1, out.count do
    out[at] = nil
  end
  out.count, out.bytes = 0, 0
end

local function put(out, entry)
  out.count, out.bytes = out.count + 1, out.bytes + #entry
  out[out.count] = entry
  if out.bytes > PART_BYTES then flush(out) end
end

-- Hands out what rows of a region were before the blocks behind `after`. What is handed out is let go of.
local function seal_undo(region, after)
  local undo, outs, unseen = region.undo or EMPTY, {}, {}
  local at, count = 1, region.undo_count
  while at <= count do
    local block, state, id, what = undo[at], undo[at + 1], undo[at + 2], undo[at + 3]
    local behind = next_undo(undo, at)
    if block > after then
      local kind = state[KIND]
      local is_unseen = what == UNKNOWN
      local out_of = is_unseen and unseen or outs
      local out = out_of[kind.number]
      if not out then
        out = new_out(is_unseen and host.unseen or host.before, kind, region)
        out_of[kind.number] = out
      end
      if is_unseen then
        put(out, spack("<i8s4", block, id))
      elseif what == ROW then
        put(out, spack("<i8", block) .. kind.pack(id, WRITTEN, 0, undo, at + UNDO_HEAD))
      else
        put(out, spack("<i8s4Bi8", block, id, DELETED, 0))
      end
    end
    for place = at, behind - 1 do
      undo[place] = nil
    end
    at = behind
  end
  for _, list in ipairs({ outs, unseen }) do
    for _, out in next, list do
      if out.count > 0 then flush(out) end
    end
  end
end

-- Hands out what rows of all regions were before the blocks behind `after`, if that is given; and forgets it.
local function take_undo(after)
  for _, region in ipairs(logged) do
    if after then seal_undo(region, after) end
    region.undo, region.undo_count = false, 0
  end
  logged = {}
end

return {
  PART_BYTES = PART_BYTES,
  make_room = make_room,
  note_before = note_before,
  note_new = note_new,
  note_row = note_row,
  prune_undo = prune_undo,
  take_undo = take_undo,
}
