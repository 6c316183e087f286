-- Queries as scripts write them, checked, and as the host takes them.

local inner = ...
local host, raise, describe, name_text = inner.host, inner.raise, inner.describe, inner.name_text
local original_of, first_odd, is_event = inner.original_of, inner.first_odd, inner.is_event
local rawmeta = getmetatable
local type, next, ipairs, spack, concat = type, next, ipairs, string.pack, table.concat
local sub, mtype, tostring = string.sub, math.type, tostring
local parse, from_float = inner.numbers.parse, inner.numbers.from_float

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

-- Whether it is a table that a script made. Which fields of an event are in its table depends on what has been read of
-- it, and by whom.
local function is_given(value)
  return type(value) == "table" and not is_event(rawmeta(value))
end

-- Whether the keys of a table are the numbers from 1 to this one. For `#` and `ipairs` a list ends before a hole, and
-- what lies behind would be passed over.
local function is_list_of(list, count)
  local keys = 0
  for key in next, list do
    if mtype(key) ~= "integer" or key < 1 or key > count then return false end
    keys = keys + 1
  end
  return keys == count
end

local function conditions(kind, called, where)
  local tests = {}
  local function wrong()
    local column = kind.names[1] or "column"
    raise('%s:%s: where: expected a list of conditions such as {{"%s", ">", 1}}', kind.name, called, column)
  end
  if where == nil then return tests end
  if not is_given(where) then wrong() end
  where = original_of(where)
  if not is_list_of(where, #where) then
    if #where == 0 then wrong() end
    raise("%s:%s: where: expected a list of conditions, with none of them nil and no other keys", kind.name, called)
  end
  for at, condition in ipairs(where) do
    if not is_given(condition) then wrong() end
    condition = original_of(condition)
    local column, operator, value = condition[1], condition[2], condition[3]
    local number = indexed(kind, called, column, "a condition")
    local test = OPERATORS[operator]
    if not test then
      raise("%s:%s: %s is no operator; expected one of = < <= > >=", kind.name, called, describe(operator))
    end
    if value == nil or value == host.null then
      raise("%s:%s: the condition on %q compares with nil, which nothing matches", kind.name, called, column)
    end
    if not is_list_of(condition, 3) then
      raise(
        "%s:%s: where: the condition on %q has more than a column, an operator and a value of its own",
        kind.name,
        called,
        column
      )
    end
    -- The value as the column would hold it. What is rounded on the way there would compare differently.
    local cells = {}
    kind.read({ [column] = value }, cells, 1)
    local held = kind.comparable(number, cells, 1)
    if mtype(held) == "float" and mtype(value) ~= "float" and parse(value) ~= from_float(held) then
      local what = "%s:%s: the condition on %q: no double is %s; one comes near it"
      raise(what, kind.name, called, column, tostring(value))
    end
    tests[at] = { column = number, operator = operator, test = test, value = held, cells = cells }
  end
  return tests
end

-- A column of the row at a slot, as it is compared.
local function column_key(state, column, slot)
  return state[KIND].comparable(column, state[SEGMENTS][slot >> SHIFT], slot & MASK)
end

local function matches(state, slot, tests)
  for at = 1, #tests do
    local condition = tests[at]
    local value = column_key(state, condition.column, slot)
    if value == nil or not condition.test(value, condition.value) then return false end
  end
  return true
end

local function ordering(kind, order)
  if order == nil then return nil, false end
  if type(order) ~= "string" then
    raise('%s:find: order: expected a column such as "-quakes", got %s', kind.name, describe(order))
  end
  local is_down = sub(order, 1, 1) == "-"
  return indexed(kind, "find", is_down and sub(order, 2) or order, "an order"), is_down
end

-- Conditions as the host takes them: column, operator, and a row that holds the value.
local function packed_conditions(kind, tests)
  local parts = {}
  for at, condition in ipairs(tests) do
    parts[at] = spack(
      "<I2Bs4",
      condition.column - 1,
      OPERATOR_CODES[condition.operator],
      kind.pack("", WRITTEN, 0, condition.cells, 1)
    )
  end
  return concat(parts)
end

local function check_query(kind, what, query, known, names)
  if query == nil then return {} end
  if not is_given(query) then
    raise("%s:%s: expected a table such as { limit = 5 }, got %s", kind.name, what, describe(query))
  end
  query = original_of(query)
  local odd = first_odd(query, function(key)
    return not known[key]
  end)
  if odd ~= nil then raise("%s:%s: unknown key %s; expected %s", kind.name, what, name_text(odd), names) end
  return query
end

return {
  conditions = conditions,
  ordering = ordering,
  check_query = check_query,
  packed_conditions = packed_conditions,
  column_key = column_key,
  matches = matches,
}
