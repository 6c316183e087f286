-- Reads by column: `find` and `count`.
--
-- What is here and changed since the last sweep is looked up here, in indexes that each write keeps; of a table that
-- is wholly here that is all of it. What is committed and did not change is asked from the store, once for each query:
-- rows that did not change stay as they are until the next sweep, so the answer is good until then, whatever commits
-- in between. The two are merged, and a row that changed here counts as it is here.

local inner = ...
local raise, describe = inner.raise, inner.describe
local need, TRY, take_in, take_question = inner.need, inner.TRY, inner.take_in, inner.take_question
local array, state_of, no_entity, begin_read = inner.array, inner.state_of, inner.no_entity, inner.begin_read
local conditions, ordering, check_query = inner.conditions, inner.ordering, inner.check_query
local packed_conditions, column_key, matches = inner.packed_conditions, inner.column_key, inner.matches
local S, slot_of, index_of, cells_at = inner.run_state, inner.slot_of, inner.index_of, inner.cells_at
local bound, each_up, each_down = inner.ordered.bound, inner.ordered.each_up, inner.ordered.each_down

local mtype, next, ipairs, format, sub = math.type, next, ipairs, string.format, string.sub
local spack, concat, sort = string.pack, table.concat, table.sort
local maxinteger = math.maxinteger

-- Visits the ids of an index in the order of its column, as far as the conditions on the column go; returns whether
-- `check` said true or there are no more that meet them.
local function each_in_order(list, plan, check)
  local low, high, low_behind, high_behind = nil, nil, false, true
  for _, condition in ipairs(plan.tests) do
    if condition.column == plan.column then
      local value, operator = condition.value, condition.operator
      if sub(operator, 1, 1) == ">" then
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
    return each_down(list, to, inside, function(id, value)
      if low ~= nil and value < low then return true end
      return check(id)
    end)
  end
  local from, inside = 1, 1
  if low ~= nil then
    from, inside = bound(list, low, low_behind)
  end
  return each_up(list, from, inside, function(id, value)
    if high ~= nil and high < value then return true end
    return check(id)
  end)
end

