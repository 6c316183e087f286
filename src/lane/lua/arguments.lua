-- What scripts pass to the methods of entities, checked.

local inner = ...
local host, raise, describe, name_text, key_text =
  inner.host, inner.raise, inner.describe, inner.name_text, inner.key_text
local numbers, is_event, state_of, entity_metas = inner.numbers, inner.is_event, inner.state_of, inner.entity_metas
local first_odd = inner.first_odd
local rawmeta, rawget, rawequal, type, next, ipairs = getmetatable, rawget, rawequal, type, next, ipairs
local mtype, tointeger = math.type, math.tointeger
local utf8_len, find, format = utf8.len, string.find, string.format

-- Whether an id may be one as it is.
local function is_key(id)
  return type(id) == "string" and #id <= ID_BYTES_MAX and utf8_len(id) and not find(id, "\0", 1, true)
end

-- The digits of a number that is whole, or what is wrong with it as an id. One number has one text: 17.0 is 17.
local function digits_of(id)
  if mtype(id) == "integer" then return format("%d", id) end
  if mtype(id) == "float" then
    local whole = tointeger(id)
    if whole and whole > -2 ^ 53 and whole < 2 ^ 53 then return format("%d", whole) end
    if id % 1 ~= 0 then return nil, "" end
    return nil, ", a float that may have lost digits; a type in [source.fields] keeps them"
  end
  if numbers.meta ~= rawmeta(id) then return nil, "" end
  local text = numbers.text(id)
  if find(text, ".", 1, true) then return nil, "" end
  return text
end

-- The id that a script means.
local function key_of(state, id, what)
  if is_key(id) then return id end
  if type(id) ~= "string" then
    local digits, problem = digits_of(id)
    if not digits then
      raise("%s:%s: expected an id (text or a whole number), got %s%s", state[KIND].name, what, describe(id), problem)
    end
    id = digits
    if #id <= ID_BYTES_MAX then return id end
  end
  if #id > ID_BYTES_MAX then
    raise(
      "%s:%s: an id of %d bytes; expected at most %d, which is what an index takes",
      state[KIND].name,
      what,
      #id,
      ID_BYTES_MAX
    )
  end
  local problem = utf8_len(id) and "it holds a NUL, which no database keeps"
    or "it is not UTF-8; a bytes column takes any bytes"
  raise("%s:%s: id: expected text, got %s (%s)", state[KIND].name, what, describe(id), problem)
end

-- A method was called with an entity whose table has no state yet, which it returns; or with something that is no
-- entity, or one of a `ctx` that was kept. `states` has those that the method takes.
local function no_entity(what, entity, states)
  if entity_metas[rawmeta(entity)] and not state_of[entity] then
    if not inner.make_state(entity) then inner.refuse_kept(what, entity) end
    if states[entity] then return states[entity] end
  end
  raise(what .. ": call it with a colon, as in ctx.entity:" .. what .. "(…)")
end

-- `set` was called without a row.
local function no_row(state, row)
  raise("%s:set: expected a table of columns, got %s", state[KIND].name, describe(row))
end

-- A name in a row that is no column. A row of `find` carries its id, and may come back with it. Of several names the
-- message has the first, whichever was found.
local function odd_column(state, id, row, name)
  if name == "id" and rawequal(rawget(row, name), id) then return end
  -- Which fields of an event are in its table depends on what has been read of it.
  if is_event(rawmeta(row)) then return end
  local kind = state[KIND]
  name = first_odd(row, function(key)
    return not kind.known[key] and not (key == "id" and rawequal(rawget(row, key), id))
  end)
  raise("%s:set: there is no column %s%s", kind.name, name_text(name), host.nearest(key_text(name), kind.names))
end

-- A table that a script gave, as the tables are that it is read-only for.
local function original_of(tab)
  if rawmeta(tab) == nil or is_event(rawmeta(tab)) then return tab end
  local original = inner.plain(tab)
  if type(original) ~= "table" then raise("expected a table of the script's own, got ctx or an entity of it") end
  return original
end

-- The columns of a row that has a metatable, which the script may compute: they are read before anything is looked up,
-- as it may read and write rows meanwhile.
local function read_columns(state, id, row)
  local kind, columns = state[KIND], {}
  row = original_of(row)
  for _, name in ipairs(kind.names) do
    columns[name] = row[name]
  end
  for name in next, row do
    if not kind.known[name] then odd_column(state, id, row, name) end
  end
  return columns
end

-- The row that a script gave, checked as far as the names of its columns.
local function check_columns(state, id, row)
  if type(row) ~= "table" then no_row(state, row) end
  local meta = rawmeta(row)
  if numbers.meta == meta then no_row(state, row) end
  if meta ~= nil then return read_columns(state, id, row) end
  local known = state[KIND].known
  for name in next, row do
    if not known[name] then odd_column(state, id, row, name) end
  end
  return row
end

return {
  is_key = is_key,
  key_of = key_of,
  no_entity = no_entity,
  no_row = no_row,
  odd_column = odd_column,
  original_of = original_of,
  check_columns = check_columns,
}
