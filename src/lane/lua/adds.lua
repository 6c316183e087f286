-- `add`, `max` and `min`: what a script wants of a row's columns without having the row. No table of the row is made,
-- and sums are checked. In all else they do what `get` and `set` would.

local inner = ...
local host, raise, describe, name_text = inner.host, inner.raise, inner.describe, inner.name_text
local key_text, original_of, is_event = inner.key_text, inner.original_of, inner.is_event
local numbers, S, has_history = inner.numbers, inner.run_state, inner.has_history
local cells_at, add_row, note_read, fetch = inner.cells_at, inner.add_row, inner.note_read, inner.fetch
local key_of, is_key, no_entity = inner.key_of, inner.is_key, inner.no_entity
local mark, note_row, note_new = inner.mark, inner.note_row, inner.note_new
local note_dry, dry_cells, leave, enter = inner.note_dry, inner.dry_cells, inner.leave, inner.enter
local compile, is_earlier = inner.compile, inner.is_earlier
local puts_aside, log_write, first_odd = inner.puts_aside, inner.log_write, inner.first_odd

local setmeta, rawget, type = setmetatable, rawget, type
local rawmeta, rawequal, next, ipairs = getmetatable, rawequal, next, ipairs
local move, concat, format = table.move, table.concat, string.format
local numeric_meta, hints, text_of, template = numbers.meta, numbers.hints, numbers.text, inner.template

-- What the change that is being computed writes: places in the row, and the cells. Nothing of the row changes before
-- all of it is known to be right.
local places, values = {}, {}

-- A name in a change that is no column for it. A row of `find` carries its id. Of several names the message has the
-- first, whichever was found.
local function odd_column(kind, called, id, changes, name)
  if name == "id" and rawequal(rawget(changes, name), id) then return end
  local known = called == "add" and kind.addable or kind.ordered
  name = first_odd(changes, function(key)
    return not known[key] and not (key == "id" and rawequal(rawget(changes, key), id))
  end)
  if not kind.known[name] then
    local nearest = host.nearest(key_text(name), kind.names)
    raise("%s:%s: there is no column %s%s", kind.name, called, name_text(name), nearest)
  end
  local problem = called == "add" and "is no number; expected a bigint, a double or a numeric" or "has no order"
  raise("%s:%s: the column %s is of the type %s, which %s", kind.name, called, name, kind.types[name], problem)
end

local function refuse_sum(kind, id, name, problem)
  raise("%s.%s: add to the row %s: %s", kind.name, name, describe(id), problem)
end

local function leaves_bigint(kind, id, name, was, value)
  local sum = format("%d + %d leaves the 64 bits of a bigint; a numeric column has no such end", was, value)
  refuse_sum(kind, id, name, sum)
end

local function exact(high, low)
  return setmeta({ high, low }, numeric_meta)
end

-- The number at `at` in the list `d` and one more, both as limbs, or false and their text where they do not suffice.
local function sum_of_numerics(kind, id, name, d, at, high, low)
  local was, was_low = d[at], d[at + 1]
  if not was and not was_low then return high, low end
  if was and high then
    local sum, sum_low = was + high, was_low + low
    if sum_low >= LIMB then
      sum, sum_low = sum + 1, sum_low - LIMB
    end
    if sum < LIMB and sum > -LIMB then return sum, sum_low end
  end
  local sum, problem = host.numeric_op("+", text_of(exact(was, was_low)), text_of(exact(high, low)))
  if not sum then refuse_sum(kind, id, name, problem) end
  local number = numbers.canonical(sum)
  return number[1], number[2]
end

local function sum_of_integers(kind, id, name, was, value)
  if not was then return value end
  local sum = was + value
  if (was ~ sum) & (value ~ sum) < 0 then leaves_bigint(kind, id, name, was, value) end
  return sum
end

local function sum_of_doubles(kind, id, name, was, value)
  local sum = (was or 0.0) + value
  if sum ~= sum then refuse_sum(kind, id, name, "the sum is no number") end
  return sum
end

