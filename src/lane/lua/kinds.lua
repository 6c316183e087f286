-- What is compiled for each kind of entity: how its rows are kept, read, written, packed and unpacked.
--
-- A row is some cells that lie side by side in a list, a *segment*, many rows to one: so a warm row is a line or two of
-- memory away, and the collector passes over a list instead of over many tables. First come the columns in order: a
-- numeric takes two cells (its limbs, or false and its text where they do not suffice), a boolean is 1 or 0, null is false.
-- Then the row's id (false once the row is gone), the event that wrote it, the batch that changed it last (negated if the
-- row was not there before that batch, as far as is known here; 0 if no batch of this run did) and, where history is kept, the
-- block that did. A *place* is the number of the segment, shifted, and that of the row's first cell.

local prelude = ...
local raise, describe, name_text, host, numbers = prelude.raise, prelude.describe, prelude.name_text, prelude.host, prelude.numbers
local S, has_history, decode, clean = prelude.state, prelude.has_history, prelude.decode, prelude.clean
-- Fields of a handle: as in `prelude.lua`, which says what they are.
local YOUNG <const>, OLD <const>, WHOLE <const>, SEGMENTS <const>, COUNTS <const>, INDEXES <const> = 1, 2, 6, 10, 12, 13
local GONE <const>, ROWS <const>, FILTERED <const> = 16, 18, 19
local SHIFT <const>, MASK <const>, SEGMENT_CELLS <const> = 16, 0xffff, 4096
local GROUP <const> = 32 -- columns that share a mask of nulls
local PACKED_TOGETHER <const>, PACKED_VALUES_MAX <const> = 8, 120 -- rows and values at most that are packed in one call
local LOCALS_MAX <const> = 60 -- cells of a row that are checked in locals; more would not compile

local rawmeta, setmeta, type, next, mtype, tointeger, tonumber, tostring = getmetatable, setmetatable, type, next, math.type, math.tointeger, tonumber, tostring
local spack, sunpack, find, format, concat, move = string.pack, string.unpack, string.find, string.format, table.concat, table.move
local utf8_len, load, min, max = utf8.len, load, math.min, math.max
local numeric_meta, parse_number, from_limbs = numbers.meta, numbers.parse, numbers.from_limbs

------------------------------------------------------------------------------------------- what a column does not take

local function refuse(column, expected, value, problem)
  raise(format("%s: expected %s, got %s%s", column, expected, describe(value), problem and " (" .. problem .. ")" or ""))
end

-- Slow paths of `set`: what is not yet of the column's form is brought to it, or refused.
local function to_bigint(value, column)
  local number
  if mtype(value) == "float" then
    if value >= -2^53 and value <= 2^53 then number = tointeger(value) end
  elseif type(value) == "string" or rawmeta(value) == numeric_meta then
    number = host.integer(tostring(value))
  end
  return number or refuse(column, "a bigint (an integer of 64 bits)", value)
end

local function to_double(value, column)
  if mtype(value) == "integer" then return value + 0.0 end
  if rawmeta(value) == numeric_meta then
    local number = tonumber(tostring(value)) + 0.0
    if number - number == 0 then return number end
    refuse(column, "a double", value, "no double comes near it")
  end
  return refuse(column, "a double (a number that is not NaN)", value)
end

local function to_numeric(value, column)
  local number, problem = parse_number(value)
  if not number then refuse(column, "a numeric", value, problem) end
  problem = number[1] == false and host.numeric_fits(number[2])
  if problem then refuse(column, "a numeric", "a longer number", problem) end
  return number
end

local function to_text(value, column)
  if type(value) ~= "string" then
    refuse(column, "text", value, (type(value) == "number" or rawmeta(value) == numeric_meta) and "tostring(…) makes one" or nil)
  end
  if not utf8_len(value) then refuse(column, "text", value, "it is not UTF-8; a bytes column takes any bytes") end
  if find(value, "\0", 1, true) then refuse(column, "text", value, "it holds a NUL, which no database keeps") end
  return value
end

local function to_boolean(value, column)
  return refuse(column, "a boolean", value)
end

