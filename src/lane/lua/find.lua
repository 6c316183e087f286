-- Reads by column: `find` and `count`.
--
-- What is here and changed since the last sweep is looked up here, in indexes that each write keeps; of a table that
-- is wholly here that is all of it. What is committed and did not change is asked from the store, once for each query:
-- rows that did not change stay as they are until the next sweep, so the answer is good until then, whatever commits
-- in between. The two are merged, and a row that changed here counts as it is here.

local inner = ...
local raise, describe, name_text, host = inner.raise, inner.describe, inner.name_text, inner.host
local need, TRY, take_in, take_question = inner.need, inner.TRY, inner.take_in, inner.take_question
local array, handle_of, no_entity, begin_read = inner.array, inner.handle_of, inner.no_entity, inner.begin_read
local cells_at = inner.cells_at

local mtype, type, next, ipairs, format = math.type, type, next, ipairs, string.format
local spack, concat, sort, insert, remove = string.pack, table.concat, table.sort, table.insert, table.remove
local maxinteger = math.maxinteger

------------------------------------------------------------------------------------------------------- ordered lists

-- Pairs of a value and an id, ordered, in chunks.
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
    local half =
      { values = table.move(values, CHUNK + 1, #values, 1, {}), ids = table.move(ids, CHUNK + 1, #ids, 1, {}) }
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
    for at = first, math.min(first + CHUNK - 1, #pairs_given) do
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

-------------------------------------------------------------------------------------------------------------- queries

local OPERATORS <const> = {
  ["="] = function(a, b)
    return a == b
  end,
  ["<"] = function(a, b)
    return a < b
  end,
  ["<="] = function(a, b)
    return a <= b
  end,
  [">"] = function(a, b)
    return a > b
  end,
  [">="] = function(a, b)
    return a >= b
  end,
}
local OPERATOR_CODES <const> = { ["="] = 0, ["<"] = 1, ["<="] = 2, [">"] = 3, [">="] = 4 }

local function indexed(kind, called, column, what)
  local at = column ~= nil and kind.indexed[column]
  if at then return at end
  if kind.known[column] then
    raise(
      "%s:%s: %s by %q needs the line indexes = [%q] in [entities.%s]",
      kind.name,
      called,
      what,
      column,
      column,
      kind.name
    )
  end
  if column == "id" then
    local advice = "get(id) finds a row by its id, and rows that are alike otherwise come in the order of their ids"
    raise("%s:%s: %s by id: %s", kind.name, called, what, advice)
  end
  local nearest = type(column) == "string" and #column > 0 and host.nearest(column, kind.names) or ""
  raise("%s:%s: there is no column %s%s", kind.name, called, name_text(column), nearest)
end

local function conditions(kind, called, where)
  local tests = {}
  local function wrong()
    local column = kind.names[1] or "column"
    raise('%s:%s: where: expected a list of conditions such as {{"%s", ">", 1}}', kind.name, called, column)
  end
  if where == nil then return tests end
  if type(where) ~= "table" or (next(where) ~= nil and #where == 0) then wrong() end
  for at, condition in ipairs(where) do
    if type(condition) ~= "table" then wrong() end
    local column, operator, value = condition[1], condition[2], condition[3]
    local place = indexed(kind, called, column, "a condition")
    local test = OPERATORS[operator]
    if not test then
      raise("%s:%s: %s is no operator; expected one of = < <= > >=", kind.name, called, describe(operator))
    end
    if value == nil then
      raise("%s:%s: the condition on %q compares with nil, which nothing matches", kind.name, called, column)
    end
    -- The value as the column would hold it.
    local cells = {}
    kind.read({ [column] = value }, cells, 1)
    tests[at] =
      { place = place, operator = operator, test = test, value = kind.comparable(place, cells, 1), cells = cells }
  end
  return tests
end

-- A column of the row at a place, as it is compared.
local function key_of(handle, column, place)
  return handle[KIND].comparable(column, handle[SEGMENTS][place >> SHIFT], place & MASK)
end

local function matches(handle, place, tests)
  for at = 1, #tests do
    local condition = tests[at]
    local value = key_of(handle, condition.place, place)
    if value == nil or not condition.test(value, condition.value) then return false end
  end
  return true
end

local function ordering(kind, order)
  if order == nil then return nil, false end
  if type(order) ~= "string" then
    raise('%s:find: order: expected a column such as "-quakes", got %s', kind.name, describe(order))
  end
  local is_down = order:sub(1, 1) == "-"
  return indexed(kind, "find", is_down and order:sub(2) or order, "an order"), is_down
end

-- Conditions as the host takes them: place, operator, and a row that holds the value.
local function packed_conditions(kind, tests)
  local parts = {}
  for at, condition in ipairs(tests) do
    parts[at] = spack(
      "<I2Bs4",
      condition.place - 1,
      OPERATOR_CODES[condition.operator],
      kind.pack("", WRITTEN, 0, condition.cells, 1)
    )
  end
  return concat(parts)
end

local function check_query(kind, what, query, known, names)
  if query == nil then return {} end
  if type(query) ~= "table" then
    raise("%s:%s: expected a table such as { limit = 5 }, got %s", kind.name, what, describe(query))
  end
  for key in next, query do
    if not known[key] then raise("%s:%s: unknown key %s; expected %s", kind.name, what, name_text(key), names) end
  end
  return query
end

-------------------------------------------------------------------------------------------------------- what is here

local function place_of_row(handle, id)
  local place = handle[YOUNG][id]
  if place == nil then place = handle[OLD][id] end
  return place
end

-- Visits the rows that have to be looked up here, by id and place.
local function each_here(handle, visit)
  local young, old = handle[YOUNG], handle[OLD]
  if handle[WHOLE] then
    for id, place in next, young do
      if place then visit(id, place) end
    end
    for id, place in next, old do
      if place and young[id] == nil then visit(id, place) end
    end
  else
    for id in next, handle[CHANGED] do
      local place = place_of_row(handle, id)
      if place then visit(id, place) end
    end
  end
end

local function key_in(handle, index, place, id)
  if index.place == 0 then return id end
  return key_of(handle, index.place, place)
end

local function index_of(handle, place)
  local indexes = handle[INDEXES]
  if not indexes then
    indexes = {}
    handle[INDEXES] = indexes
  end
  local index = indexes[place]
  if index and index.is_whole == handle[WHOLE] then return index end
  index = { place = place, is_whole = handle[WHOLE] }
  local values, nulls = {}, {}
  each_here(handle, function(id, at)
    local value = key_in(handle, index, at, id)
    if value == nil then
      nulls[#nulls + 1] = { 0, id }
    else
      values[#values + 1] = { value, id }
    end
  end)
  index.values, index.nulls = list_of(values), list_of(nulls)
  indexes[place] = index
  return index
end

-- Keep the indexes and counts right. The row at a place, or none if it is false, is about to change or go; it has
-- changed.
local function leave(handle, id, place)
  if not place then return end
  local is_first = not handle[WHOLE] and handle[CHANGED][id] == nil
  for _, index in next, handle[INDEXES] or {} do
    if not is_first or index.is_whole then
      local value = key_in(handle, index, place, id)
      if value == nil then
        take_out(index.nulls, 0, id)
      else
        take_out(index.values, value, id)
      end
    end
  end
  if is_first then
    for _, count in next, handle[COUNTS] or {} do
      if matches(handle, place, count.tests) then count.rows = count.rows - 1 end
    end
  end
end

local function enter(handle, id, place)
  for _, index in next, handle[INDEXES] or {} do
    local value = key_in(handle, index, place, id)
    if value == nil then
      add(index.nulls, 0, id)
    else
      add(index.values, value, id)
    end
  end
end

-- Whether a write must know what the row was.
local function needs_before(handle)
  return handle[COUNTS] ~= nil and not handle[WHOLE]
end

-- Forgets what was found: rows are let go.
local function drop(handle)
  handle[FOUND], handle[COUNTS], handle[INDEXES] = nil, nil, nil
end

-- Visits the rows that are here and match, in the query's order, until `visit` says true.
local function each_match(handle, plan, visit)
  local tests, place = plan.tests, plan.place
  local equal, ranged
  for _, condition in ipairs(tests) do
    if condition.operator == "=" then
      equal = condition
    elseif not ranged or condition.place == place then
      ranged = condition
    end
  end
  local function check(id)
    local row = place_of_row(handle, id)
    if row and matches(handle, row, tests) then return visit(id, row) end
    return false
  end
  if not equal and (place or not ranged) then
    -- In the order of the index, as far as the conditions on its column go.
    local index = index_of(handle, place or 0)
    local list, low, high, low_behind, high_behind = index.values, nil, nil, false, true
    for _, condition in ipairs(tests) do
      if condition.place == place then
        local value, operator = condition.value, condition.operator
        if operator:sub(1, 1) == ">" then
          if low == nil or low < value then
            low, low_behind = value, operator == ">"
          end
        elseif high == nil or value < high then
          high, high_behind = value, operator == "<="
        end
      end
    end
    if plan.is_down then
      local to, inside = #list + 1, 1
      if high ~= nil then
        to, inside = bound(list, high, high_behind)
      end
      local is_done = each_down(list, to, inside, function(id, value)
        if low ~= nil and value < low then return true end
        return check(id)
      end)
      if is_done then return end
    else
      local from, inside = 1, 1
      if low ~= nil then
        from, inside = bound(list, low, low_behind)
      end
      local is_done = each_up(list, from, inside, function(id, value)
        if high ~= nil and high < value then return true end
        return check(id)
      end)
      if is_done then return end
    end
    -- A condition on the column leaves no nulls.
    if not (ranged and ranged.place == place) then each_up(index.nulls, 1, 1, check) end
    return
  end
  if equal and not place then
    -- Of one value, they lie by id.
    local list = index_of(handle, equal.place).values
    local from, inside = bound(list, equal.value, false)
    each_up(list, from, inside, function(id, other)
      if equal.value < other then return true end
      return check(id)
    end)
    return
  end
  -- Those of one value or range, put in order.
  local condition, found = equal or ranged, {}
  local index = index_of(handle, condition.place)
  local list, value, operator = index.values, condition.value, condition.operator
  local from, inside = 1, 1
  if operator ~= "<" and operator ~= "<=" then
    from, inside = bound(list, value, operator == ">")
  end
  each_up(list, from, inside, function(id, other)
    if (operator == "=" or operator == "<" or operator == "<=") and value < other then return true end
    local row = place_of_row(handle, id)
    if row and matches(handle, row, tests) then found[#found + 1] = { id, row } end
    return false
  end)
  if not plan.is_counted then sort(found, function(a, b)
    return plan.precedes(a[1], a[2], b[1], b[2])
  end) end
  for _, one in ipairs(found) do
    if visit(one[1], one[2]) then return end
  end
end

-- The rows that are here and match, `limit` at most: their ids and places.
local function here(handle, plan, limit)
  local ids, rows, count = {}, {}, 0
  if limit > 0 then
    each_match(handle, plan, function(id, row)
      count = count + 1
      ids[count], rows[count] = id, row
      return count >= limit
    end)
  end
  return ids, rows, count
end

---------------------------------------------------------------------------------------------------- what is committed

-- What is asked from the store. `changed` are the ids that a count leaves out.
local function ask(handle, plan, key, limit)
  local changed = ""
  if plan.is_counted then
    local ids = {}
    for id in next, handle[CHANGED] do
      ids[#ids + 1] = spack("<s4", id)
    end
    changed = concat(ids)
  end
  return { key = (plan.is_counted and "#" or "") .. key, plan = plan, limit = limit, changed = changed }
end

-- Takes in what the store found for the question of that number: rows in order, or how many.
local function supply_found(question_number, packed, count, is_complete)
  local handle, question = take_question(question_number)
  if question.plan.is_counted then
    local counts = handle[COUNTS]
    if not counts then
      counts = {}
      handle[COUNTS] = counts
    end
    counts[question.key] = { tests = question.plan.tests, rows = count }
    return
  end
  -- A row that did not change stays at its place until the next sweep, and one that did is passed by.
  local ids, rows, at, number = {}, {}, 1, 0
  while at <= #packed do
    local id
    id, at = take_in(handle, packed, at)
    local place = place_of_row(handle, id)
    if place then
      number = number + 1
      ids[number], rows[number] = id, place
    end
  end
  local found = handle[FOUND]
  if not found then
    found = {}
    handle[FOUND] = found
  end
  found[question.key] = { ids = ids, rows = rows, count = number, first = 1, is_complete = is_complete }
end

-- Merges what is here with what the store found; nil if more of that is needed.
local function merge(handle, plan, base, limit)
  local ids, rows, count = here(handle, plan, limit)
  local changed, precedes = handle[CHANGED], plan.precedes
  local merged_ids, merged_rows, merged = {}, {}, 0
  -- What has changed stays so until the next sweep.
  while base.first <= base.count and changed[base.ids[base.first]] ~= nil do
    base.first = base.first + 1
  end
  local mine, theirs = 1, base.first
  while merged < limit do
    while theirs <= base.count and changed[base.ids[theirs]] ~= nil do
      theirs = theirs + 1
    end
    if theirs > base.count and not base.is_complete then return nil end
    local takes_mine = mine <= count
    if takes_mine and theirs <= base.count then
      takes_mine = precedes(ids[mine], rows[mine], base.ids[theirs], base.rows[theirs])
    elseif not takes_mine and theirs > base.count then
      break
    end
    merged = merged + 1
    if takes_mine then
      merged_ids[merged], merged_rows[merged] = ids[mine], rows[mine]
      mine = mine + 1
    else
      merged_ids[merged], merged_rows[merged] = base.ids[theirs], base.rows[theirs]
      theirs = theirs + 1
    end
  end
  return merged_ids, merged_rows, merged
end

-------------------------------------------------------------------------------------------------- what scripts call

local methods = {}
local FIND_KEYS <const> = { where = true, order = true, limit = true }

local function make_precedes(handle, place, is_down)
  return function(id, row, other_id, other)
    if place then
      local left, right = key_of(handle, place, row), key_of(handle, place, other)
      -- Null comes last, in either direction.
      if left == nil or right == nil then
        if left ~= nil or right ~= nil then return left ~= nil end
      elseif left ~= right then
        if is_down then return right < left end
        return left < right
      end
    end
    return id < other_id
  end
end

function methods.find(entity, query)
  local handle = handle_of[entity] or no_entity("find")
  local kind = handle[KIND]
  query = check_query(kind, "find", query, FIND_KEYS, "where, order, limit")
  local tests = conditions(kind, "find", query.where)
  local place, is_down = ordering(kind, query.order)
  local limit = query.limit or maxinteger
  if mtype(limit) ~= "integer" or limit < 0 then
    raise("%s:find: limit: expected a count, got %s", kind.name, describe(limit))
  end
  begin_read(handle)
  local plan = { tests = tests, place = place, is_down = is_down, precedes = make_precedes(handle, place, is_down) }
  if not handle[WHOLE] and not handle[TRIED] then need(handle, TRY) end
  local ids, rows, count
  if limit == 0 then
    ids, rows, count = {}, {}, 0
  elseif handle[WHOLE] then
    ids, rows, count = here(handle, plan, limit)
  else
    plan.packed = packed_conditions(kind, tests)
    local key = format("%d%s ", place or 0, is_down and "-" or "+") .. plan.packed
    while true do
      local base = handle[FOUND] and handle[FOUND][key]
      if base then
        ids, rows, count = merge(handle, plan, base, limit)
        if ids then break end
      end
      -- Some more than are wanted: those that change here will not count.
      local page = NO_LIMIT
      if limit < 1 << 20 then
        local hidden = 0
        for at = 1, base and base.count or 0 do
          if handle[CHANGED][base.ids[at]] ~= nil then hidden = hidden + 1 end
        end
        page = 2 * limit + 16 + 2 * hidden
      end
      need(handle, ask(handle, plan, key, page))
    end
  end
  local result = array({})
  for at = 1, count do
    local row = kind.copy(cells_at(handle, rows[at]))
    row.id = ids[at]
    result[at] = row
  end
  return result
end

local COUNT_KEYS <const> = { where = true }

function methods.count(entity, query)
  local handle = handle_of[entity] or no_entity("count")
  local kind = handle[KIND]
  query = check_query(kind, "count", query, COUNT_KEYS, "where")
  local plan = { tests = conditions(kind, "count", query.where), is_counted = true }
  begin_read(handle)
  if not handle[WHOLE] and not handle[TRIED] then need(handle, TRY) end
  local count = 0
  if handle[WHOLE] and #plan.tests == 0 then return handle[ROWS] end
  if not handle[WHOLE] then
    plan.packed = packed_conditions(kind, plan.tests)
    local counts, key = handle[COUNTS], "#" .. plan.packed
    if not (counts and counts[key]) then need(handle, ask(handle, plan, plan.packed, NO_LIMIT)) end
    count = handle[WHOLE] and 0 or handle[COUNTS][key].rows
  end
  if handle[WHOLE] and #plan.tests == 0 then return handle[ROWS] end
  if #plan.tests == 0 then return count + index_of(handle, 0).values.size end
  each_match(handle, plan, function()
    count = count + 1
    return false
  end)
  return count
end

return {
  methods = methods,
  leave = leave,
  enter = enter,
  needs_before = needs_before,
  drop_found = drop,
  supply_found = supply_found,
}
