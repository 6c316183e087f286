-- What is compiled for each kind of entity: how its rows are kept, read, written, packed and unpacked.
--
-- A row is some cells that lie side by side in a list, a *segment*, many rows to one: so a cached row is a line or two
-- of memory away, and the collector passes over a list instead of over many tables. First come the columns in order: a
-- numeric takes two cells (its limbs, or false and its text where they do not suffice), a boolean is 1 or 0, null is
-- false. Then the row's id (false once the row is gone), the event that wrote it, the batch that changed it last
-- (negated if the row was not there before that batch, as far as is known here; 0 if no batch of this run did) and,
-- where an undo log is kept, the block that did. A *slot* is the number of the segment, shifted, and that of the row's
-- first cell.

local inner = ...
local raise, describe, host, numbers, template = inner.raise, inner.describe, inner.host, inner.numbers, inner.template
local S, has_history, decode, clean = inner.run_state, inner.has_history, inner.decode, inner.clean
local slow_get, slow_set, no_entity, no_row = inner.slow_get, inner.slow_set, inner.no_entity, inner.no_row
local odd_column, mark, note_row, note_new = inner.odd_column, inner.mark, inner.note_row, inner.note_new
local new_slot, is_key = inner.new_slot, inner.is_key
local puts_aside, log_write = inner.puts_aside, inner.log_write

local PACKED_TOGETHER <const>, PACKED_VALUES_MAX <const> = 8, 120 -- rows and values at most that are packed in one call
local LOCALS_MAX <const> = 60 -- cells of a row that are checked in locals; more would not compile

local rawmeta, setmeta, type, next, ipairs = getmetatable, setmetatable, type, next, ipairs
local mtype, tointeger, tonumber, tostring = math.type, math.tointeger, tonumber, tostring
local spack, sunpack, find, byte, sub = string.pack, string.unpack, string.find, string.byte, string.sub
local format, concat = string.format, table.concat
local move, sort, unpack, utf8_len = table.move, table.sort, table.unpack, utf8.len
local load, error, min, max = load, error, math.min, math.max
local numeric_meta, parse_number, from_limbs = numbers.meta, numbers.parse, numbers.from_limbs
local null <const> = host.null

------------------------------------------------------------------------------------------- what a column does not take

local function refuse(column, expected, value, problem)
  raise("%s: expected %s, got %s%s", column, expected, describe(value), problem and " (" .. problem .. ")" or "")
end

local FLOAT_END <const> = 2.0 ^ 53 -- below it a float holds every integer; this one may stand for the next as well
local INEXACT <const> = "a float of 2^53 or more has no exact value: compute with numeric(…)"

-- Slow paths of `set`: what is not yet of the column's form is brought to it, or refused.
-- `null` is null in every column.
local function to_bigint(value, column)
  local number, problem
  local kind = mtype(value)
  if kind == "integer" then
    return value
  elseif kind == "float" then
    if value > -FLOAT_END and value < FLOAT_END then
      number = tointeger(value)
    elseif host.is_given(value) then
      number = tointeger(numbers.plain(numbers.from_float(value)))
    elseif value - value == 0 then
      problem = INEXACT
    end
  elseif type(value) == "string" or numeric_meta == rawmeta(value) then
    number = host.integer(tostring(value))
  elseif value == null then
    return false
  end
  return number or refuse(column, "a bigint (an integer of 64 bits)", value, problem)
end

local function to_double(value, column)
  if mtype(value) == "integer" then return value + 0.0 end
  if numeric_meta == rawmeta(value) then
    local number = tonumber(tostring(value)) + 0.0
    if number - number == 0 then return number end
    refuse(column, "a double", value, "no double comes near it")
  end
  if value == null then return false end
  return refuse(column, "a double (a number that is not NaN)", value)
end

local NO_NUMERIC <const> = { false, false }
local function to_numeric(value, column)
  if value == null then return NO_NUMERIC end
  local number, problem
  local kind = mtype(value)
  if kind == "float" and (value >= FLOAT_END or value <= -FLOAT_END) and value - value == 0 then
    if host.is_given(value) then
      number = numbers.from_float(value)
    else
      problem = INEXACT
    end
  else
    number, problem = parse_number(value)
  end
  if not number then refuse(column, "a numeric", value, problem) end
  problem = number[1] == false and host.numeric_fits(number[2])
  if problem then refuse(column, "a numeric", "a longer number", problem) end
  return number