local function to_bytes(value, column)
  return refuse(column, "bytes (a string)", value)
end

local times, times_count = {}, 0
local function to_time(value, column)
  if type(value) ~= "string" then refuse(column, "a timestamptz such as \"2018-01-31T01:49:59.650Z\"", value) end
  local known = times[value]
  if known then return known end
  local time = host.time(value)
  if not time then refuse(column, "a timestamptz such as \"2018-01-31T01:49:59.650Z\"", value) end
  if times_count >= 4096 then times, times_count = {}, 0 end
  times[value], times_count = time, times_count + 1
  return time
end

local function to_json(value, column)
  local text, problem = host.encode(value)
  if not text then raise(column .. ": " .. problem) end
  return text
end

--------------------------------------------------------------------------------------------------------------- cells

-- The first cell of each column and how many there are.
local function lay_out(columns)
  local first, cells = {}, 0
  for at, column in ipairs(columns) do
    first[at] = cells
    cells = cells + (column.type == "numeric" and 2 or 1)
  end
  return first, cells
end

-- How cell `offset` of the row at `at` in the list `d` is written in a compiled function.
local function cell(offset)
  return offset == 0 and "d[at]" or format("d[at + %d]", offset)
end

-- Checks `v`, which is not nil, and brings it to the column's form.
local CHECK <const> = {
  bigint = "if mtype(v) ~= 'integer' then v = to_bigint(v, %q) end",
  double = "if mtype(v) == 'float' and v == v then v = v + 0.0 else v = to_double(v, %q) end",
  numeric = "if rawmeta(v) ~= numeric_meta or v[1] == false then v = to_numeric(v, %q) end",
  text = "if not clean[v] then v = to_text(v, %q) end",
  boolean = "if type(v) ~= 'boolean' then to_boolean(v, %q) end v = v and 1 or 0",
  bytes = "if type(v) ~= 'string' then v = to_bytes(v, %q) end",
  timestamptz = "v = to_time(v, %q)",
  jsonb = "v = to_json(v, %q)",
}