-- The numbers of the columns that a change names, in the order of columns: what is wrong with several is then always
-- said of the same one. `known` are those that it may name. Returns how many they are.
local asked = {}
local function ask(kind, called, id, changes, known)
  local count = 0
  for name in next, changes do
    local number, at = known[name], count
    if number then
      while at > 0 and asked[at] > number do
        asked[at + 1], at = asked[at], at - 1
      end
      asked[at + 1], count = number, count + 1
    else
      odd_column(kind, called, id, changes, name)
    end
  end
  return count
end

-- Computes the sums for the row at `at` in the list `d`; returns how many cells change. Null adds nothing.
local function add(kind, id, changes, d, at)
  local count = 0
  for nth = 1, ask(kind, "add", id, changes, kind.addable) do
    local number = asked[nth]
    local name, place = kind.names[number], kind.first[number]
    local value, type_name, was = kind.check[name](rawget(changes, name)), kind.types[name], d[at + place]
    if type_name == "numeric" then
      if value[1] or value[2] then
        local high, low = sum_of_numerics(kind, id, name, d, at + place, value[1], value[2])
        places[count + 1], values[count + 1], places[count + 2], values[count + 2] = place, high, place + 1, low
        count = count + 2
      end
    elseif value then
      local sum_of = type_name == "bigint" and sum_of_integers or sum_of_doubles
      count = count + 1
      places[count], values[count] = place, sum_of(kind, id, name, was, value)
    end
  end
  return count
end

-- Whether a cell comes before another one in the order of their column.
local function is_before(kind, name, a, b)
  if kind.types[name] == "timestamptz" then return is_earlier(a, b) end
  return a < b
end

-- As `add`, with the later or the earlier of the row's value and the one that is given. Null is neither.
local function choose(kind, called, id, changes, d, at)
  local is_max, count = called == "max", 0
  for nth = 1, ask(kind, called, id, changes, kind.ordered) do
    local number = asked[nth]
    local name, place = kind.names[number], kind.first[number]
    local value, was = kind.check[name](rawget(changes, name)), d[at + place]
    if kind.types[name] == "numeric" then
      local was_low = d[at + place + 1]
      local known = (was or was_low) and exact(was, was_low)
      local is_null = not value[1] and not value[2]
      if not is_null and (not known or (is_max and value > known) or (not is_max and value < known)) then
        places[count + 1], values[count + 1] = place, value[1]
        places[count + 2], values[count + 2] = place + 1, value[2]
        count = count + 2
      end
    else
      local low, high = was, value
      if not is_max then
        low, high = value, was
      end
      if value and (not was or is_before(kind, name, low, high)) then
        count = count + 1
        places[count], values[count] = place, value
      end
    end
  end
  return count
end

local function max(kind, id, changes, d, at)
  return choose(kind, "max", id, changes, d, at)
end

local function min(kind, id, changes, d, at)
  return choose(kind, "min", id, changes, d, at)
end

-- Makes a row of which it is known that there is none; returns its cells, and its slot.
local function new_row(state, id)
  if has_history then note_new(state, id, false) end
  local slot, d, at = add_row(state, id, 0, state[GONE][id] and S[BATCH] or -S[BATCH])
  mark(state, id, slot)
  return d, at, slot
end

-- Writes what was computed. The row lies at `at` in the list `d`; without a slot it is known that there is none.
local function keep(kind, state, id, slot, d, at, count)
  local batch = S[BATCH]
  if slot then
    local changed = d[at + kind.batch_at]
    if changed ~= batch and changed ~= -batch then
      mark(state, id, slot)
      d[at + kind.batch_at] = batch
    end
    if has_history and d[at + kind.block_at] ~= S[BLOCK] then note_row(state, id, d, at) end
  else
    d, at, slot = new_row(state, id)
  end
  for nth = 1, count do
    d[at + places[nth]] = values[nth]
  end
  d[at + kind.writer_at] = S[WRITER]
  if has_history then d[at + kind.block_at] = S[BLOCK] end
  return slot
end

local function no_changes(kind, called, changes)
  local example = kind.names[1] or "sold"
  raise("%s:%s: expected a table such as { %s = 1 }, got %s", kind.name, called, example, describe(changes))
end

