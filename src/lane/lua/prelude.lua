-- The inner side of the border between the host and a script.
--
-- Rows live here as long as they are warm, as cells in lists: see `kinds.lua`. A row that changed in a batch that is not
-- committed is always here, so what is here, and after it what is committed, is the truth: a read never waits
-- for a commit. Events come in packed, many at a time; what a batch changed goes out packed, once, at its end.
--
-- When a handler asks for a row that is not here, its coroutine is parked, the events behind it are run dry to learn
-- what they will ask for, and the host is told all of it at once.

local host, kinds_given, script_source, numeric_source, sandbox_source, kinds_source, find_source, script_name = ...

local rawmeta, setmeta, rawset, rawequal, type, next = getmetatable, setmetatable, rawset, rawequal, type, next
local mtype, tointeger, error, pcall, tostring, tonumber = math.type, math.tointeger, error, pcall, tostring, tonumber
local spack, sunpack, find, format, concat = string.pack, string.unpack, string.find, string.format, table.concat
local utf8_len, unpack, move, sort = utf8.len, table.unpack, table.move, table.sort
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
local numeric_meta = numbers.meta

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

-- What the functions that are compiled for each kind share with this file: the mode, the open batch, the event that is
-- being handled (its file and line, as a number; a row carries it), and its block.
local MODE <const>, BATCH <const>, WRITER <const>, BLOCK <const> = 1, 2, 3, 4
local RUN <const>, DRY <const>, SNAPSHOT <const> = 1, 2, 3
local S = { RUN, 1, 0, 0 }
local committed = 0
local regions = {}
local touched, touched_count = {}, 0
local changed_rows = 0 -- of the open batch
local DRY_END = {} -- what ends a dry run at a row that is not here

-- `ctx.<entity>` of one region is an empty table; what is behind it is out of a script's reach.
local handle_of = {}
-- The fields of what is behind it, which is called a handle here.
local YOUNG <const>, OLD <const>, CHANGED <const>, DIRTY <const>, DIRTY_COUNT <const> = 1, 2, 3, 4, 5
local WHOLE <const>, KIND <const>, REGION <const>, TRIED <const>, SEGMENTS <const> = 6, 7, 8, 9, 10
local COUNTS <const>, INDEXES <const> = 12, 13 -- of `find.lua`, which has 11 too
local TOP <const>, FREE <const>, GONE <const>, TOUCHED <const>, ROWS <const>, FILTERED <const> = 14, 15, 16, 17, 18, 19
local FREE_COUNT <const> = 20
-- YOUNG, OLD: id -> place of the row, or false if it is known that there is none. CHANGED: id -> the batch that changed it
-- last; of rows that are written it is kept only while the table is not whole and is read. WHOLE: every row of the table is
-- here. FILTERED: the host knows which rows there may be, so that one that is not here may be known to be new.
-- TRIED: the host was asked for the whole table. DIRTY: places of the rows that the open batch wrote. GONE: ids of those
-- that it deleted. TOP: the last place in use. FREE, FREE_COUNT: places below it that are not. ROWS: how many rows are here.
local SHIFT <const>, MASK <const> = 16, 0xffff

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
  local value, problem = host.field(key, S[MODE] ~= DRY)
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
  local fields, problem = host.all_fields(S[MODE] ~= DRY)
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
local texts, clean = {}, {} -- clean: those that a column takes
local shapes = {}

local FIELD_FORMATS <const> = {
  i = "i8", d = "d", s = "s4", r = "I4", N = "s4", m = "s4i8i8", j = "s4", t = "", f = "", n = "", x = "",
}
local FIELD_VALUES <const> = {
  i = "%s", d = "%s", s = "%s", r = "texts[%s]", N = "canonical(%s)", m = "%s", j = "decode(%s)", t = "true", f = "false",
}
local HINTS_MAX <const> = #numbers.hints // 3