-- Visits the rows that meet a condition, put in the query's order, until `visit` says true.
local function each_sorted(state, plan, condition, visit)
  local found = {}
  local list, value, operator = index_of(state, condition.column).values, condition.value, condition.operator
  local from, inside = 1, 1
  if operator ~= "<" and operator ~= "<=" then
    from, inside = bound(list, value, operator == ">")
  end
  each_up(list, from, inside, function(id, other)
    if (operator == "=" or operator == "<" or operator == "<=") and value < other then return true end
    local row = slot_of(state, id)
    if row and matches(state, row, plan.tests) then found[#found + 1] = { id, row } end
    return false
  end)
  if not plan.is_counted then
    local precedes = plan.precedes
    sort(found, function(a, b)
      return precedes(a[1], a[2], b[1], b[2])
    end)
  end
  for _, one in ipairs(found) do
    if visit(one[1], one[2]) then return end
  end
end

-- Visits the rows that are here and match, in the query's order, until `visit` says true.
local function each_match(state, plan, visit)
  local tests, column = plan.tests, plan.column
  local equal, ranged
  for _, condition in ipairs(tests) do
    if condition.operator == "=" then
      equal = condition
    elseif not ranged or condition.column == column then
      ranged = condition
    end
  end
  local function check(id)
    local row = slot_of(state, id)
    if row and matches(state, row, tests) then return visit(id, row) end
    return false
  end
  if not equal and (column or not ranged) then
    local index = index_of(state, column or 0)
    if each_in_order(index.values, plan, check) then return end
    -- A condition on the column leaves no nulls.
    if not (ranged and ranged.column == column) then each_up(index.nulls, 1, 1, check) end
  elseif equal and not column then
    -- Of one value, they lie by id.
    local list = index_of(state, equal.column).values
    local from, inside = bound(list, equal.value, false)
    each_up(list, from, inside, function(id, other)
      if equal.value < other then return true end
      return check(id)
    end)
  else
    each_sorted(state, plan, equal or ranged, visit)
  end
end

-- The rows that are here and match, `limit` at most: their ids and slots.
local function here(state, plan, limit)
  local ids, rows, count = {}, {}, 0
  if limit > 0 then
    each_match(state, plan, function(id, row)
      count = count + 1
      ids[count], rows[count] = id, row
      return count >= limit
    end)
  end
  return ids, rows, count
end

---------------------------------------------------------------------------------------------------- what is committed

-- What is asked from the store. `changed` are the ids that a count leaves out.
local function ask(state, plan, key, limit)
  local changed = ""
  if plan.is_counted then
    local ids = {}
    for id in next, state[CHANGED] do
      ids[#ids + 1] = spack("<s4", id)
    end
    changed = concat(ids)
  end
  local key_of = (plan.is_counted and "#" or "") .. key
  return { key = key_of, plan = plan, limit = limit, changed = changed, is_sure = S[MODE] ~= DRY }
end

-- Takes in what the store found for the question of that number: rows in order, or how many.
local function supply_found(question_number, packed, count, is_complete)
  local state, question = take_question(question_number)
  if question.plan.is_counted then
    local counts = state[COUNTS]
    if not counts then
      counts = {}
      state[COUNTS] = counts
    end
    counts[question.key] = { tests = question.plan.tests, rows = count }
    return
  end
  -- A row that did not change stays in its slot until the next sweep, and one that did is passed by.
  local ids, rows, at, number, seen = {}, {}, 1, 0, 0
  while at <= #packed do
    local id
    id, at = take_in(state, packed, at)
    seen = seen + 1
    local slot = slot_of(state, id)
    if slot then
      number = number + 1
      ids[number], rows[number] = id, slot
    end
  end
  local found = state[FOUND]
  if not found then
    found = {}
    state[FOUND] = found
  end
  found[question.key] = { ids = ids, rows = rows, count = number, first = 1, is_complete = is_complete, seen = seen }
end

-- Merges what is here with what the store found; nil if more of that is needed.
local function merge(state, plan, base, limit)
  local ids, rows, count = here(state, plan, limit)
  local changed, precedes = state[CHANGED], plan.precedes
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

local function make_precedes(state, column, is_down)
  return function(id, row, other_id, other)
    if column then
      local left, right = column_key(state, column, row), column_key(state, column, other)
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
  local state = state_of[entity] or no_entity("find", entity, state_of)
  local kind = state[KIND]
  query = check_query(kind, "find", query, FIND_KEYS, "where, order, limit")
  local tests = conditions(kind, "find", query.where)
  local column, is_down = ordering(kind, query.order)
  local limit = query.limit or maxinteger
  if mtype(limit) ~= "integer" or limit < 0 then
    raise("%s:find: limit: expected a count, got %s", kind.name, describe(limit))
  end
  begin_read(state)
  local plan = { tests = tests, column = column, is_down = is_down, precedes = make_precedes(state, column, is_down) }
  if not state[WHOLE] and not state[TRIED] then need(state, TRY) end
  local ids, rows, count
  if limit == 0 then
    ids, rows, count = {}, {}, 0
  else
    local key
    -- All of the table may come while the call waits: for the rows of the calls behind it.
    while not state[WHOLE] do
      if not key then
        plan.packed = packed_conditions(kind, tests)
        key = format("%d%s ", column or 0, is_down and "-" or "+") .. plan.packed
      end
      local base = state[FOUND] and state[FOUND][key]
      if base then
        ids, rows, count = merge(state, plan, base, limit)
        if ids then break end
      end
      -- Some more than are needed: what has changed here, or changes yet, does not count.
      local page = NO_LIMIT
      if limit < FIND_ROWS_ALL then page = FIND_ROWS_TIMES * (limit + (base and base.seen or 0)) + FIND_ROWS_MORE end
      if page >= FIND_ROWS_ALL then page = NO_LIMIT end
      need(state, ask(state, plan, key, page))
    end
    if not ids then
      ids, rows, count = here(state, plan, limit)
    end
  end
  local result = array({})
  for at = 1, count do
    local row = kind.copy(cells_at(state, rows[at]))
    row.id = ids[at]
    result[at] = row
  end
  return result
end

local COUNT_KEYS <const> = { where = true }
local PASSING_ROWS_MAX <const> = 1000 -- rows that changed here, of a table that a snapshot counts in passing

-- Whether a count is made in passing: by a snapshot, of a table that is not counted yet and of which little has changed
-- here. Then the store is asked for nothing but the count, however many regions have a snapshot, and writes need not
-- keep it right from then on.
local function is_passing(state)
  if S[MODE] ~= SNAPSHOT or state[COUNTS] then return false end
  local left = PASSING_ROWS_MAX
  for _ in next, state[CHANGED] do
    left = left - 1
    if left < 0 then return false end
  end
  return true
end

-- Such a count of a table that is not wholly here.
local function count_passing(state, plan)
  need(state, ask(state, plan, plan.packed, NO_LIMIT))
  local count = state[COUNTS]["#" .. plan.packed].rows
  state[COUNTS] = false
  for id in next, state[CHANGED] do
    local slot = slot_of(state, id)
    if slot and matches(state, slot, plan.tests) then count = count + 1 end
  end
  return count
end

function methods.count(entity, query)
  local state = state_of[entity] or no_entity("count", entity, state_of)
  local kind = state[KIND]
  query = check_query(kind, "count", query, COUNT_KEYS, "where")
  local plan = { tests = conditions(kind, "count", query.where), is_counted = true }
  begin_read(state)
  if not state[WHOLE] and is_passing(state) then
    plan.packed = packed_conditions(kind, plan.tests)
    return count_passing(state, plan)
  end
  if not state[WHOLE] and not state[TRIED] then need(state, TRY) end
  local count = 0
  if state[WHOLE] and #plan.tests == 0 then return state[ROWS] end
  if not state[WHOLE] then
    plan.packed = packed_conditions(kind, plan.tests)
    local counts, key = state[COUNTS], "#" .. plan.packed
    if not (counts and counts[key]) then need(state, ask(state, plan, plan.packed, NO_LIMIT)) end
    count = state[WHOLE] and 0 or state[COUNTS][key].rows
  end
  if state[WHOLE] and #plan.tests == 0 then return state[ROWS] end
  if #plan.tests == 0 then return count + index_of(state, 0).values.size end
  each_match(state, plan, function()
    count = count + 1
    return false
  end)
  return count
end

return { methods = methods, supply_found = supply_found }
