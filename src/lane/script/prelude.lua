-- The inner side of the border between the host and a script.
--
-- Rows live here as long as they are warm, as arrays in the order of their columns. A row that changed in a batch that
-- is not committed is always here, so what is here, and after it what is committed, is the truth: a read never waits
-- for a commit. Events come in packed, many at a time; what a batch changed goes out packed, once, at its end.
--
-- When a handler asks for a row that is not here, its coroutine is parked, the events behind it are run dry to learn
-- what they will ask for, and the host is told all of it at once.

local host, kinds_given, script_source, numeric_source, sandbox_source, find_source, script_name = ...

local rawmeta, setmeta, rawset, rawequal, type, next = getmetatable, setmetatable, rawset, rawequal, type, next
local mtype, tointeger, error, pcall, tostring, tonumber = math.type, math.tointeger, error, pcall, tostring, tonumber
local spack, sunpack, find, format, concat = string.pack, string.unpack, string.find, string.format, table.concat
local utf8_len, sort, unpack = utf8.len, table.sort, table.unpack
local move = table.move
local co_create, co_resume, co_yield, co_yieldable, co_status =
  coroutine.create, coroutine.resume, coroutine.yield, coroutine.isyieldable, coroutine.status
local load = load
local tick = host.tick
local has_history <const> = host.history_depth > 0

local chunk_name <const> = "@" .. script_name -- as host.place() looks for it

-- Raises an error at the place in the script that is to blame.
local function raise(message)
  error(host.place() .. message, 0)
end

-- The metatable of a value. What `getmetatable` gives may be anything: its `__metatable` field.
local function metatable_of(value)
  local meta = rawmeta(value)
  return type(meta) == "table" and meta or nil
end

-- A name that is not known, as a message shows it.
local function name_text(name)
  return type(name) == "string" and format("%q", name) or "a " .. type(name)
end

local numbers = load(numeric_source, "=numeric", "t")(host, raise)
local numeric_meta, parse_number, limbs, from_limbs = numbers.meta, numbers.parse, numbers.limbs, numbers.from_limbs

local function decode(json)
  local value, problem = host.decode(json)
  if problem then raise(problem) end
  return value
end

local array_meta = { __name = "array" }
local function array(tab)
  if type(tab) ~= "table" or (rawmeta(tab) ~= nil and rawmeta(tab) ~= array_meta) then raise("array: expected a plain table") end
  return setmeta(tab, array_meta)
end

---------------------------------------------------------------------------------------------------- state of the run

local RUN <const>, DRY <const>, SNAPSHOT <const> = 1, 2, 3
local mode = RUN
local batch, committed = 1, 0
local regions = {}
local touched, touched_count = {}, 0
local DRY_END = {} -- what ends a dry run at a row that is not here

-- `ctx.<entity>` of one region is an empty table; what is behind it is out of a script's reach.
local inner_of = {}
-- The fields of what is behind it, which is called a handle here.
local YOUNG <const>, OLD <const>, CHANGED <const>, DIRTY <const>, DIRTY_COUNT <const> = 1, 2, 3, 4, 5
local WHOLE <const>, KIND <const>, REGION <const>, TRIED <const>, NEW <const> = 6, 7, 8, 9, 10
local COUNTS <const>, INDEXES <const> = 12, 13 -- of `find.lua`
-- YOUNG, OLD: id -> row, or false for a row that is known not to be. CHANGED: id -> the batch that changed it last.
-- WHOLE: every row of the table is here. TRIED: the host was asked for the whole table. NEW: ids that are known not to
-- have been there before the open batch.

-- The event that is being handled, as a number: its file and line. A row carries it behind its columns.
local writer = 0

---------------------------------------------------------------------------------------------------------- the events

local event_meta = { __name = "event" }
local current_event
local hot = {} -- the fields that come with each event; the others are fetched when a handler asks

-- Fields that an event did not bring along and that were fetched: one that is nil now was removed by the handler.
local fetched = setmeta({}, { __mode = "k" })

local function note_fetched(event, key)
  local keys = fetched[event]
  if not keys then
    keys = {}
    fetched[event] = keys
  end
  keys[key] = true
end

local function fetch_field(event, key)
  if not rawequal(event, current_event) then raise("an event can be read only while it is handled") end
  if type(key) ~= "string" then return nil end
  -- The host notes what it cannot read, and ends the run for it unless this is a dry run.
  local value, problem = host.field(key, mode ~= DRY)
  if problem then raise("event." .. key .. ": " .. problem) end
  if value ~= nil then rawset(event, key, value) end
  note_fetched(event, key)
  return value
end