-- Where the way below does not go.
local function change_slowly(kind, called, compute, state, id, changes)
  id = key_of(state, id, called)
  if type(changes) ~= "table" or is_event(rawmeta(changes)) then no_changes(kind, called, changes) end
  changes = original_of(changes)
  note_read(kind)
  if S[MODE] == SNAPSHOT then raise("on_snapshot may read, and not write") end
  if S[MODE] == DRY then
    local d, at = dry_cells(state, id)
    if not d then
      d, at = kind.nulls, 1
    end
    local count = compute(kind, id, changes, d, at)
    local cells = move(d, at, at + kind.cells - 1, 1, {})
    for nth = 1, count do
      cells[1 + places[nth]] = values[nth]
    end
    return note_dry(state, id, cells)
  end
  local slot, d, at = fetch(state, id), kind.nulls, 1
  if slot then
    d, at = cells_at(state, slot)
  end
  local count = compute(kind, id, changes, d, at)
  if puts_aside then log_write(state, id, false) end
  if slot then leave(state, id, slot) end
  slot = keep(kind, state, id, slot, d, at, count)
  if state[INDEXES] then enter(state, id, slot) end
end

-- Makes the method that scripts call: `compute` says what becomes of a row. It goes the short way if the row is here,
-- or known not to be, and nothing is kept in order beside it. An event is refused on either: which of its fields are in
-- its table depends on what has been read of it, and by whom.
local function make_method(kind, called, compute)
  local state_of, nulls = kind.state_of, kind.nulls
  return function(entity, id, changes)
    local state = state_of[entity] or no_entity(called, entity, state_of)
    local slot, meta = state[YOUNG][id], rawmeta(changes)
    if S[MODE] ~= RUN or state[INDEXES] or state[COUNTS] or type(changes) ~= "table" or next(changes) == nil then
      return change_slowly(kind, called, compute, state, id, changes)
    end
    if meta ~= nil and is_event(meta) then return change_slowly(kind, called, compute, state, id, changes) end
    local d, at = nulls, 1
    if slot then
      d, at = state[SEGMENTS][slot >> SHIFT], slot & MASK
    elseif not kind.is_read or (slot == nil and (not state[WHOLE] or state[OLD][id] ~= nil or not is_key(id))) then
      return change_slowly(kind, called, compute, state, id, changes)
    end
    local count = compute(kind, id, changes, d, at)
    if puts_aside then log_write(state, id, false) end
    keep(kind, state, id, slot, d, at, count)
  end
end

---------------------------------------------------------------------------------------- the short way, compiled

local COMPILED_MAX <const> = 12 -- number columns at most of a kind whose `add` is compiled

-- How cell `offset` of the row at `at` in the list `d` is written.
local function cell(offset)
  return offset == 0 and "d[at]" or format("d[at + %d]", offset)
end

-- What is added to each type of column: `v` is checked, `$own` is what the cell will be (of a numeric, `$low` is the
-- second one).
local SUMS <const> = {
  bigint = template([[
    $check
    if v then
      local was = $cell
      if was then
        local sum = was + v
        if (was ~ sum) & (v ~ sum) < 0 then leaves_bigint(kind, id, $name, was, v) end
        v = sum
      end
      $own = v
    end]]),
  numeric = template([[
    local high, low
    if numeric_meta == rawmeta(v) then
      high, low = v[1], v[2]
    elseif v == hints[1] then
      high, low = hints[2], hints[3]
    end
    if not high then
      $check
      high, low = v[1], v[2]
    end
    local was = $cell
    if was and high then
      $own, $low = was + high, $second + low
      if $low >= $LIMB then
        $own, $low = $own + 1, $low - $LIMB
      end
      if $own >= $LIMB or $own <= -$LIMB then
        $own, $low = sum_of_numerics(kind, id, $name, d, at + $offset, high, low)
      end
    elseif high or low then
      $own, $low = sum_of_numerics(kind, id, $name, d, at + $offset, high, low)
    end]]),
  double = template([[
    $check
    if v then $own = sum_of_doubles(kind, id, $name, $cell, v) end]]),
}

