-- Rows that are here: cells in lists, see `kinds.lua`; and where each row's cells lie.

local inner = ...
local has_history <const> = inner.has_history
local next, ipairs = next, ipairs

local regions = {} -- by number

-- `ctx.<entity>` of one region is an empty table; what is behind it, its handle, is out of a script's reach.
local handle_of = {}

-- The segment of a place, and the row's first cell in it.
local function cells_at(handle, place)
  return handle[SEGMENTS][place >> SHIFT], place & MASK
end

-- A place for one more row.
local function new_place(handle)
  local count = handle[FREE_COUNT]
  if count > 0 then
    handle[FREE_COUNT] = count - 1
    return handle[FREE][count]
  end
  local kind, place = handle[KIND], handle[TOP]
  if place == 0 or (place & MASK) + 2 * kind.width > kind.rows_max * kind.width + 1 then
    local segments = handle[SEGMENTS]
    segments[#segments + 1] = {}
    place = #segments << SHIFT | 1
  else
    place = place + kind.width
  end
  handle[TOP] = place
  return place
end

-- Gives a row's place back.
local function release(handle, place)
  local d, at, kind, count = handle[SEGMENTS][place >> SHIFT], place & MASK, handle[KIND], handle[FREE_COUNT] + 1
  d[at + kind.id_at] = false
  local texts = kind.texts
  for number = 1, #texts do
    d[at + texts[number]] = false
  end
  handle[FREE][count], handle[FREE_COUNT] = place, count
end

-- Makes a row known that is not; its columns are for the caller to fill in. Returns the place and its cells.
local function add_row(handle, id, writer, changed_in)
  local place = new_place(handle)
  local kind = handle[KIND]
  local d, at = cells_at(handle, place)
  -- In the order of cells, so that a new segment stays a list.
  for cell = at, at + kind.cells - 1 do
    d[cell] = false
  end
  d[at + kind.id_at], d[at + kind.writer_at], d[at + kind.batch_at] = id, writer, changed_in
  if has_history then d[at + kind.block_at] = false end
  handle[YOUNG][id], handle[OLD][id] = place, nil
  handle[ROWS] = handle[ROWS] + 1
  return place, d, at
end

-- The place of an id, or false; whichever generation it is in.
local function lookup(handle, id)
  local place = handle[YOUNG][id]
  if place ~= nil then return place end
  place = handle[OLD][id]
  if place ~= nil then
    handle[YOUNG][id], handle[OLD][id] = place, nil
    return place
  end
  if handle[WHOLE] then return false end
  return nil
end

-- Brings CHANGED up to date with the rows that changed in this run.
local function list_changed(handle)
  local changed, batch_at = handle[CHANGED], handle[KIND].batch_at
  for _, map in ipairs { handle[YOUNG], handle[OLD] } do
    for id, place in next, map do
      if place then
        local d, at = cells_at(handle, place)
        local changed_in = d[at + batch_at]
        if changed_in ~= 0 then changed[id] = changed_in < 0 and -changed_in or changed_in end
      end
    end
  end
end

-- Notes that rows of a kind are read. Until then they are let go as soon as their batch is committed.
local function note_read(kind)
  if kind.is_read then return end
  kind.is_read = true
  for _, known in next, regions do
    local handle = known.handles[kind.number]
    if not handle[WHOLE] then list_changed(handle) end
  end
end

return {
  regions = regions,
  handle_of = handle_of,
  cells_at = cells_at,
  new_place = new_place,
  release = release,
  add_row = add_row,
  lookup = lookup,
  list_changed = list_changed,
  note_read = note_read,
}