end

local function to_text(value, column)
  if value == null then return false end
  if type(value) ~= "string" then
    refuse(
      column,
      "text",
      value,
      (type(value) == "number" or numeric_meta == rawmeta(value)) and "tostring(…) makes one" or nil
    )
  end
  if not utf8_len(value) then refuse(column, "text", value, "it is not UTF-8; a bytes column takes any bytes") end
  if find(value, "\0", 1, true) then refuse(column, "text", value, "it holds a NUL, which no database keeps") end
  return value
end

local function to_boolean(value, column)
  if value == null then return false end
  return refuse(column, "a boolean", value)
end

local function to_bytes(value, column)
  if value == null then return false end
  return refuse(column, "bytes (a string)", value)
end

local times, times_count = {}, 0
local function to_time(value, column)
  if value == null then return false end
  if type(value) ~= "string" then refuse(column, 'a timestamptz such as "2018-01-31T01:49:59.650Z"', value) end
  local known = times[value]
  if known then return known end
  local time, problem = host.time(value)
  if not time then refuse(column, 'a timestamptz such as "2018-01-31T01:49:59.650Z"', value, problem) end
  if times_count >= 4096 then
    times, times_count = {}, 0
  end
  times[value], times_count = time, times_count + 1
  return time
end

local function to_json(value, column)
  local text, problem = host.encode(value)
  if not text then raise(column .. ": " .. problem) end
  return text
end

-------------------------------------------------------------------------------------------------------- column types

-- A number whose limbs do not suffice, or null.
local function spilled(text)
  return text and setmeta({ false, text }, numeric_meta) or nil
end

-- The cells of a number that crossed the border.
local function limbs(high, low, text)
  local number = from_limbs(high, low, text)
  return number[1], number[2]
end

local function from_json(text)
  if text then return decode(text) end
  return nil
end

-- Of a time without its Z, the shorter text is the earlier time; years before 0 count backwards.
local function comparable_time(value)
  if byte(value) ~= 45 then return sub(value, 1, -2) end
  return format("-%06d%s", 1000000 - tonumber(sub(value, 2, 7)), sub(value, 8, -2))
end

local function is_earlier(a, b)
  return a ~= b and comparable_time(a) < comparable_time(b)
end

-- What there is to know of each column type. All of it, but for the last two, is Lua text:
--   check  brings `v`, which is not nil, to the column's form; `$column` is what messages call the column
--   value  what the column is in a script: `$v` is its cell (of a numeric, `$w` is the second one)
--   form   how it is packed, as string.pack takes it; `j` is `i8`, read faster
--   zero   what is packed for null
--   cells  how many it takes
--   freed  which of them may hold what the collector frees, if one does
local TYPES <const> = {
  bigint = {
    check = "if mtype(v) ~= 'integer' then v = to_bigint(v, $column) end",
    value = "$v or nil",
    form = "j",
    zero = "0",
    cells = 1,
  },
  double = {
    check = "if mtype(v) == 'float' and v == v then v = v + 0.0 else v = to_double(v, $column) end",
    value = "$v or nil",
    form = "d",
    zero = "0.0",
    cells = 1,
  },
  numeric = {
    check = "if numeric_meta ~= rawmeta(v) or v[1] == false then v = to_numeric(v, $column) end",
    value = "$v and setmeta({ $v, $w }, numeric_meta) or spilled($w)",
    form = "jjs4",
    zero = "0",
    cells = 2,
    freed = 1,
  },
  text = {
    check = "if not clean[v] then v = to_text(v, $column) end",
    value = "$v or nil",
    form = "s4",
    zero = "''",
    cells = 1,
    freed = 0,
  },
  boolean = {
    check = "if type(v) ~= 'boolean' then v = to_boolean(v, $column) else v = v and 1 or 0 end",
    value = "($v or nil) and $v == 1",
    form = "B",
    zero = "0",
    cells = 1,
  },
  bytes = {
    check = "if type(v) ~= 'string' then v = to_bytes(v, $column) end",
    value = "$v or nil",
    form = "s4",
    zero = "''",
    cells = 1,
    freed = 0,
  },
  timestamptz = {
    check = "v = to_time(v, $column)",
    value = "$v or nil",
    form = "s4",
    zero = "''",
    cells = 1,
    freed = 0,
    comparable = comparable_time,
  },
  jsonb = {
    check = "v = to_json(v, $column)",
    value = "from_json($v)",
    form = "s4",
    zero = "''",
    cells = 1,
    freed = 0,
  },
}