-- Makes the reader of the events whose fields have these kinds, one letter a field: it returns the event, its block, its
-- writer and where the next one begins. Of a whole number in a text (`m`) the limbs come along.
local function define_shape(number, names, field_kinds)
  local format_parts, locals, fields, hints = { "i8i8" }, { "block", "writer" }, {}, {}
  local is_spoiled_shape = false
  for at, name in ipairs(names) do
    local kind = field_kinds:sub(at, at)
    local slot = "v" .. at
    if FIELD_FORMATS[kind] ~= "" then
      format_parts[#format_parts + 1] = FIELD_FORMATS[kind]
      locals[#locals + 1] = slot
    end
    if kind == "m" then
      locals[#locals + 1], locals[#locals + 2] = "h" .. at, "l" .. at
      local place = 3 * #hints + 1
      if #hints < HINTS_MAX then
        hints[#hints + 1] = format("hints[%d], hints[%d], hints[%d] = %s, h%d, l%d", place, place + 1, place + 2, slot, at, at)
      end
    end
    if kind == "x" then is_spoiled_shape = true end
    if kind ~= "n" and kind ~= "x" then fields[#fields + 1] = format("[%q] = " .. FIELD_VALUES[kind], name, slot) end
  end
  locals[#locals + 1] = "at"
  local meta = is_spoiled_shape and spoiled_meta or event_meta
  local result = field_kinds:find("j", 1, true) and "finish(setmeta({%s}, meta))" or "setmeta({%s}, meta)"
  local source = format(
    "local unpack, setmeta, meta, texts, canonical, decode, finish, hints = ... return function(packed, at) local %s = unpack(%q, packed, at) %s return " .. result .. ", block, writer, at end",
    concat(locals, ", "), "<" .. concat(format_parts), concat(hints, " "), concat(fields, ", ")
  )
  shapes[number] = load(source, "=shape", "t")(sunpack, setmeta, meta, texts, numbers.canonical, decode_field, finish_event, numbers.hints)
end

-- Events with a rare mix of kinds bring their kinds along.
local hot_names = {}
shapes[0] = function(packed, at)
  local event, meta, block, writer = {}, event_meta, nil, nil
  block, writer, at = sunpack("<i8i8", packed, at)
  for place = 1, #hot_names do
    local kind
    kind, at = sunpack("c1", packed, at)
    local value, _
    if kind == "t" then value = true
    elseif kind == "f" then value = false
    elseif kind == "x" then meta = spoiled_meta
    elseif kind ~= "n" then
      if kind == "m" then value, _, _, at = sunpack("<s4i8i8", packed, at)
      else value, at = sunpack("<" .. FIELD_FORMATS[kind], packed, at) end
      if kind == "r" then value = texts[value]
      elseif kind == "N" then value = numbers.canonical(value)
      elseif kind == "j" then value = decode_field(value) end
    end
    event[hot_names[place]] = value
  end
  return finish_event(setmeta(event, meta)), block, writer, at
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
    for text in next, clean do clean[text] = nil end
  end
  local at = 1
  while at <= #packed do
    local text
    text, at = sunpack("<s4", packed, at)
    texts[first], clean[text] = text, not find(text, "\0", 1, true)
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
  for number = 1, #texts do d[at + texts[number]] = false end
  handle[FREE][count], handle[FREE_COUNT] = place, count
end

-- Makes a row known that is not; its columns are for the caller to fill in. Returns the place and its cells.
local function add_row(handle, id, writer, changed_in)
  local place = new_place(handle)
  local kind = handle[KIND]
  local d, at = cells_at(handle, place)
  -- In the order of cells, so that a new segment stays a list.
  for cell = at, at + kind.cells - 1 do d[cell] = false end
  d[at + kind.id_at], d[at + kind.writer_at], d[at + kind.batch_at] = id, writer, changed_in
  if has_history then d[at + kind.block_at] = false end
  handle[YOUNG][id], handle[OLD][id] = place, nil
  handle[ROWS] = handle[ROWS] + 1
  return place, d, at
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
  if S[MODE] == DRY then
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

-- Whether it is known that there is no row of an id that is not here.
local function is_absent(handle, id)
  if handle[FILTERED] and host.is_absent(handle[KIND].number, handle[REGION], id) then
    handle[YOUNG][id] = false
    return true
  end
  return false
end

-- The place of an id, or false: waits for the row if it is not here.
local function fetch(handle, id)
  local place = lookup(handle, id)
  if place == nil then
    if is_absent(handle, id) then return false end
    need(handle, id)
    place = lookup(handle, id) or false
  end
  return place
end

-- What the host found for a question.
local answer_found -- of `find.lua`
local function supply_found(number, packed, count, is_complete)
  local handle, question = questions[number][1], questions[number][2]
  questions[number] = nil
  if next(questions) == nil then questions_count = 0 end
  answer_found(handle, question, packed, count, is_complete)
end

local taken = {} -- the cells of the row that is being taken in

-- Takes in a row that the host found, if nothing is known of it here; returns its id and where the next one begins.
local function take_in(handle, packed, from)
  local kind, id = handle[KIND], nil
  id, from = kind.unpack(packed, from, taken, 1)
  if handle[YOUNG][id] == nil and handle[OLD][id] == nil then
    local _, d, at = add_row(handle, id, 0, 0)
    move(taken, 1, kind.cells, at, d)
  end
  return id, from
end

-- The rows the host found, of the ids that are given or of the whole table.
local function supply(kind_number, region_number, packed, is_whole, ids)
  local handle = regions[region_number].handles[kind_number]
  local young, old = handle[YOUNG], handle[OLD]
  local at, id = 1, nil
  while at <= #packed do id, at = take_in(handle, packed, at) end
  handle[TRIED] = true
  if is_whole and not handle[WHOLE] then
    handle[WHOLE] = true
    -- A row that was written without being here may have been there before.
    local batch_at = handle[KIND].batch_at
    for dirty_at = 1, handle[DIRTY_COUNT] do
      local d, cell = cells_at(handle, handle[DIRTY][dirty_at])
      if d[cell + batch_at] == -S[BATCH] then d[cell + batch_at] = S[BATCH] end
    end
  end
  at = 1
  while at <= #ids do
    id, at = sunpack("<s4", ids, at)
    if young[id] == nil and old[id] == nil then young[id] = false end
  end
end

----------------------------------------------------------------------------------------------------- what scripts call

-- Reads of one call that is run dry at most: it may look for what the parked call has not written yet, for ever.
local DRY_READS_MAX <const> = 10000
local dry_reads = 0

local dry_writes -- handle -> id -> cells, or false: of one handler call that is run dry
local parked_writer = 0 -- the event of the call that is parked meanwhile

-- Whether an id may be one as it is.
local id_bytes_max <const> = host.id_bytes_max
local function is_key(id)
  return type(id) == "string" and #id <= id_bytes_max and utf8_len(id) and not find(id, "\0", 1, true)
end

local function key_of(handle, id, what)
  if is_key(id) then return id end
  if mtype(id) == "integer" then return format("%d", id) end
  if type(id) ~= "string" then raise(format("%s:%s: expected an id (text or an integer), got %s", handle[KIND].name, what, describe(id))) end
  if #id > id_bytes_max then
    raise(format("%s:%s: an id of %d bytes; expected at most %d, which is what an index takes", handle[KIND].name, what, #id, id_bytes_max))
  end
  local problem = utf8_len(id) and "it holds a NUL, which no database keeps" or "it is not UTF-8; a bytes column takes any bytes"
  raise(format("%s:%s: id: expected text, got %s (%s)", handle[KIND].name, what, describe(id), problem))
end

-- A method was called with something that is no entity.
local function no_entity(what)
  raise(what .. ": call it with a colon, as in ctx.entity:" .. what .. "(…)")
end

local function touch(handle)
  if not handle[TOUCHED] then
    handle[TOUCHED] = true
    touched_count = touched_count + 1
    touched[touched_count] = handle
  end
end

-- Notes that the open batch wrote the row at a place, for the first time.
local function mark(handle, id, place)
  local count = handle[DIRTY_COUNT] + 1
  handle[DIRTY_COUNT] = count
  handle[DIRTY][count] = place
  changed_rows = changed_rows + 1
  if count == 1 then touch(handle) end
  if not handle[WHOLE] and handle[KIND].is_read then handle[CHANGED][id] = S[BATCH] end
end

-- Brings CHANGED up to date with the rows that changed in this run.
local function list_changed(handle)
  local changed, batch_at = handle[CHANGED], handle[KIND].batch_at
  for _, map in ipairs{ handle[YOUNG], handle[OLD] } do
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

-- Keeps what rows were before the current block: see `seal_undo`. Entries lie one behind the other: block, handle, id, what
-- the row was, and if it was one, its cells.
local ABSENT <const>, ROW <const>, UNKNOWN <const> = 0, 1, 2 -- unknown: what is committed decides
local UNDO_HEAD <const> = 4
local logged = {} -- regions of which something is kept
local region -- the one that is being handled
local leave, enter, needs_before, drop_found -- of `find.lua`

local function note_before(handle, id, what)
  local undo, at = region.undo, region.undo_count
  if at == 0 then logged[#logged + 1] = region end
  undo[at + 1], undo[at + 2], undo[at + 3], undo[at + 4] = S[BLOCK], handle, id, what
  region.undo_count = at + UNDO_HEAD
end

local function note_new(handle, id, place)
  note_before(handle, id, (place == false or handle[WHOLE]) and ABSENT or UNKNOWN)
end

local function note_row(handle, id, d, at)
  note_before(handle, id, ROW)
  local cells, count = handle[KIND].cells, region.undo_count
  move(d, at, at + cells - 1, count + 1, region.undo)
  region.undo_count = count + cells
end

-- Where the entry behind that one begins.
local function next_undo(undo, at)
  return at + UNDO_HEAD + (undo[at + 3] == ROW and undo[at + 1][KIND].cells or 0)
end

-- Lets go of what lies too far back to be rolled back, now that `block` has come.
local function prune_undo(block)
  local undo, count, oldest = region.undo, region.undo_count, block - host.history_depth
  if count == 0 or oldest > block or undo[1] > oldest then return end
  local from = 1
  while from <= count and undo[from] <= oldest do from = next_undo(undo, from) end
  -- Moving costs as much as what stays, so it waits until that is less than what goes.
  if from - 1 < count // 2 then return end
  local kept = count - from + 1
  move(undo, from, count, 1)
  for at = count, kept + 1, -1 do undo[at] = nil end
  region.undo_count = kept
end

-- What is known of an id by a call that is about to write it.
local function before_write(handle, id)
  local before = lookup(handle, id)
  if before == nil and needs_before(handle) then before = fetch(handle, id) end
  return before
end

local function note_dry(handle, id, cells)
  if needs_before(handle) then fetch(handle, id) end
  local writes = dry_writes[handle]
  if not writes then
    writes = {}
    dry_writes[handle] = writes
  end
  writes[id] = cells
end

local function no_row(handle, row)
  raise(format("%s:set: expected a table of columns, got %s", handle[KIND].name, describe(row)))
end

-- A name in a row that is no column. A row of `find` carries its id, and may come back with it.
local function odd_column(handle, id, row, name)
  if name == "id" and row.id == id then return end
  local kind = handle[KIND]
  raise(format("%s:set: there is no column %s%s", kind.name, name_text(name), host.nearest(tostring(name), kind.names)))
end

local function check_columns(handle, id, row)
  if type(row) ~= "table" then no_row(handle, row) end
  local known = handle[KIND].known
  for name in next, row do
    if not known[name] then odd_column(handle, id, row, name) end
  end
end

-- `set`, where the way that is compiled for the kind does not go.
local function slow_set(handle, id, row)
  id = key_of(handle, id, "set")
  check_columns(handle, id, row)
  local kind = handle[KIND]
  if S[MODE] ~= RUN then
    local cells = {}
    kind.read(row, cells, 1)
    if S[MODE] == SNAPSHOT then raise("on_snapshot may read, and not write") end
    return note_dry(handle, id, cells)
  end
  local before = before_write(handle, id)
  -- Nothing has changed yet, if a column is refused.
  kind.read(row, taken, 1)
  local batch, place, d, at = S[BATCH], before, nil, nil
  if before then
    leave(handle, id, before)
    d, at = cells_at(handle, before)
    local changed = d[at + kind.batch_at]
    if changed ~= batch and changed ~= -batch then
      mark(handle, id, before)
      d[at + kind.batch_at] = batch
    end
    if has_history and d[at + kind.block_at] ~= S[BLOCK] then note_row(handle, id, d, at) end
  else
    if has_history then note_new(handle, id, before) end
    place, d, at = add_row(handle, id, 0, (before == false or handle[FILTERED]) and not handle[GONE][id] and -batch or batch)
    mark(handle, id, place)
  end
  move(taken, 1, kind.cells, at, d)
  d[at + kind.writer_at] = S[WRITER]
  if has_history then d[at + kind.block_at] = S[BLOCK] end
  if handle[INDEXES] then enter(handle, id, place) end
end

local function delete_row(handle, id)
  local before = before_write(handle, id)
  if before == false or (before == nil and is_absent(handle, id)) then return end
  if before then
    leave(handle, id, before)
    local kind = handle[KIND]
    local d, at = cells_at(handle, before)
    if has_history and d[at + kind.block_at] ~= S[BLOCK] then note_row(handle, id, d, at) end
    local changed = d[at + kind.batch_at]
    if changed ~= -S[BATCH] or not handle[WHOLE] then handle[GONE][id] = true end
    if changed == S[BATCH] or changed == -S[BATCH] then
      -- It stays among the rows that the batch wrote; without an id it is passed by, and its place is free after that.
      d[at + kind.id_at] = false
    else
      release(handle, before)
    end
    handle[ROWS] = handle[ROWS] - 1
  else
    handle[GONE][id] = true
    if has_history then note_before(handle, id, UNKNOWN) end
  end
  handle[YOUNG][id], handle[OLD][id] = false, nil
  handle[CHANGED][id] = S[BATCH]
  changed_rows = changed_rows + 1
  touch(handle)
end

-- A read of a call that is run dry. One that looks at what the parked call wrote ends here: it must not see half of that.
local function dry_get(handle, id)
  dry_reads = dry_reads + 1
  if dry_reads > DRY_READS_MAX then error(DRY_END, 0) end
  local writes, kind = dry_writes[handle], handle[KIND]
  local cells = writes and writes[id]
  if cells then return kind.copy(cells, 1) end
  if cells == false then return nil end
  local place = fetch(handle, id)
  if not place then
    if handle[GONE][id] then error(DRY_END, 0) end
    return nil
  end
  local d, at = cells_at(handle, place)
  local changed = d[at + kind.batch_at]
  if d[at + kind.writer_at] == parked_writer and (changed == S[BATCH] or changed == -S[BATCH]) then error(DRY_END, 0) end
  return kind.copy(d, at)
end

-- `get`, where the way that is compiled for the kind does not go.
local function slow_get(handle, id)
  if handle[YOUNG][id] == nil then id = key_of(handle, id, "get") end
  note_read(handle[KIND])
  if S[MODE] == DRY then return dry_get(handle, id) end
  local place = fetch(handle, id)
  if place then return handle[KIND].copy(cells_at(handle, place)) end
  return nil
end

local function delete(entity, id)
  local handle = handle_of[entity] or no_entity("delete")
  id = key_of(handle, id, "delete")
  if S[MODE] == RUN then return delete_row(handle, id) end
  if S[MODE] == SNAPSHOT then raise("on_snapshot may read, and not write") end
  return note_dry(handle, id, false)
end

-- A call that is run dry sees what it wrote itself only by id: what it would find is not told to it.
local function begin_read(handle)
  note_read(handle[KIND])
  if S[MODE] ~= DRY then return end
  dry_reads = dry_reads + 1
  if dry_writes[handle] or dry_reads > DRY_READS_MAX then error(DRY_END, 0) end
end

local search = load(find_source, "=find", "t")({
  begin_read = begin_read, raise = raise, describe = describe, name_text = name_text, host = host, array = array,
  handle_of = handle_of, TRY = TRY, need = need, take_in = take_in, no_entity = no_entity,
})
leave, enter, needs_before, drop_found, answer_found = search.leave, search.enter, search.needs_before, search.drop, search.supply

local make_kind = load(kinds_source, "=kinds", "t")({
  raise = raise, describe = describe, name_text = name_text, host = host, numbers = numbers, state = S,
  has_history = has_history, decode = decode, clean = clean,
})
local function refuse_key(_, key) raise("ctx entities are read-only (" .. tostring(key) .. "); use set") end
local kinds = {}
for number, given in ipairs(kinds_given) do
  local kind = make_kind(number, given, {
    slow_get = slow_get, slow_set = slow_set, no_entity = no_entity, no_row = no_row, odd_column = odd_column, mark = mark,
    note_row = note_row, note_new = note_new, new_place = new_place, is_key = is_key,
  })
  kind.meta = {
    __index = { get = kind.get, set = kind.set, delete = delete, find = search.methods.find, count = search.methods.count },
    __newindex = refuse_key,
  }
  kinds[number] = kind
end

-- Metatables that are out of a script's reach.
local hidden = setmeta({}, { __mode = "k" })

local function unknown_field(_, key)
  local names = { "region", "block" }
  for _, kind in ipairs(kinds) do names[#names + 1] = kind.name end
  raise("ctx has no " .. name_text(key) .. host.nearest(tostring(key), names) .. "; it has " .. concat(names, ", "))
end
local fields_meta = { __index = unknown_field }
for _, meta in ipairs{ event_meta, spoiled_meta, array_meta, numeric_meta } do hidden[meta] = true end
for _, kind in ipairs(kinds) do hidden[kind.meta] = true end
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
    local handle = { {}, {}, {}, {}, 0, is_empty[kind_number], kind, number, false, {}, nil, nil, nil, 0, {}, {}, false, 0, is_empty[kind_number], 0 }
    local entity = setmeta({}, kind.meta)
    handle_of[entity], kind.inner_of[entity] = handle, handle
    handles[kind_number] = handle
    fields[kind.name] = entity
  end
  local ctx_meta = { __index = setmeta(fields, fields_meta), __newindex = refuse_field }
  hidden[ctx_meta] = true
  regions[number] = {
    number = number, ctx = setmeta({}, ctx_meta), fields = fields, handles = handles, undo = {}, undo_count = 0,
  }
end

-- Rows of kinds that are never read, to be let go once their batch is committed: handle, batch, places, again and again.
local passing, passing_first, passing_last = {}, 1, 0

local function let_go(handle, number, places)
  local kind, young, old, segments, gone = handle[KIND], handle[YOUNG], handle[OLD], handle[SEGMENTS], 0
  local changed = handle[CHANGED]
  if kind.is_read then return end
  local id_at, batch_at = kind.id_at, kind.batch_at
  for place_in = 1, #places do
    local place = places[place_in]
    local d, at = segments[place >> SHIFT], place & MASK
    -- The row may have been moved meanwhile, and another one be here: that one goes, if that batch changed it last.
    local id, changed_in = d and d[at + id_at], d and d[at + batch_at]
    if id and (changed_in == number or changed_in == -number) and (young[id] or old[id]) == place then
      young[id], old[id], changed[id] = nil, nil, nil
      release(handle, place)
      gone = gone + 1
    end
  end
  if gone > 0 then handle[WHOLE], handle[ROWS] = false, handle[ROWS] - gone end
end

function border.begin_batch(number, committed_number)
  S[BATCH], committed = number, committed_number
  while passing_first < passing_last and passing[passing_first + 1] <= committed do
    let_go(passing[passing_first], passing[passing_first + 1], passing[passing_first + 2])
    for at = passing_first, passing_first + 2 do passing[at] = nil end
    passing_first = passing_first + 3
  end
end

-- The events being handled: runs of one shape, each behind the shape's number and its length.
local packed, position, place, count
local read_event, run_left = nil, 0

local function handle_events()
  local on_event, ctx, fields = handlers.on_event, region.ctx, region.fields
  while place < count do
    if run_left == 0 then
      local shape
      shape, run_left, position = sunpack("<I2I2", packed, position)
      read_event = shapes[shape]
    end
    run_left = run_left - 1
    place = place + 1
    tick(place)
    local event, block, writer
    event, block, writer, position = read_event(packed, position)
    S[WRITER], S[BLOCK] = writer, block
    current_event = event
    fields.block = block
    on_event(event, ctx)
  end
end

-- Runs the events behind the one that is parked dry, to learn which rows they will miss.
local function run_ahead()
  local on_event, ctx, fields = handlers.on_event, region.ctx, region.fields
  local event_now, block_now, at, left, read_next = current_event, fields.block, position, run_left, read_event
  parked_writer = S[WRITER]
  S[MODE] = DRY
  for ahead = place + 1, math.min(place + host.dry_events_max, count) do
    tick(ahead)
    if left == 0 then
      local shape
      shape, left, at = sunpack("<I2I2", packed, at)
      read_next = shapes[shape]
    end
    left = left - 1
    local event, block, _
    event, block, _, at = read_next(packed, at)
    current_event, dry_writes, dry_reads = event, {}, 0
    fields.block = block
    -- A mistake that the handler makes here it will make again when it counts.
    pcall(on_event, event, ctx)
  end
  S[MODE], dry_writes = RUN, nil
  current_event, fields.block = event_now, block_now
  tick(place)
end

local DONE <const>, MISSED <const>, FAILED <const> = 0, 1, 2
local parked -- the coroutine that runs now

-- Calls that wait for rows, by number: a lane's from 1, a snapshot's is 0. Each keeps what is the state of one call.
local waiting = {}

local function park(number)
  waiting[number] = {
    parked, region, packed, position, place, count, read_event, run_left, current_event, S[WRITER], S[BLOCK], S[MODE],
  }
end

local function unpark(number)
  parked, region, packed, position, place, count, read_event, run_left, current_event, S[WRITER], S[BLOCK], S[MODE] =
    unpack(waiting[number], 1, 12)
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
    parked, S[MODE] = nil, RUN
    return FAILED, failure_text(handle)
  end
  if co_status(parked) == "dead" then
    parked = nil
    return DONE, handle
  end
  want(handle, what)
  if S[MODE] == RUN then run_ahead() end
  tell_wants()
  park(number)
  return MISSED
end

function border.resume(number)
  unpark(number)
  if S[MODE] == RUN then tick(place) end
  return go_on(number)
end

function border.run(number, region_number, event_count, events)
  region, packed, position, place, count, run_left = regions[region_number], events, 1, 0, event_count, 0
  S[MODE] = RUN
  if has_history then
    local _, _, block = sunpack("<I2I2i8", packed)
    prune_undo(block)
  end
  parked = co_create(handle_events)
  return go_on(number)
end

function border.snapshot(region_number, block)
  local ctx = regions[region_number].ctx
  regions[region_number].fields.block = block
  S[MODE], current_event = SNAPSHOT, nil
  local on_snapshot = handlers.on_snapshot
  parked = co_create(function() return on_snapshot(ctx) end)
  return go_on(0)
end

local SEAL_BYTES <const> = 256 * 1024 -- handed out at a time, so that sealing needs little memory beside the rows

-- Hands out what rows of a region were before the blocks behind `after`.
local function seal_undo(logged_region, after)
  local undo, outs, unseen = logged_region.undo, {}, {}
  local at, count = 1, logged_region.undo_count
  while at <= count do
    local block, handle, id, what = undo[at], undo[at + 1], undo[at + 2], undo[at + 3]
    if block > after then
      local kind = handle[KIND]
      local out_of = what == UNKNOWN and unseen or outs
      local out = out_of[kind.number]
      if not out then
        out = {}
        out_of[kind.number] = out
      end
      if what == UNKNOWN then out[#out + 1] = spack("<i8s4", block, id)
      elseif what == ROW then out[#out + 1] = spack("<i8", block) .. kind.pack(id, 1, 0, undo, at + UNDO_HEAD)
      else out[#out + 1] = spack("<i8s4Bi8", block, id, 0, 0) end
    end
    at = next_undo(undo, at)
  end
  for number, out in next, outs do host.before(number, logged_region.number, concat(out)) end
  for number, out in next, unseen do host.unseen(number, logged_region.number, concat(out)) end
end

-- Hands out what the batch changed in one table.
local function seal_handle(handle)
  local kind, segments, dirty, out, count, bytes = handle[KIND], handle[SEGMENTS], handle[DIRTY], {}, 0, 0
  local pack_row, batch = kind.pack, S[BATCH]
  local id_at, writer_at, batch_at = kind.id_at, kind.writer_at, kind.batch_at
  local pack_some, some = kind.pack_some, kind.some
  local function put(sealed)
    count = count + 1
    out[count] = sealed
    bytes = bytes + #sealed
    if bytes > SEAL_BYTES then
      host.sealed(kind.number, handle[REGION], handle[WHOLE], concat(out))
      out, count, bytes = {}, 0, 0
    end
  end
  local from, last = 1, handle[DIRTY_COUNT]
  while from <= last do
    local sealed = some > 0 and from + some - 1 <= last and pack_some(segments, dirty, from, batch)
    if sealed then
      put(sealed)
      from = from + some
    else
      local place = dirty[from]
      local d, at = segments[place >> SHIFT], place & MASK
      local id = d[at + id_at]
      if id then put(pack_row(id, d[at + batch_at] == -batch and 2 or 1, d[at + writer_at], d, at)) else release(handle, place) end
      from = from + 1
    end
  end
  for id in next, handle[GONE] do
    -- What was made again is among the rows that were written.
    if not lookup(handle, id) then put(spack("<s4Bi8", id, 0, 0)) end
  end
  host.sealed(kind.number, handle[REGION], handle[WHOLE], concat(out))
  if handle[FILTERED] and not kind.is_read then
    passing[passing_last + 1], passing[passing_last + 2], passing[passing_last + 3] = handle, batch, dirty
    passing_last = passing_last + 3
  end
  handle[DIRTY], handle[DIRTY_COUNT], handle[TOUCHED] = {}, 0, false
  if next(handle[GONE]) ~= nil then handle[GONE] = {} end
end

-- Hands out what the batch changed; and with `after`, what it was before the blocks behind that one.
function border.seal(after)
  for _, logged_region in ipairs(logged) do
    if after then seal_undo(logged_region, after) end
    logged_region.undo, logged_region.undo_count = {}, 0
  end
  logged = {}
  for at = 1, touched_count do seal_handle(touched[at]) end
  touched, touched_count, changed_rows = {}, 0, 0
end

function border.changed_rows() return changed_rows end

-- Lets all rows go: the store was rolled back.
function border.forget()
  for _, known in next, regions do
    for _, handle in ipairs(known.handles) do
      handle[YOUNG], handle[OLD], handle[CHANGED], handle[DIRTY], handle[DIRTY_COUNT] = {}, {}, {}, {}, 0
      handle[WHOLE], handle[TRIED], handle[TOUCHED], handle[FILTERED] = false, false, false, false
      handle[SEGMENTS], handle[TOP], handle[FREE], handle[FREE_COUNT], handle[GONE], handle[ROWS] = {}, 0, {}, 0, {}, 0
      drop_found(handle)
    end
    known.undo, known.undo_count = {}, 0
  end
  touched, touched_count, changed_rows, logged = {}, 0, 0, {}
  passing, passing_first, passing_last = {}, 1, 0
end

-- Moves the last rows of a table into the places that are free, so that segments at the end can go. All rows are in OLD.
local function compact(handle)
  local kind, segments, free, map = handle[KIND], handle[SEGMENTS], handle[FREE], handle[OLD]
  -- Rows that the batch wrote and that are gone do not stand in the way.
  local dirty, dirty_count, kept = handle[DIRTY], handle[DIRTY_COUNT], {}
  for at = 1, dirty_count do
    local d, cell = cells_at(handle, dirty[at])
    if d[cell + kind.id_at] then kept[#kept + 1] = dirty[at] else release(handle, dirty[at]) end
  end
  if handle[FREE_COUNT] == 0 then return end
  for at = #free, handle[FREE_COUNT] + 1, -1 do free[at] = nil end
  sort(free)
  local moved, top, last_cell = {}, handle[TOP], (kind.rows_max - 1) * kind.width + 1
  local function drop_top()
    if top & MASK > 1 then
      top = top - kind.width
    else
      segments[top >> SHIFT] = nil
      top = top >> SHIFT == 1 and 0 or ((top >> SHIFT) - 1) << SHIFT | last_cell
    end
  end
  local function drop_free_top()
    while top > 0 do
      local d, at = cells_at(handle, top)
      if d[at + kind.id_at] then return end
      drop_top()
    end
  end
  drop_free_top()
  for _, hole in ipairs(free) do
    if hole >= top then break end
    local d, at = cells_at(handle, top)
    move(d, at, at + kind.width - 1, hole & MASK, segments[hole >> SHIFT])
    map[d[at + kind.id_at]] = hole
    -- Who still has the old place finds nothing there.
    d[at + kind.id_at] = false
    moved[top] = hole
    drop_top()
    drop_free_top()
  end
  for at, place_of_row in ipairs(kept) do kept[at] = moved[place_of_row] or place_of_row end
  handle[DIRTY], handle[DIRTY_COUNT], handle[TOP], handle[FREE], handle[FREE_COUNT] = kept, #kept, top, {}, 0
end

-- Lets go of committed rows that were not used since the last sweep. Rows of batches that are not committed stay.
function border.sweep()
  for _, swept in next, regions do
    for _, handle in ipairs(swept.handles) do
      local young, old, changed, batch_at = handle[YOUNG], handle[OLD], handle[CHANGED], handle[KIND].batch_at
      local was_whole = handle[WHOLE]
      drop_found(handle)
      for id, place_of_row in next, old do
        if young[id] == nil then
          local changed_in
          if place_of_row then
            local d, at = cells_at(handle, place_of_row)
            changed_in = d[at + batch_at]
            if changed_in < 0 then changed_in = -changed_in end
          else
            changed_in = changed[id] or 0
          end
          if changed_in > committed then
            young[id] = place_of_row
          elseif place_of_row then
            release(handle, place_of_row)
            handle[WHOLE], handle[ROWS] = false, handle[ROWS] - 1
          end
        end
      end
      for id, number in next, changed do
        if number <= committed then changed[id] = nil end
      end
      handle[OLD], handle[YOUNG] = young, {}
      if was_whole and not handle[WHOLE] and handle[KIND].is_read then list_changed(handle) end
      compact(handle)
    end
  end
end

return border