local add_source = template([[
  return function(
    kind, nulls, slowly, odd_column, new_row, leaves_bigint, sum_of_numerics, sum_of_doubles, hints, null
  )
    return function(entity, id, changes)
      local state, S = state_of[entity] or no_entity("add", entity, state_of), S
      local slot = state[$YOUNG][id]
      -- Of all values but tables only these have no metatable.
      if S[$MODE] ~= $RUN or state[$INDEXES] or state[$COUNTS] or rawmeta(changes) ~= nil
        or not changes or changes == true or changes == null then
        return slowly(state, id, changes)
      end
      local d, at
      if slot then
        d, at = state[$SEGMENTS][slot >> $SHIFT], slot & $MASK
      elseif not kind.is_read
        or (slot == nil and (not state[$WHOLE] or state[$OLD][id] ~= nil or not is_key(id))) then
        return slowly(state, id, changes)
      else
        d, at = nulls, 1
      end
      local $given
      local name, value = next(changes)
      while name ~= nil do
        $takes
          odd_column(kind, "add", id, changes, name)
        end
        name, value = next(changes, name)
      end
      local $locals
      $sums
      $journal
      if slot then
        local batch, changed = S[$BATCH], $row_batch
        if changed ~= batch and changed ~= -batch then
          mark(state, id, slot)
          $row_batch = batch
        end
        $note_row
      else
        d, at = new_row(state, id)
      end
      $keep
      $row_writer = S[$WRITER]
      $note_block
    end
  end]])
local take_line = template("if name == $name then $given = value else")
local sum_line = template("if $given ~= nil then local v = $given $sum end")
local keep_line = template("if $own ~= nil then $cells = $values end")

-- The short way of `add`, compiled: nothing for kinds with many number columns.
local function compile_add(kind, columns)
  local takes, sums, keeps, given_locals, locals = {}, {}, {}, {}, {}
  for at, column in ipairs(columns) do
    local sum, offset = SUMS[column.type], kind.first[at]
    if sum then
      local own, low = "c" .. offset, "c" .. offset + 1
      local name, is_numeric = format("%q", column.name), column.type == "numeric"
      local parts = { name = name, own = own, low = low, offset = offset, check = kind.check_lines[column.name] }
      parts.cell, parts.second = cell(offset), cell(offset + 1)
      local from = "v" .. offset
      given_locals[#given_locals + 1] = from
      takes[#takes + 1] = take_line({ name = name, given = from })
      sums[#sums + 1] = sum_line({ given = from, sum = sum(parts) })
      keeps[#keeps + 1] = keep_line({
        own = own,
        cells = is_numeric and parts.cell .. ", " .. parts.second or parts.cell,
        values = is_numeric and own .. ", " .. low or own,
      })
      locals[#locals + 1] = own
      if is_numeric then locals[#locals + 1] = low end
    end
  end
  if #sums == 0 or #sums > COMPILED_MAX then return nil end
  local block = cell(kind.block_at)
  local source = add_source({
    given = concat(given_locals, ", "),
    takes = concat(takes),
    locals = concat(locals, ", "),
    sums = concat(sums, " "),
    keep = concat(keeps, " "),
    journal = puts_aside and "log_write(state, id, false)" or "",
    row_batch = cell(kind.batch_at),
    row_writer = cell(kind.writer_at),
    note_row = has_history and format("if %s ~= S[%d] then note_row(state, id, d, at) end", block, BLOCK) or "",
    note_block = has_history and format("%s = S[%d]", block, BLOCK) or "",
  })
  local function slowly(state, id, changes)
    return change_slowly(kind, "add", add, state, id, changes)
  end
  local make = compile(source, kind.state_of)
  return make(
    kind,
    kind.nulls,
    slowly,
    odd_column,
    new_row,
    leaves_bigint,
    sum_of_numerics,
    sum_of_doubles,
    hints,
    host.null
  )
end

-- The methods of a kind.
local function make_methods(kind, columns)
  kind.types, kind.check = {}, {} -- by name
  kind.addable, kind.ordered = {}, {} -- numbers of columns by name
  for at, column in ipairs(columns) do
    local line = kind.check_lines[column.name]
    kind.check[column.name] = compile("return function(v) " .. line .. " return v end")
    kind.types[column.name] = column.type
    if SUMS[column.type] then kind.addable[column.name] = at end
    if column.type ~= "jsonb" then kind.ordered[column.name] = at end
  end
  kind.nulls = {}
  for at = 1, kind.cells do
    kind.nulls[at] = false
  end
  return {
    add = compile_add(kind, columns) or make_method(kind, "add", add),
    max = make_method(kind, "max", max),
    min = make_method(kind, "min", min),
  }
end

return { make_methods = make_methods }