for _, name in ipairs(host.column_types) do
  local known = TYPES[name] or error("kinds.lua does not know the column type " .. name)
  for _, part in ipairs({ "check", "value", "form", "zero", "cells" }) do
    if known[part] == nil then error("kinds.lua: the column type " .. name .. " lacks " .. part) end
  end
  known.check, known.value = template(known.check), template(known.value)
end

--------------------------------------------------------------------------------------------------------------- cells

-- The first cell of each column and how many there are.
local function lay_out(columns)
  local first, cells = {}, 0
  for at, column in ipairs(columns) do
    first[at] = cells
    cells = cells + TYPES[column.type].cells
  end
  return first, cells
end

-- How cell `offset` of the row at `at` in the list `d` is written in a compiled function.
local function cell(offset)
  return offset == 0 and "d[at]" or format("d[at + %d]", offset)
end

local check_line = template("v = row[$name] if v == nil then $targets = $nulls else $check $targets = $values end")

-- The lines that check the table `row` into locals c0, c1, ..., and what they are called; of a wide kind, into the list
-- `scratch`, and nothing.
local function check_lines(kind, columns, first, cells)
  local lines, names = {}, {}
  local is_wide = cells > LOCALS_MAX
  for offset = 0, cells - 1 do
    names[offset + 1] = "c" .. offset
  end
  if cells > 0 and not is_wide then
    lines[1] = "local v, " .. concat(names, ", ")
  else
    lines[1] = "local v"
  end
  local function target(offset)
    return is_wide and format("scratch[%d]", offset + 1) or "c" .. offset
  end
  for at, column in ipairs(columns) do
    local offset, nulls, values = first[at], "false", "v"
    local targets = target(offset)
    if column.type == "numeric" then
      targets, nulls, values = targets .. ", " .. target(offset + 1), "false, false", "v[1], v[2]"
    end
    lines[#lines + 1] = check_line({
      name = format("%q", column.name),
      targets = targets,
      nulls = nulls,
      values = values,
      check = TYPES[column.type].check({ column = format("%q", kind .. "." .. column.name) }),
    })
  end
  return concat(lines, " "), not is_wide and names or nil
end

-- Puts the checked cells into the list `d`.
local function keep_lines(names, cells)
  if not names then return format("move(scratch, 1, %d, at, d)", cells) end
  -- One after the other: a list that grows from its end stays one.
  local lines = {}
  for offset = 0, cells - 1 do
    lines[offset + 1] = format("%s = %s", cell(offset), names[offset + 1])
  end
  return concat(lines, " ")
end