function event_meta.__index(event, key)
  if hot[key] and rawequal(event, current_event) then return nil end
  local keys = fetched[event]
  if keys and keys[key] and rawequal(event, current_event) then return nil end
  return fetch_field(event, key)
end

-- A handler may keep notes in its event; a field that it removes before it was ever read is removed too.
function event_meta.__newindex(event, key, value)
  if value == nil then note_fetched(event, key) else rawset(event, key, value) end
end

-- An event of which a hot field did not come along, because it cannot be read: whoever asks for it is told.
local spoiled_meta = { __name = "event", __index = fetch_field, __newindex = event_meta.__newindex }
local is_spoiled = false

-- A nested value of an event; one that cannot be read spoils the event.
local function decode_field(json)
  local value, problem = host.decode(json)
  if problem then is_spoiled = true end
  return value
end

local function is_event(meta)
  return meta ~= nil and (meta == event_meta or meta == spoiled_meta)
end

local function finish_event(event)
  if is_spoiled then
    is_spoiled = false
    return setmeta(event, spoiled_meta)
  end
  return event
end

-- Makes all fields of an event plain ones.
local function open_event(event)
  if not rawequal(event, current_event) then raise("an event can be read only while it is handled") end
  local fields, problem = host.all_fields(mode ~= DRY)
  if problem then raise("event: " .. problem) end
  local keys = fetched[event] or {}
  setmeta(event, nil)
  for key, value in next, fields do
    -- What came along and is nil now was removed.
    if event[key] == nil and not hot[key] and not keys[key] then event[key] = value end
  end
  return event
end

-- Texts that occur again and again cross once and are named by a number.
local texts = {}
local shapes = {}

local FIELD_FORMATS <const> = { i = "i8", d = "d", s = "s4", r = "I4", N = "s4", j = "s4", t = "", f = "", n = "", x = "" }
local FIELD_VALUES <const> = {
  i = "%s", d = "%s", s = "%s", r = "texts[%s]", N = "canonical(%s)", j = "decode(%s)", t = "true", f = "false",
}