-- The lines that check the table `row` into locals c0, c1, ..., and what they are called; of a wide kind, into the list
-- `scratch`, and nothing.
local function check_lines(kind, columns, first, cells)
  local lines, names = {}, {}
  local is_wide = cells > LOCALS_MAX
  for offset = 0, cells - 1 do names[offset + 1] = "c" .. offset end
  if cells > 0 and not is_wide then lines[1] = "local v, " .. concat(names, ", ") else lines[1] = "local v" end
  local function target(offset) return is_wide and format("scratch[%d]", offset + 1) or "c" .. offset end
  for at, column in ipairs(columns) do
    local check = format(CHECK[column.type], kind .. "." .. column.name)
    local offset, nulls, values = first[at], "false", "v"
    local targets = target(offset)
    if column.type == "numeric" then
      targets, nulls, values = targets .. ", " .. target(offset + 1), "false, false", "v[1], v[2]"
    end
    lines[#lines + 1] = format("v = row[%q] if v == nil then %s = %s else %s %s = %s end", column.name, targets, nulls, check, targets, values)
  end
  return concat(lines, " "), not is_wide and names or nil
end

-- Puts the checked cells into the list `d`.
local function keep_lines(names, cells)
  if not names then return format("move(scratch, 1, %d, at, d)", cells) end
  -- One after the other: a list that grows from its end stays one.
  local lines = {}
  for offset = 0, cells - 1 do lines[offset + 1] = format("%s = %s", cell(offset), names[offset + 1]) end
  return concat(lines, " ")
end

local LIBRARY <const> = "local mtype, type, next, rawmeta, setmeta, move, scratch, numeric_meta, to_bigint, to_double, to_numeric, to_text, to_boolean, to_bytes, to_time, to_json, S, own, clean = ... "
local function compile(source, own)
  local chunk, problem = load(LIBRARY .. source, "=kind", "t")
  if not chunk then error(problem) end
  return chunk(mtype, type, next, rawmeta, setmeta, move, {}, numeric_meta, to_bigint, to_double, to_numeric, to_text, to_boolean,
    to_bytes, to_time, to_json, S, own, clean)
end

-- `read(row, d, at)`: checks the table that a script gave, and then keeps it as cells.
local function make_read(lines, names, cells)
  return compile(format("return function(row, d, at) %s %s end", lines, keep_lines(names, cells)))
end

-- A number whose limbs do not suffice, or null.
local function spilled(text)
  return text and setmeta({ false, text }, numeric_meta) or nil
end

local function from_json(text)
  if text then return decode(text) end
  return nil
end

-- What a column is in a script.
local function value_text(column, offset)
  local v = cell(offset)
  if column.type == "numeric" then
    return format("%s and setmeta({ %s, %s }, numeric_meta) or own.spilled(%s)", v, v, cell(offset + 1), cell(offset + 1))
  elseif column.type == "boolean" then
    return format("(%s or nil) and %s == 1", v, v)
  elseif column.type == "jsonb" then
    return format("own.from_json(%s)", v)
  end
  return v .. " or nil"
end

-- The table that a script gets: its own copy.
local function copy_text(columns, first)
  local fields = {}
  for at, column in ipairs(columns) do fields[at] = format("[%q] = %s", column.name, value_text(column, first[at])) end
  return "{" .. concat(fields, ", ") .. "}"
end

-------------------------------------------------------------------------------------------------- what scripts call

local function make_get(columns, first, own)
  return compile(format([[
    local inner_of, slow_get, no_entity = own.inner_of, own.slow_get, own.no_entity
    return function(entity, id)
      local handle = inner_of[entity] or no_entity("get")
      local at = handle[%d][id]
      if not at or S[1] == 2 then return slow_get(handle, id) end
      local d = handle[%d][at >> %d]
      at = at & %d
      return %s
    end]], YOUNG, SEGMENTS, SHIFT, MASK, copy_text(columns, first)), own)
end

-- The row is here, or known not to be, and nothing is kept in order beside it; the rest is left to the slow path.
local function make_set(lines, names, cells, own)
  local note_row, note_absent, block = "", "", ""
  if has_history then
    note_row = format("if %s ~= S[4] then own.note_row(handle, id, d, at) end", cell(cells + 3))
    note_absent = "own.note_new(handle, id, place)"
    block = format("%s = S[4]", cell(cells + 3))
  end
  return compile(format([[
    local inner_of, slow_set, no_entity, no_row, odd_column, known, mark, new_place, is_key =
      own.inner_of, own.slow_set, own.no_entity, own.no_row, own.odd_column, own.known, own.mark, own.new_place, own.is_key
    return function(entity, id, row)
      local handle = inner_of[entity] or no_entity("set")
      local place = handle[%d][id]
      if S[1] ~= 1 or handle[%d] or handle[%d] then return slow_set(handle, id, row) end
      if place == nil and (not (handle[%d] or handle[%d]) or handle[%d][id] ~= nil or not is_key(id)) then
        return slow_set(handle, id, row)
      end
      if type(row) ~= "table" then no_row(handle, row) end
      for name in next, row do
        if not known[name] then odd_column(handle, id, row, name) end
      end
      %s
      local batch, d, at = S[2], nil, nil
      if place then
        d, at = handle[%d][place >> %d], place & %d
        local changed = %s
        if changed ~= batch and changed ~= -batch then
          mark(handle, id, place)
          %s = batch
        end
        %s
        %s
      else
        %s
        place = new_place(handle)
        d, at = handle[%d][place >> %d], place & %d
        %s
        %s = id
        %s = 0
        %s = handle[%d][id] and batch or -batch
        handle[%d][id] = place
        handle[%d] = handle[%d] + 1
        mark(handle, id, place)
      end
      %s = S[3]
      %s
    end]], YOUNG, INDEXES, COUNTS, WHOLE, FILTERED, OLD, lines, SEGMENTS, SHIFT, MASK, cell(cells + 2), cell(cells + 2), note_row,
    keep_lines(names, cells), note_absent, SEGMENTS, SHIFT, MASK, keep_lines(names, cells), cell(cells), cell(cells + 1),
    cell(cells + 2), GONE, YOUNG, ROWS, ROWS, cell(cells + 1), block), own)
end

------------------------------------------------------------------------------------------------- across the border

local ROW_FORMATS <const> = {
  bigint = "i8", double = "d", numeric = "i8i8s4", text = "s4", boolean = "B", bytes = "s4", timestamptz = "s4", jsonb = "s4",
}
local ZEROS <const> = { bigint = "0", double = "0.0", boolean = "0", text = "''", bytes = "''", timestamptz = "''", jsonb = "''" }

local function group_of(columns, start)
  local group = {}
  for at = start, min(start + GROUP - 1, #columns) do group[#group + 1] = { at = at, type = columns[at].type } end
  return group
end

-- The lines that bring a group of columns of the row at `at` in the list `d` into locals, with the mask of nulls; the
-- format, and the locals in its order. `tag` tells the locals of several rows apart.
local function pack_lines(group, first, tag)
  local lines, form, values = { "local m" .. tag .. " = 0" }, "I4", { "m" .. tag }
  for bit, column in ipairs(group) do
    local offset, mask, a = first[column.at], 1 << (bit - 1), "a" .. bit .. tag
    form = form .. ROW_FORMATS[column.type]
    values[#values + 1] = a
    if column.type == "numeric" then
      local b, t = "b" .. bit .. tag, "t" .. bit .. tag
      lines[#lines + 1] = format("local %s, %s, %s = %s, %s, '' if not %s then %s, %s = 0, %s or '' if not %s then m%s = m%s | %d end %s = 0 end",
        a, b, t, cell(offset), cell(offset + 1), a, a, t, b, b, tag, tag, mask, b)
      values[#values + 1], values[#values + 2] = b, t
    else
      lines[#lines + 1] = format("local %s = %s if not %s then m%s = m%s | %d %s = %s end", a, cell(offset), a, tag, tag, mask, a, ZEROS[column.type])
    end
  end
  return concat(lines, " "), form, values
end

-- `pack(id, change, writer, d, at)`: the row in packed form.
local function make_pack(columns, first)
  local body, packs = {}, {}
  for start = 1, #columns, GROUP do
    local lines, form, values = pack_lines(group_of(columns, start), first, "")
    local head = start == 1 and "s4Bi8" or ""
    local head_values = start == 1 and "id, change, writer, " or ""
    body[#body + 1] = format("local p%d do %s p%d = spack(%q, %s%s) end", start, lines, start, "<" .. head .. form, head_values, concat(values, ", "))
    packs[#packs + 1] = "p" .. start
  end
  local result = #packs > 0 and concat(packs, " .. ") or "spack('<s4Bi8', id, change, writer)"
  return compile("local spack = own return function(id, change, writer, d, at) " .. concat(body, " ") .. " return " .. result .. " end", spack)
end

-- `pack_some(segments, places, from, batch)`: the rows of the `some` places from there on, in packed form; nil if one of
-- them is gone. To pack many in one call costs half. Nothing for kinds that are too wide for it.
local function make_pack_some(columns, first, cells)
  if #columns == 0 or #columns > GROUP then return nil, 0 end
  local _, _, values = pack_lines(group_of(columns, 1), first, "")
  local some = min(PACKED_TOGETHER, PACKED_VALUES_MAX // (#values + 3))
  if some < 2 then return nil, 0 end
  local lines, forms, all = {}, {}, {}
  for row = 1, some do
    local tag = "_" .. row
    local row_lines, form, row_values = pack_lines(group_of(columns, 1), first, tag)
    lines[row] = format("place = places[from + %d] d, at = segments[place >> %d], place & %d local i%s, c%s, w%s = %s, %s == new and 2 or 1, %s if not i%s then return nil end %s",
      row - 1, SHIFT, MASK, tag, tag, tag, cell(cells), cell(cells + 2), cell(cells + 1), tag, row_lines)
    forms[row] = "s4Bi8" .. form
    all[row] = format("i%s, c%s, w%s, %s", tag, tag, tag, concat(row_values, ", "))
  end
  local source = format("local spack = own return function(segments, places, from, batch) local place, d, at local new = -batch %s return spack(%q, %s) end",
    concat(lines, " "), "<" .. concat(forms), concat(all, ", "))
  return compile(source, spack), some
end

-- `unpack(packed, from, d, at)`: takes a packed row in as cells; returns its id and where the next one begins.
local function make_unpack(columns, first)
  local body = { "local id, _ id, _, _, from = sunpack('<s4Bi8', packed, from)" }
  for start = 1, #columns, GROUP do
    local form, names, code = "", {}, {}
    for bit, column in ipairs(group_of(columns, start)) do
      local offset = first[column.at]
      form = form .. ROW_FORMATS[column.type]
      names[#names + 1] = "a" .. bit
      if column.type == "numeric" then
        names[#names + 1], names[#names + 2] = "b" .. bit, "t" .. bit
        code[#code + 1] = format("if m & %d ~= 0 then a%d, b%d = false, false else a%d, b%d = limbs(a%d, b%d, t%d) end %s, %s = a%d, b%d",
          1 << (bit - 1), bit, bit, bit, bit, bit, bit, bit, cell(offset), cell(offset + 1), bit, bit)
      else
        code[#code + 1] = format("if m & %d ~= 0 then a%d = false end %s = a%d", 1 << (bit - 1), bit, cell(offset), bit)
      end
    end
    body[#body + 1] = format("do local m, %s m, %s, from = sunpack(%q, packed, from) %s end", concat(names, ", "), concat(names, ", "),
      "<I4" .. form, concat(code, " "))
  end
  local function limbs(high, low, text)
    local number = from_limbs(high, low, text)
    return number[1], number[2]
  end
  local source = "local sunpack, limbs = own[1], own[2] return function(packed, from, d, at) " .. concat(body, " ") .. " return id, from end"
  return compile(source, { sunpack, limbs })
end

----------------------------------------------------------------------------------------------------------- the kind

-- A value as it is compared. Of a time without its Z, the shorter text is the earlier time; years before 0 count
-- backwards. False is less than true.
local function make_comparable(columns, first)
  return function(place, d, at)
    local offset, kind = at + first[place], columns[place].type
    local value = d[offset]
    if kind == "numeric" then
      if value then return setmeta({ value, d[offset + 1] }, numeric_meta) end
      return spilled(d[offset + 1])
    end
    if not value then return nil end
    if kind == "timestamptz" then
      if value:byte() ~= 45 then return value:sub(1, -2) end
      return format("-%06d%s", 1000000 - tonumber(value:sub(2, 7)), value:sub(8, -2))
    end
    return value
  end
end

-- Describes a kind. `own` is what its functions call.
return function(number, given, own)
  local columns = given.columns
  local first, cells = lay_out(columns)
  local names, known, indexed = {}, {}, {}
  for at, column in ipairs(columns) do
    names[at] = column.name
    known[column.name] = true
    if column.indexed then indexed[column.name] = at end
  end
  local lines, locals = check_lines(given.name, columns, first, cells)
  own.known, own.inner_of, own.spilled, own.from_json = known, {}, spilled, from_json
  local width = cells + (has_history and 4 or 3)
  local texts = {} -- cells that may hold what the collector frees
  for at, column in ipairs(columns) do
    if column.type ~= "bigint" and column.type ~= "double" and column.type ~= "boolean" then
      texts[#texts + 1] = first[at] + (column.type == "numeric" and 1 or 0)
    end
  end
  local pack_some, some = make_pack_some(columns, first, cells)
  return {
    pack_some = pack_some, some = some,
    number = number, name = given.name, names = names, known = known, indexed = indexed, inner_of = own.inner_of,
    cells = cells, width = width, id_at = cells, writer_at = cells + 1, batch_at = cells + 2, block_at = cells + 3, texts = texts,
    rows_max = max(SEGMENT_CELLS // width, 1),
    read = make_read(lines, locals, cells),
    copy = compile("return function(d, at) return " .. copy_text(columns, first) .. " end", own),
    comparable = make_comparable(columns, first),
    pack = make_pack(columns, first), unpack = make_unpack(columns, first),
    get = make_get(columns, first, own), set = make_set(lines, locals, cells, own),
  }
end