-- What compiled functions may use.
local LIBRARY <const> = {
  mtype = mtype,
  type = type,
  next = next,
  rawmeta = rawmeta,
  setmeta = setmeta,
  move = move,
  spack = spack,
  sunpack = sunpack,
  scratch = {},
  numeric_meta = numeric_meta,
  limbs = limbs,
  spilled = spilled,
  from_json = from_json,
  to_bigint = to_bigint,
  to_double = to_double,
  to_numeric = to_numeric,
  to_text = to_text,
  to_boolean = to_boolean,
  to_bytes = to_bytes,
  to_time = to_time,
  to_json = to_json,
  S = S,
  clean = clean,
  slow_get = slow_get,
  slow_set = slow_set,
  no_entity = no_entity,
  no_row = no_row,
  null = null,
  odd_column = odd_column,
  mark = mark,
  note_row = note_row,
  note_new = note_new,
  new_slot = new_slot,
  is_key = is_key,
  log_write = log_write,
}
local library_names, library_values = {}, {}
for name in next, LIBRARY do
  library_names[#library_names + 1] = name
end
sort(library_names)
for at, name in ipairs(library_names) do
  library_values[at] = LIBRARY[name]
end
local LIBRARY_LINE <const> = "local state_of, known, " .. concat(library_names, ", ") .. " = ... "

-- Compiles the text of a function. `state_of` and `known` are the kind's.
local function compile(source, state_of, known)
  local chunk, problem = load(LIBRARY_LINE .. source, "=inner:kind", "t")
  if not chunk then error(problem) end
  return chunk(state_of, known, unpack(library_values))
end

-- `read(row, d, at)`: checks the table that a script gave, and then keeps it as cells.
local function make_read(lines, names, cells)
  return compile(format("return function(row, d, at) %s %s end", lines, keep_lines(names, cells)))
end

-- `wipe(d, at)`: the row is gone, and holds nothing that the collector could free.
local function make_wipe(id_at, freed)
  local lines = { cell(id_at) .. " = false" }
  for number, offset in ipairs(freed) do
    lines[number + 1] = cell(offset) .. " = false"
  end
  return compile("return function(d, at) " .. concat(lines, " ") .. " end")
end

-- The lines that bring `v`, which is not nil, to the form of its column, by name.
local function lines_of_checks(kind, columns)
  local lines = {}
  for _, column in ipairs(columns) do
    lines[column.name] = TYPES[column.type].check({ column = format("%q", kind .. "." .. column.name) })
  end
  return lines
end

-- The table that a script gets: its own copy.
local function copy_text(columns, first)
  local fields = {}
  for at, column in ipairs(columns) do
    local value = TYPES[column.type].value({ v = cell(first[at]), w = cell(first[at] + 1) })
    fields[at] = format("[%q] = %s", column.name, value)
  end
  return "{" .. concat(fields, ", ") .. "}"
end

-------------------------------------------------------------------------------------------------- what scripts call

local get_source = template([[
  return function(entity, id)
    local state = state_of[entity] or no_entity("get", entity, state_of)
    local at = state[$YOUNG][id]
    if not at or S[$MODE] == $DRY then return slow_get(state, id) end
    local d = state[$SEGMENTS][at >> $SHIFT]
    at = at & $MASK
    return $copy
  end]])

local function make_get(kind, copy)
  return compile(get_source({ copy = copy }), kind.state_of)
end

-- The row is here, or known not to be, and nothing is kept in order beside it; the rest is left to the slow path.
local set_source = template([[
  return function(entity, id, row)
    local state, S = state_of[entity] or no_entity("set", entity, state_of), S
    local slot = state[$YOUNG][id]
    if S[$MODE] ~= $RUN or state[$INDEXES] or state[$COUNTS] then return slow_set(state, id, row) end
    if slot == nil
      and (not (state[$WHOLE] or state[$FILTERED]) or state[$OLD][id] ~= nil or not (clean[id] or is_key(id))) then
      return slow_set(state, id, row)
    end
    -- Of all values but tables only these have no metatable. What one computes is read on the slow path.
    if rawmeta(row) ~= nil then return slow_set(state, id, row) end
    if not row or row == true or row == null then no_row(state, row) end
    local name = next(row)
    while name ~= nil do
      if not known[name] then odd_column(state, id, row, name) end
      name = next(row, name)
    end
    $check
    $journal
    local batch, d, at = S[$BATCH]
    if slot then
      d, at = state[$SEGMENTS][slot >> $SHIFT], slot & $MASK
      local changed = $row_batch
      if changed ~= batch and changed ~= -batch then
        mark(state, id, slot)
        $row_batch = batch
      end
      $note_row
      $keep
    else
      $note_absent
      local free = state[$FREE_COUNT]
      if free > 0 then
        slot, state[$FREE_COUNT] = state[$FREE][free], free - 1
      else
        slot = new_slot(state)
      end
      d, at = state[$SEGMENTS][slot >> $SHIFT], slot & $MASK
      $keep
      $row_id = id
      $row_writer = 0
      $row_batch = state[$GONE][id] and batch or -batch
      state[$YOUNG][id] = slot
      state[$ROWS] = state[$ROWS] + 1
      mark(state, id, slot)
    end
    $row_writer = S[$WRITER]
    $note_block
  end]])
local row_note = template("if $block ~= S[$BLOCK] then note_row(state, id, d, at) end")
local block_note = template("$block = S[$BLOCK]")

local function make_set(kind, lines, names)
  local block = { block = cell(kind.block_at) }
  local source = set_source({
    check = lines,
    keep = keep_lines(names, kind.cells),
    journal = puts_aside and "log_write(state, id, false)" or "",
    row_id = cell(kind.id_at),
    row_writer = cell(kind.writer_at),
    row_batch = cell(kind.batch_at),
    note_row = has_history and row_note(block) or "",
    note_absent = has_history and "note_new(state, id, slot)" or "",
    note_block = has_history and block_note(block) or "",
  })
  return compile(source, kind.state_of, kind.known)
end

------------------------------------------------------------------------------------------------- across the border

-- The columns from `start` on that share a mask of nulls.
local function group_of(columns, start)
  local group = {}
  for at = start, min(start + COLUMNS_PER_MASK - 1, #columns) do
    group[#group + 1] = { at = at, type = columns[at].type }
  end
  return group
end

local pack_line = template("local $a = $v if not $a then $m = $m | $bit $a = $zero end")
local pack_numeric = template([[
  local $a, $b, $t = $v, $w, ''
  if not $a then $a, $t = 0, $b or '' if not $b then $m = $m | $bit end $b = 0 end]])

-- The lines that bring a group of columns of the row at `at` in the list `d` into locals, with the mask of nulls; the
-- format, and the locals in its order. `tag` tells the locals of several rows apart.
local function pack_lines(group, first, tag)
  local lines, form, values = { "local m" .. tag .. " = 0" }, "I4", { "m" .. tag }
  for bit, column in ipairs(group) do
    local offset, known, a = first[column.at], TYPES[column.type], "a" .. bit .. tag
    local parts = { a = a, m = "m" .. tag, bit = 1 << (bit - 1), v = cell(offset), zero = known.zero }
    form = form .. known.form
    values[#values + 1] = a
    local line = pack_line
    if column.type == "numeric" then
      parts.b, parts.t, parts.w = "b" .. bit .. tag, "t" .. bit .. tag, cell(offset + 1)
      line = pack_numeric
      values[#values + 1], values[#values + 2] = parts.b, parts.t
    end
    lines[#lines + 1] = line(parts)
  end
  return concat(lines, " "), form, values
end

local pack_group = template("local $p do $lines $p = spack($form, $head$values) end")
local pack_source = template("return function(id, change, writer, d, at) $body return $result end")

-- `pack(id, change, writer, d, at)`: the row in packed form.
local function make_pack(columns, first)
  local body, packs = {}, {}
  for start = 1, #columns, COLUMNS_PER_MASK do
    local lines, form, values = pack_lines(group_of(columns, start), first, "")
    body[#body + 1] = pack_group({
      p = "p" .. start,
      lines = lines,
      form = format("%q", "<" .. (start == 1 and "s4Bj" or "") .. form),
      head = start == 1 and "id, change, writer, " or "",
      values = concat(values, ", "),
    })
    packs[#packs + 1] = "p" .. start
  end
  local result = #packs > 0 and concat(packs, " .. ") or "spack('<s4Bj', id, change, writer)"
  return compile(pack_source({ body = concat(body, " "), result = result }))
end

local some_row = template([[
  slot = slots[from + $nth]
  d, at = segments[slot >> $SHIFT], slot & $MASK
  local $i, $c, $w = $id, $batch == new and $NEW or $WRITTEN, $writer
  if not $i then return nil end
  $lines]])
local some_source = template([[
  return function(segments, slots, from, batch)
    local slot, d, at
    local new = -batch
    $rows
    return spack($form, $values)
  end]])

-- `pack_some(segments, slots, from, batch)`: the rows of the `some` slots from there on, in packed form; nil if one
-- of them is gone. To pack many in one call costs half. Nothing for kinds that are too wide for it.
local function make_pack_some(kind, columns, first)
  if #columns == 0 or #columns > COLUMNS_PER_MASK then return nil, 0 end
  local _, _, values_of_one = pack_lines(group_of(columns, 1), first, "")
  local some = min(PACKED_TOGETHER, PACKED_VALUES_MAX // (#values_of_one + 3))
  if some < 2 then return nil, 0 end
  local rows, forms, values = {}, {}, {}
  for row = 1, some do
    local tag = "_" .. row
    local lines, form, row_values = pack_lines(group_of(columns, 1), first, tag)
    rows[row] = some_row({
      nth = row - 1,
      i = "i" .. tag,
      c = "c" .. tag,
      w = "w" .. tag,
      id = cell(kind.id_at),
      batch = cell(kind.batch_at),
      writer = cell(kind.writer_at),
      lines = lines,
    })
    forms[row] = "s4Bj" .. form
    values[row] = format("i%s, c%s, w%s, %s", tag, tag, tag, concat(row_values, ", "))
  end
  local source = some_source({
    rows = concat(rows, " "),
    form = format("%q", "<" .. concat(forms)),
    values = concat(values, ", "),
  })
  return compile(source), some
end

local unpack_line = template("if m & $bit ~= 0 then $a = false end $v = $a")
local unpack_numeric = template([[
  if m & $bit ~= 0 then $a, $b = false, false else $a, $b = limbs($a, $b, $t) end
  $v, $w = $a, $b]])
local unpack_group = template("do local m, $names m, $names, from = sunpack($form, packed, from) $code end")
local unpack_source = template([[
  return function(packed, from, d, at)
    local id, _
    id, _, _, from = sunpack("<s4Bj", packed, from)
    $body
    return id, from
  end]])

-- `unpack(packed, from, d, at)`: takes a packed row in as cells; returns its id and where the next one begins.
local function make_unpack(columns, first)
  local body = {}
  for start = 1, #columns, COLUMNS_PER_MASK do
    local form, names, code = "", {}, {}
    for bit, column in ipairs(group_of(columns, start)) do
      local offset, a, b, t = first[column.at], "a" .. bit, "b" .. bit, "t" .. bit
      form = form .. TYPES[column.type].form
      names[#names + 1] = a
      local line = unpack_line
      if column.type == "numeric" then
        names[#names + 1], names[#names + 2] = b, t
        line = unpack_numeric
      end
      local parts = { bit = 1 << (bit - 1), a = a, b = b, t = t, v = cell(offset), w = cell(offset + 1) }
      code[#code + 1] = line(parts)
    end
    body[#body + 1] = unpack_group({
      names = concat(names, ", "),
      form = format("%q", "<I4" .. form),
      code = concat(code, " "),
    })
  end
  return compile(unpack_source({ body = concat(body, " ") }))
end

----------------------------------------------------------------------------------------------------------- the kind

-- A value as it is compared; nil for null. False is less than true.
local function make_comparable(columns, first)
  return function(column, d, at)
    local offset, kind = at + first[column], columns[column].type
    local value = d[offset]
    if kind == "numeric" then
      if value then return setmeta({ value, d[offset + 1] }, numeric_meta) end
      return spilled(d[offset + 1])
    end
    if not value then return nil end
    local comparable = TYPES[kind].comparable
    return comparable and comparable(value) or value
  end
end

-- Makes the first segment of a table, with room for one row: many have no more.
local function make_new_segment(width)
  local cells = {}
  for at = 1, width do
    cells[at] = "false"
  end
  return compile("return function() return { " .. concat(cells, ", ") .. " } end")
end

-- Describes a kind.
local function make_kind(number, given)
  local columns = given.columns
  local names, known, indexed = {}, {}, {}
  for at, column in ipairs(columns) do
    if not TYPES[column.type] then error("kinds.lua does not know the column type " .. column.type) end
    names[at] = column.name
    known[column.name] = true
    if column.indexed then indexed[column.name] = at end
  end
  local first, cells = lay_out(columns)
  local freed = {} -- cells that may hold what the collector frees
  for at, column in ipairs(columns) do
    local which = TYPES[column.type].freed
    if which then freed[#freed + 1] = first[at] + which end
  end
  local width = cells + (has_history and 4 or 3)
  local kind = {
    number = number,
    name = given.name,
    names = names,
    known = known,
    indexed = indexed,
    state_of = {}, -- `ctx.<entity>` -> the table's state
    first = first,
    check_lines = lines_of_checks(given.name, columns),
    cells = cells,
    width = width,
    id_at = cells,
    writer_at = cells + 1,
    batch_at = cells + 2,
    block_at = cells + 3,
    rows_max = max(SEGMENT_CELLS // width, 1),
    is_read = false,
    new_segment = make_new_segment(width),
  }
  local lines, locals = check_lines(given.name, columns, first, cells)
  local copy = copy_text(columns, first)
  kind.read = make_read(lines, locals, cells)
  kind.wipe = make_wipe(cells, freed)
  kind.copy = compile("return function(d, at) return " .. copy .. " end")
  kind.comparable = make_comparable(columns, first)
  kind.pack, kind.unpack = make_pack(columns, first), make_unpack(columns, first)
  kind.pack_some, kind.some = make_pack_some(kind, columns, first)
  kind.get, kind.set = make_get(kind, copy), make_set(kind, lines, locals)
  return kind
end

return { make_kind = make_kind, compile = compile, is_earlier = is_earlier }