-- Makes the reader of the events whose fields have these kinds, one letter a field.
local function define_shape(number, names, field_kinds)
  local format_parts, locals, fields = {}, {}, {}
  for at, name in ipairs(names) do
    local kind = field_kinds:sub(at, at)
    local slot = "v" .. at
    if FIELD_FORMATS[kind] ~= "" then
      format_parts[#format_parts + 1] = FIELD_FORMATS[kind]
      locals[#locals + 1] = slot
    end
    if kind == "x" then locals.spoiled = true end
    if kind ~= "n" and kind ~= "x" then fields[#fields + 1] = format("[%q] = " .. FIELD_VALUES[kind], name, slot) end
  end
  locals[#locals + 1] = "at"
  local meta = locals.spoiled and spoiled_meta or event_meta
  local finish = field_kinds:find("j", 1, true) and finish_event or nil
  local result = finish and "finish(setmeta({%s}, meta))" or "setmeta({%s}, meta)"
  local source = format(
    "local unpack, setmeta, meta, texts, canonical, decode, finish = ... return function(packed, at) local %s = unpack(%q, packed, at) return " .. result .. ", at end",
    concat(locals, ", "), "<" .. concat(format_parts), concat(fields, ", ")
  )
  source = source:gsub("local at = unpack%(\"<\", packed, at%)", "")
  shapes[number] = load(source, "=shape", "t")(sunpack, setmeta, meta, texts, numbers.canonical, decode_field, finish)
end

-- Events with a rare mix of kinds bring their kinds along.
local hot_names = {}
shapes[0] = function(packed, at)
  local event, meta = {}, event_meta
  for place = 1, #hot_names do
    local kind
    kind, at = sunpack("c1", packed, at)
    local value
    if kind == "t" then value = true
    elseif kind == "f" then value = false
    elseif kind == "x" then meta = spoiled_meta
    elseif kind ~= "n" then
      value, at = sunpack("<" .. FIELD_FORMATS[kind], packed, at)
      if kind == "r" then value = texts[value]
      elseif kind == "N" then value = numbers.canonical(value)
      elseif kind == "j" then value = decode_field(value) end
    end
    event[hot_names[place]] = value
  end
  return finish_event(setmeta(event, meta)), at
end

local function define_hot(names)
  hot, hot_names = {}, names
  for _, name in ipairs(names) do hot[name] = true end
  for number in next, shapes do
    if number ~= 0 then shapes[number] = nil end
  end
end

local function define_texts(packed, first)
  if first == 1 then
    for at in next, texts do texts[at] = nil end
  end
  local at = 1
  while at <= #packed do
    texts[first], at = sunpack("<s4", packed, at)
    first = first + 1
  end
end

------------------------------------------------------------------------------------------------------------ the rows

local function describe(value)
  local kind = type(value)
  if kind == "string" then return format("the text %q", #value > 40 and value:sub(1, 40) .. "…" or value) end
  if kind == "number" or kind == "boolean" then return format("%s %s", mtype(value) or kind, tostring(value)) end
  if rawmeta(value) == numeric_meta then return "the number " .. tostring(value) end
  return "a " .. kind
end

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
  local time, problem = host.time(value)
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

local COERCE <const> = {
  bigint = "if mtype(v) ~= 'integer' then v = to_bigint(v, %q) end",
  double = "if mtype(v) == 'float' and v == v then v = v + 0.0 else v = to_double(v, %q) end",
  numeric = "if rawmeta(v) ~= numeric_meta or v[1] == false then v = to_numeric(v, %q) end",
  text = "v = to_text(v, %q)",
  boolean = "if type(v) ~= 'boolean' then v = to_boolean(v, %q) end",
  bytes = "if type(v) ~= 'string' then v = to_bytes(v, %q) end",
  timestamptz = "v = times(v) or to_time(v, %q)",
  jsonb = "v = to_json(v, %q)",
}
local ROW_FORMATS <const> = {
  bigint = "i8", double = "d", numeric = "i8i8s4", text = "s4", boolean = "B", bytes = "s4", timestamptz = "s4", jsonb = "s4",
}
local ZEROS <const> = { bigint = "0", double = "0.0", text = "''", bytes = "''", timestamptz = "''", jsonb = "''" }
local GROUP <const> = 32 -- columns that share a mask of nulls

local function compile(source, ...)
  return load(source, "=kind", "t")(...)
end

-- What `get` returns: the handler's own copy, with names.
local function make_copy(columns)
  local fields = {}
  for at, column in ipairs(columns) do
    local value = format(column.type == "jsonb" and "r[%d] and decode(r[%d])" or "r[%d]", at, at)
    fields[at] = format("[%q] = %s", column.name, value)
  end
  return compile(format("local decode = ... return function(r) return {%s} end", concat(fields, ", ")), decode)
end

-- What `set` keeps: checked, in the order of the columns, then the event that wrote it.
local function make_check(entity, columns)
  -- The block only where history is kept: so that it is seen that a row has changed in the same block already.
  local parts = { "local n, v = {" .. ("nil, "):rep(#columns) .. (has_history and "writer, block}" or "writer}") }
  for at, column in ipairs(columns) do
    local coerce = format(COERCE[column.type], entity .. "." .. column.name)
    parts[#parts + 1] = format("v = row[%q] if v ~= nil then %s n[%d] = v end", column.name, coerce, at)
  end
  local source = "local mtype, type, rawmeta, numeric_meta, times, to_bigint, to_double, to_numeric, to_text, to_boolean, to_bytes, to_time, to_json = ... return function(row, writer, block) "
    .. concat(parts, " ") .. " return n end"
  return compile(source, mtype, type, rawmeta, numeric_meta, function(v) return times[v] end, to_bigint, to_double,
    to_numeric, to_text, to_boolean, to_bytes, to_time, to_json)
end

local function group_of(columns, first)
  local group = {}
  for at = first, math.min(first + GROUP - 1, #columns) do group[#group + 1] = { at = at, type = columns[at].type } end
  return group
end

local function make_pack(columns)
  local body, packs = {}, {}
  for first = 1, math.max(#columns, 1), GROUP do
    local group = group_of(columns, first)
    local form, values, code = "", {}, {}
    for bit, column in ipairs(group) do
      local value = format("r[%d]", column.at)
      form = form .. ROW_FORMATS[column.type]
      code[#code + 1] = format("if %s == nil then m = m | %d end", value, 1 << (bit - 1))
      if column.type == "numeric" then
        code[#code + 1] = format("local a%d, b%d, c%d = limbs(%s)", bit, bit, bit, value)
        values[#values + 1] = format("a%d, b%d, c%d", bit, bit, bit)
      elseif column.type == "boolean" then
        values[#values + 1] = value .. " and 1 or 0"
      else
        values[#values + 1] = value .. " or " .. ZEROS[column.type]
      end
    end
    local head = first == 1 and "s4Bi8" or ""
    local head_values = first == 1 and format("id, change, r[%d], ", #columns + 1) or ""
    if #group == 0 then
      body[#body + 1] = "do return spack('<s4Bi8', id, change, r[1]) end"
    else
      body[#body + 1] = format("local p%d do local m = 0 %s p%d = spack(%q, %sm, %s) end", first, concat(code, " "), first,
        "<" .. head .. "I4" .. form, head_values, concat(values, ", "))
      packs[#packs + 1] = "p" .. first
    end
  end
  local result = #packs > 0 and " return " .. concat(packs, " .. ") or ""
  return compile("local spack, limbs = ... return function(id, change, r) " .. concat(body, " ") .. result .. " end", spack, limbs)
end

local function make_unpack(columns)
  local body = { "local n = {" .. ("nil, "):rep(#columns) .. "0} local id, _ id, _, _, at = sunpack('<s4Bi8', packed, at)" }
  for first = 1, #columns, GROUP do
    local form, names, code = "", {}, {}
    for bit, column in next, group_of(columns, first) do
      form = form .. ROW_FORMATS[column.type]
      local value = "a" .. bit
      names[#names + 1] = value
      if column.type == "numeric" then
        names[#names + 1], names[#names + 2] = "b" .. bit, "c" .. bit
        value = format("from_limbs(a%d, b%d, c%d)", bit, bit, bit)
      elseif column.type == "boolean" then
        value = value .. " ~= 0"
      end
      code[#code + 1] = format("if m & %d == 0 then n[%d] = %s end", 1 << (bit - 1), column.at, value)
    end
    body[#body + 1] = format("do local m, %s m, %s, at = sunpack(%q, packed, at) %s end", concat(names, ", "), concat(names, ", "),
      "<I4" .. form, concat(code, " "))
  end
  local source = "local sunpack, from_limbs = ... return function(packed, at) " .. concat(body, " ") .. " return id, n, at end"
  return compile(source, sunpack, from_limbs)
end

--------------------------------------------------------------------------------------------------- rows that are missed

local wants, wants_list = {}, {}

local TRY <const> = {} -- the whole table, if it is small

-- Notes what is wanted: the row of an id, the whole table if it is small, or what `find.lua` asks.
local function want(handle, what)
  local wanted = wants[handle]
  if not wanted then
    wanted = { ids = {}, set = {}, asked = {}, questions = {}, has_rows = false }
    wants[handle] = wanted
    wants_list[#wants_list + 1] = handle
  end
  if what == TRY then wanted.has_rows = true
  elseif type(what) == "table" then
    -- The larger page of the same question.
    local known = wanted.asked[what.key]
    if known then
      local limit, more = known.given[7], what.given[7]
      if limit ~= -1 and (more == -1 or more > limit) then known.given[7] = more end
    else
      wanted.asked[what.key] = what
      wanted.questions[#wanted.questions + 1] = what
    end
  elseif not wanted.set[what] then
    wanted.set[what], wanted.has_rows = true, true
    wanted.ids[#wanted.ids + 1] = what
  end
end

-- What was asked of each table and is not answered yet: by number.
local questions, questions_count = {}, 0

local function number_of(handle, question)
  questions_count = questions_count + 1
  questions[questions_count] = { handle, question }
  return questions_count
end

-- Waits until what is wanted is here.
local function need(handle, what)
  if mode == DRY then
    want(handle, what)
    error(DRY_END, 0)
  elseif co_yieldable() then
    co_yield(handle, what)
  elseif what ~= TRY and type(what) == "table" then
    -- Within a comparison of table.sort and the like: one at a time.
    host.ask(number_of(handle, what), unpack(what.given))
  else
    host.load(handle[KIND].number, handle[REGION], what ~= TRY and what or nil, not handle[TRIED])
  end
end

-- The row of an id, or false; whichever generation it is in.
local function lookup(handle, id)
  local row = handle[YOUNG][id]
  if row ~= nil then return row end
  row = handle[OLD][id]
  if row ~= nil then
    handle[YOUNG][id] = row
    handle[OLD][id] = nil
    return row
  end
  if handle[WHOLE] then return false end
  return nil
end

-- The row of an id, or false: waits for it if it is not here.
local function fetch(handle, id)
  local row = lookup(handle, id)
  if row == nil then
    need(handle, id)
    row = lookup(handle, id) or false
  end
  return row
end

-- What the host found for a question.
local answer_found -- of `find.lua`
local function supply_found(number, packed, count, is_complete)
  local handle, question = questions[number][1], questions[number][2]
  questions[number] = nil
  if next(questions) == nil then questions_count = 0 end
  answer_found(handle, question, packed, count, is_complete)
end

-- The rows the host found, of the ids that are given or of the whole table.
local function supply(kind_number, region_number, packed, is_whole, ids)
  local handle = regions[region_number].handles[kind_number]
  local young, old, unpack_row = handle[YOUNG], handle[OLD], handle[KIND].unpack
  local at = 1
  while at <= #packed do
    local id, row
    id, row, at = unpack_row(packed, at)
    if young[id] == nil and old[id] == nil then young[id] = row end
  end
  handle[TRIED] = true
  if is_whole then handle[WHOLE] = true end
  at = 1
  while at <= #ids do
    local id
    id, at = sunpack("<s4", ids, at)
    if young[id] == nil and old[id] == nil then young[id] = false end
  end
end

----------------------------------------------------------------------------------------------------- what scripts call

-- Reads of one call that is run dry at most: it may look for what the parked call has not written yet, for ever.
local DRY_READS_MAX <const> = 10000
local dry_reads = 0

local dry_writes -- handle -> id -> row, of one handler call that is run dry

-- What the current call wrote: handle, id and the row before, again and again. A call that is run dry must not see half
-- of what the parked one does.
local call_writes, call_writes_count = {}, 0

-- Puts the rows before the parked call in the place of those it wrote, or back.
local function swap_call_writes(from, to, step)
  for at = from, to, step do
    local young, id = call_writes[at][YOUNG], call_writes[at + 1]
    young[id], call_writes[at + 2] = call_writes[at + 2], young[id]
  end
end

local function key_of(handle, id, what)
  if mtype(id) == "integer" then return format("%d", id) end
  if type(id) ~= "string" then raise(format("%s:%s: expected an id (text or an integer), got %s", handle[KIND].name, what, describe(id))) end
  if #id > host.id_bytes_max then
    raise(format("%s:%s: an id of %d bytes; expected at most %d, which is what an index takes", handle[KIND].name, what, #id, host.id_bytes_max))
  end
  return to_text(id, handle[KIND].name .. ":" .. what .. ": id")
end

-- A method was called with something that is no entity.
local function no_entity(what)
  raise(what .. ": call it with a colon, as in ctx.entity:" .. what .. "(…)")
end

local function mark(handle, id, before)
  local changed = handle[CHANGED]
  if changed[id] ~= batch then
    changed[id] = batch
    if before == false or (before == nil and handle[WHOLE]) then handle[NEW][id] = true end
    local count = handle[DIRTY_COUNT] + 1
    handle[DIRTY_COUNT] = count
    handle[DIRTY][count] = id
    if count == 1 then
      touched_count = touched_count + 1
      touched[touched_count] = handle
    end
  end
end

-- Keeps what a row was before the current block: see `seal`.
local on_write, needs_before, drop_found -- of `find.lua`
local UNKNOWN <const> = {} -- it is not here; what is committed decides
local logged = {} -- regions of which something is kept
local region -- the one that is being handled

local function note_before(handle, id, before)
  local block = region.fields.block
  if before == nil then
    before = UNKNOWN
    if handle[WHOLE] then before = false end
  elseif before and before[handle[KIND].block_at] == block then return end
  local undo, at = region.undo, region.undo_count
  if at == 0 then logged[#logged + 1] = region end
  undo[at + 1], undo[at + 2], undo[at + 3], undo[at + 4] = block, handle, id, before
  region.undo_count = at + 4
end

-- Lets go of what lies too far back to be rolled back, now that `block` has come.
local function prune_undo(block)
  local undo, count, oldest = region.undo, region.undo_count, block - host.history_depth
  if count == 0 or oldest > block or undo[1] > oldest then return end
  local from = 1
  while from <= count and undo[from] <= oldest do from = from + 4 end
  -- Moving costs as much as what stays, so it waits until that is less than what goes.
  if from - 1 < count // 2 then return end
  local kept = count - from + 1
  move(undo, from, count, 1)
  for at = count, kept + 1, -1 do undo[at] = nil end
  region.undo_count = kept
end

local function write(handle, id, row)
  if mode == RUN then
    local young, count = handle[YOUNG], call_writes_count
    local before = young[id]
    if before == nil then before = handle[OLD][id] end
    if before == nil and needs_before(handle) then
      before = fetch(handle, id)
      young, count = handle[YOUNG], call_writes_count
    end
    if handle[INDEXES] or handle[COUNTS] then on_write(handle, id, before, row) end
    call_writes[count + 1], call_writes[count + 2], call_writes[count + 3] = handle, id, before
    call_writes_count = count + 3
    if has_history then note_before(handle, id, before) end
    young[id] = row
    return mark(handle, id, before)
  end
  if mode == SNAPSHOT then raise("on_snapshot may read, and not write") end
  if needs_before(handle) then fetch(handle, id) end
  local writes = dry_writes[handle]
  if not writes then
    writes = {}
    dry_writes[handle] = writes
  end
  writes[id] = row
end

local methods = {}

function methods.get(entity, id)
  local handle = inner_of[entity] or no_entity("get")
  local young = handle[YOUNG]
  if young[id] == nil then id = key_of(handle, id, "get") end
  if mode == DRY then
    dry_reads = dry_reads + 1
    if dry_reads > DRY_READS_MAX then error(DRY_END, 0) end
    local writes = dry_writes[handle]
    local row = writes and writes[id]
    if row == nil then row = fetch(handle, id) end
    return row and handle[KIND].copy(row) or nil
  end
  local row = young[id]
  if row == nil then row = fetch(handle, id) end
  if row then return handle[KIND].copy(row) end
  return nil
end

function methods.set(entity, id, row)
  local handle = inner_of[entity] or no_entity("set")
  local kind = handle[KIND]
  if handle[YOUNG][id] == nil then id = key_of(handle, id, "set") end
  if type(row) ~= "table" then raise(format("%s:set: expected a table of columns, got %s", kind.name, describe(row))) end
  for name in next, row do
    -- A row of `find` carries its id; it may come back with it.
    if not kind.known[name] and not (name == "id" and row.id == id) then
      raise(format("%s:set: there is no column %s%s", kind.name, name_text(name), host.nearest(tostring(name), kind.names)))
    end
  end
  return write(handle, id, kind.check(row, writer, has_history and mode == RUN and region.fields.block or 0))
end

function methods.delete(entity, id)
  local handle = inner_of[entity] or no_entity("delete")
  return write(handle, key_of(handle, id, "delete"), false)
end

-- A call that is run dry sees what it wrote itself only by id: what it would find is not told to it.
local function begin_read(handle)
  if mode ~= DRY then return end
  dry_reads = dry_reads + 1
  if dry_writes[handle] or dry_reads > DRY_READS_MAX then error(DRY_END, 0) end
end

local search = load(find_source, "=find", "t")({
  begin_read = begin_read,
  raise = raise, describe = describe, name_text = name_text, host = host, array = array, inner_of = inner_of,
  fields = { YOUNG, OLD, CHANGED, WHOLE, KIND, REGION, TRIED }, TRY = TRY, need = need, no_entity = no_entity,
  is_dry = function() return mode == DRY end, end_dry = function() error(DRY_END, 0) end,
})
methods.find, methods.count = search.methods.find, search.methods.count
on_write, needs_before, drop_found, answer_found = search.on_write, search.needs_before, search.drop, search.supply

local kinds = {}
for number, given in ipairs(kinds_given) do
  local names, known, is_indexed, is_time = {}, {}, {}, {}
  for at, column in ipairs(given.columns) do
    names[at] = column.name
    known[column.name] = true
    is_time[at] = column.type == "timestamptz"
    if column.indexed then is_indexed[column.name] = at end
  end
  kinds[number] = {
    number = number, block_at = #given.columns + 2, name = given.name, names = names, known = known, indexed = is_indexed, is_time = is_time,
    copy = make_copy(given.columns), check = make_check(given.name, given.columns),
    pack = make_pack(given.columns), unpack = make_unpack(given.columns),
  }
end

-- Metatables that are out of a script's reach.
local hidden = setmeta({}, { __mode = "k" })

local handle_meta = {
  __index = methods,
  __newindex = function(_, key) raise("ctx entities are read-only (" .. tostring(key) .. "); use set") end,
}
local function unknown_field(_, key)
  local names = { "region", "block" }
  for _, kind in ipairs(kinds) do names[#names + 1] = kind.name end
  raise("ctx has no " .. name_text(key) .. host.nearest(tostring(key), names) .. "; it has " .. concat(names, ", "))
end
local fields_meta = { __index = unknown_field }
for _, meta in ipairs{ event_meta, spoiled_meta, array_meta, numeric_meta, handle_meta } do hidden[meta] = true end
local function refuse_field(_, key) raise("ctx is read-only (" .. tostring(key) .. "); keep state in entities") end

-------------------------------------------------------------------------------------------------- what the host calls

local handlers
local border = { numeric_meta = numeric_meta, array_meta = array_meta, event_meta = event_meta, numeric = numbers.canonical }
border.open_event = open_event
border.define_hot, border.define_shape, border.define_texts = define_hot, define_shape, define_texts
border.supply, border.supply_found = supply, supply_found

-- What went wrong, with the script's name where Lua gives no place.
local function failure_text(failure)
  local text = failure
  local meta = metatable_of(failure)
  if type(failure) == "table" and meta and meta.__tostring then
    local ok, made = pcall(tostring, failure)
    text = ok and made
  elseif type(failure) == "number" then
    text = tostring(failure)
  end
  if type(text) ~= "string" then text = "it raised a " .. type(failure) .. ", and no message" end
  if text:sub(1, #script_name + 1) ~= script_name .. ":" then text = script_name .. ": " .. text end
  return text
end

-- Loads the script; returns whether it has on_snapshot, or nil and a message.
function border.load()
  local run = load(sandbox_source, "=sandbox", "t")(
    host, raise, metatable_of, is_event, open_event, numbers, array, hidden
  )
  local found, problem = run(script_source, chunk_name)
  if not found then return nil, failure_text(problem) end
  local frozen = problem
  -- What an encoder should look at instead of this table.
  function border.plain(tab)
    if is_event(rawmeta(tab)) then return open_event(tab) end
    return frozen[tab] or tab
  end
  if type(found.on_event) ~= "function" then
    return nil, script_name .. ": there is no function on_event(event, ctx)"
  end
  if found.on_snapshot ~= nil and type(found.on_snapshot) ~= "function" then
    return nil, script_name .. ": on_snapshot is a " .. type(found.on_snapshot) .. "; expected a function on_snapshot(ctx)"
  end
  handlers = found
  return found.on_snapshot ~= nil
end

-- Makes a region known. `is_empty[kind]`: its table has no row in the store.
function border.define_region(number, name, is_empty)
  local fields, handles = { region = name, block = 0 }, {}
  for kind_number, kind in ipairs(kinds) do
    local handle = { {}, {}, {}, {}, 0, is_empty[kind_number], kind, number, false, {} }
    local entity = setmeta({}, handle_meta)
    inner_of[entity] = handle
    handles[kind_number] = handle
    fields[kind.name] = entity
  end
  local ctx_meta = { __index = setmeta(fields, fields_meta), __newindex = refuse_field }
  hidden[ctx_meta] = true
  regions[number] = {
    number = number, ctx = setmeta({}, ctx_meta), fields = fields, handles = handles, undo = {}, undo_count = 0,
  }
end

function border.begin_batch(number, committed_number)
  batch, committed = number, committed_number
end

-- The events being handled.
local packed, position, place, count

local function handle_events()
  local on_event, ctx, fields = handlers.on_event, region.ctx, region.fields
  while place < count do
    place = place + 1
    call_writes_count = 0
    tick(place)
    local shape, block, event
    shape, block, writer, position = sunpack("<I2i8i8", packed, position)
    event, position = shapes[shape](packed, position)
    current_event = event
    fields.block = block
    on_event(event, ctx)
  end
end

-- Runs the events behind the one that is parked dry, to learn which rows they will miss.
local function run_ahead()
  local on_event, ctx, fields = handlers.on_event, region.ctx, region.fields
  local event_now, block_now, at = current_event, fields.block, position
  swap_call_writes(call_writes_count - 2, 1, -3)
  mode = DRY
  for ahead = place + 1, math.min(place + host.dry_events_max, count) do
    tick(ahead)
    local shape, block, event, _
    shape, block, _, at = sunpack("<I2i8i8", packed, at)
    event, at = shapes[shape](packed, at)
    current_event, dry_writes, dry_reads = event, {}, 0
    fields.block = block
    -- A mistake that the handler makes here it will make again when it counts.
    pcall(on_event, event, ctx)
  end
  mode, dry_writes = RUN, nil
  swap_call_writes(1, call_writes_count - 2, 3)
  current_event, fields.block = event_now, block_now
  tick(place)
end

local DONE <const>, MISSED <const>, FAILED <const> = 0, 1, 2
local parked -- the coroutine that runs now

-- Calls that wait for rows, by number: a lane's from 1, a snapshot's is 0. Each keeps what is the state of one call.
local waiting = {}

local function park(number)
  waiting[number] = {
    parked, region, packed, position, place, count, current_event, writer, call_writes, call_writes_count, mode,
  }
  call_writes, call_writes_count = {}, 0
end

local function unpark(number)
  parked, region, packed, position, place, count, current_event, writer, call_writes, call_writes_count, mode =
    unpack(waiting[number], 1, 11)
  waiting[number] = nil
end

local function tell_wants()
  for _, handle in ipairs(wants_list) do
    local wanted, ids = wants[handle], {}
    for at, id in ipairs(wanted.ids) do ids[at] = spack("<s4", id) end
    if wanted.has_rows then host.want(handle[KIND].number, handle[REGION], not handle[TRIED], concat(ids)) end
    for _, question in ipairs(wanted.questions) do
      host.want_answer(number_of(handle, question), unpack(question.given))
    end
  end
  wants, wants_list = {}, {}
end

-- Runs the coroutine on: DONE with its result, MISSED with rows to load, or FAILED with a message.
local function go_on(number)
  local ok, handle, what = co_resume(parked)
  if not ok then
    parked, mode = nil, RUN
    return FAILED, failure_text(handle)
  end
  if co_status(parked) == "dead" then
    parked = nil
    return DONE, handle
  end
  want(handle, what)
  if mode == RUN then run_ahead() end
  tell_wants()
  park(number)
  return MISSED
end

function border.resume(number)
  unpark(number)
  if mode == RUN then tick(place) end
  return go_on(number)
end

function border.run(number, region_number, event_count, events)
  region, packed, position, place, count = regions[region_number], events, 1, 0, event_count
  mode = RUN
  if has_history then
    local _, block = sunpack("<I2i8", packed)
    prune_undo(block)
  end
  parked = co_create(handle_events)
  return go_on(number)
end

function border.snapshot(region_number, block)
  local ctx = regions[region_number].ctx
  regions[region_number].fields.block = block
  mode, current_event = SNAPSHOT, nil
  local on_snapshot = handlers.on_snapshot
  parked = co_create(function() return on_snapshot(ctx) end)
  return go_on(0)
end

local SEAL_BYTES <const> = 256 * 1024 -- handed out at a time, so that sealing needs little memory beside the rows

-- Hands out what rows of a region were before the blocks behind `after`.
local function seal_undo(logged_region, after)
  local undo, outs, unseen = logged_region.undo, {}, {}
  for at = 1, logged_region.undo_count, 4 do
    local block, handle, id, before = undo[at], undo[at + 1], undo[at + 2], undo[at + 3]
    if block > after then
      local kind = handle[KIND]
      local out_of = before == UNKNOWN and unseen or outs
      local out = out_of[kind.number]
      if not out then
        out = {}
        out_of[kind.number] = out
      end
      if before == UNKNOWN then out[#out + 1] = spack("<i8s4", block, id)
      elseif before then out[#out + 1] = spack("<i8", block) .. kind.pack(id, 1, before)
      else out[#out + 1] = spack("<i8s4Bi8", block, id, 0, 0) end
    end
  end
  for number, out in next, outs do host.before(number, logged_region.number, concat(out)) end
  for number, out in next, unseen do host.unseen(number, logged_region.number, concat(out)) end
end

-- Hands out what the batch changed; and with `after`, what it was before the blocks behind that one.
function border.seal(after)
  for _, logged_region in ipairs(logged) do
    if after then seal_undo(logged_region, after) end
    logged_region.undo, logged_region.undo_count = {}, 0
  end
  logged = {}
  for at = 1, touched_count do
    local handle = touched[at]
    local young, old, kind, dirty = handle[YOUNG], handle[OLD], handle[KIND], handle[DIRTY]
    local pack_row, out, bytes, news = kind.pack, {}, 0, handle[NEW]
    for place_in = 1, handle[DIRTY_COUNT] do
      local id = dirty[place_in]
      local row = young[id]
      if row == nil then row = old[id] end
      local is_new = news[id]
      -- A row that was made and removed within the batch is none.
      if row or not is_new then
        local sealed = row and pack_row(id, is_new and 2 or 1, row) or spack("<s4Bi8", id, 0, 0)
        out[#out + 1] = sealed
        bytes = bytes + #sealed
      end
      if bytes > SEAL_BYTES then
        host.sealed(kind.number, handle[REGION], concat(out))
        out, bytes = {}, 0
      end
    end
    host.sealed(kind.number, handle[REGION], concat(out))
    handle[DIRTY], handle[DIRTY_COUNT], handle[NEW] = {}, 0, {}
  end
  touched, touched_count = {}, 0
end

-- Lets all rows go: the store was rolled back.
function border.forget()
  for _, known in next, regions do
    for _, handle in ipairs(known.handles) do
      handle[YOUNG], handle[OLD], handle[CHANGED], handle[DIRTY], handle[DIRTY_COUNT] = {}, {}, {}, {}, 0
      handle[WHOLE], handle[TRIED], handle[NEW] = false, false, {}
      drop_found(handle)
    end
    known.undo, known.undo_count = {}, 0
  end
  touched, touched_count, logged = {}, 0, {}
end

-- Lets go of committed rows that were not used since the last sweep. Rows of batches that are not committed stay.
function border.sweep()
  for _, swept in next, regions do
    for _, handle in ipairs(swept.handles) do
      local young, old, changed = handle[YOUNG], handle[OLD], handle[CHANGED]
      drop_found(handle)
      for id, row in next, old do
        if young[id] == nil then
          if (changed[id] or 0) > committed then young[id] = row
          elseif row then handle[WHOLE] = false end
        end
      end
      for id, number in next, changed do
        if number <= committed then changed[id] = nil end
      end
      handle[OLD], handle[YOUNG] = young, {}
    end
  end
end

return border
