-- Ordered lists, of which an index is made: pairs of a value and an id.

local sort, insert, remove, move, min = table.sort, table.insert, table.remove, table.move, math.min

-- Pairs to a chunk; one of twice as many is split.
local CHUNK <const> = 128

local function is_before(value, id, other, other_id)
  if value == other then return id < other_id end
  return value < other
end

-- The first chunk whose last pair is not before the one given.
local function chunk_of(list, value, id)
  local low, high = 1, #list
  while low < high do
    local middle = (low + high) // 2
    local values, ids = list[middle].values, list[middle].ids
    local last = #ids
    if is_before(values[last], ids[last], value, id) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

-- The first place in a chunk whose pair is not before the one given.
local function place_of(chunk, value, id)
  local values, ids = chunk.values, chunk.ids
  local low, high = 1, #ids + 1
  while low < high do
    local middle = (low + high) // 2
    if is_before(values[middle], ids[middle], value, id) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local function add(list, value, id)
  if #list == 0 then
    list[1], list.size = { values = { value }, ids = { id } }, 1
    return
  end
  local at = chunk_of(list, value, id)
  local chunk = list[at]
  local values, ids = chunk.values, chunk.ids
  local place = place_of(chunk, value, id)
  if ids[place] == id and values[place] == value then return end
  insert(values, place, value)
  insert(ids, place, id)
  list.size = list.size + 1
  if #ids > 2 * CHUNK then
    local half = { values = move(values, CHUNK + 1, #values, 1, {}), ids = move(ids, CHUNK + 1, #ids, 1, {}) }
    for tail = #ids, CHUNK + 1, -1 do
      values[tail], ids[tail] = nil, nil
    end
    insert(list, at + 1, half)
  end
end

local function take_out(list, value, id)
  if #list == 0 then return end
  local at = chunk_of(list, value, id)
  local chunk = list[at]
  local place = place_of(chunk, value, id)
  if chunk.ids[place] ~= id or chunk.values[place] ~= value then return end
  remove(chunk.values, place)
  remove(chunk.ids, place)
  list.size = list.size - 1
  if #chunk.ids == 0 then remove(list, at) end
end

local function list_of(pairs_given)
  sort(pairs_given, function(a, b)
    return is_before(a[1], a[2], b[1], b[2])
  end)
  local list = { size = #pairs_given }
  for first = 1, #pairs_given, CHUNK do
    local values, ids = {}, {}
    for at = first, min(first + CHUNK - 1, #pairs_given) do
      values[#values + 1], ids[#ids + 1] = pairs_given[at][1], pairs_given[at][2]
    end
    list[#list + 1] = { values = values, ids = ids }
  end
  return list
end

-- Where the values begin that are not below the one given, or with `is_behind` those above it: chunk and place.
local function bound(list, value, is_behind)
  local function is_below(other)
    return other < value or (is_behind and other == value)
  end
  local low, high = 1, #list + 1
  while low < high do
    local middle = (low + high) // 2
    local values = list[middle].values
    if is_below(values[#values]) then
      low = middle + 1
    else
      high = middle
    end
  end
  local chunk = list[low]
  if not chunk then return low, 1 end
  local first, last = 1, #chunk.values + 1
  while first < last do
    local middle = (first + last) // 2
    if is_below(chunk.values[middle]) then
      first = middle + 1
    else
      last = middle
    end
  end
  return low, first
end

-- Visits ids from a place on, until `visit` says true; and returns whether it did.
local function each_up(list, from, place, visit)
  for at = from, #list do
    local chunk = list[at]
    for inside = at == from and place or 1, #chunk.ids do
      if visit(chunk.ids[inside], chunk.values[inside]) then return true end
    end
  end
  return false
end

-- The same downwards from before a place; ids of the same value still come upwards.
local function each_down(list, to, place, visit)
  while true do
    if place == 1 then
      to = to - 1
      if to < 1 then return false end
      place = #list[to].ids + 1
    end
    local value = list[to].values[place - 1]
    local from, first = bound(list, value, false)
    local at, inside = from, first
    while at < to or (at == to and inside < place) do
      local chunk = list[at]
      if inside > #chunk.ids then
        at, inside = at + 1, 1
      else
        if visit(chunk.ids[inside], value) then return true end
        inside = inside + 1
      end
    end
    to, place = from, first
  end
end

return {
  ordered = {
    add = add,
    take_out = take_out,
    list_of = list_of,
    bound = bound,
    each_up = each_up,
    each_down = each_down,
  },
}
