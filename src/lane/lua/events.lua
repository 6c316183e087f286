-- Events on their way in: what comes packed, and what is fetched when a handler asks for it.

local inner = ...
local host, raise, S, numbers, told_apart = inner.host, inner.raise, inner.run_state, inner.numbers, inner.told_apart
local rawmeta, setmeta, rawset, rawequal = getmetatable, setmetatable, rawset, rawequal
local type, next, ipairs = type, next, ipairs
local load, sunpack, find, sub, format = load, string.unpack, string.find, string.sub, string.format
local concat, unpack = table.concat, table.unpack
local null <const> = host.null

local raise_final = inner.raise_final

local event_meta = told_apart({ __name = "event" })
local projected = {} -- the fields that come with each event; the others are fetched when a handler asks

-- Fields that an event did not bring along, and that were fetched or set: one that is nil now was removed since.
local fetched = setmeta({}, { __mode = "k" })

-- Fields that come with each event, of the events to which some did not come: they cannot be read, or are large.
local absent = setmeta({}, { __mode = "k" })

-- Events of which there is more to forget than the fields that came along; and how many those events are.
local has_more, more = {}, { 0 }

local function note_more(event)
  if not has_more[event] then
    has_more[event], more[1] = true, more[1] + 1
  end
end

local function note_fetched(event, key)
  local keys = fetched[event]
  if not keys then
    keys = {}
    fetched[event] = keys
  end
  keys[key] = true
  note_more(event)
end

-- An event that a handler kept beyond its call has no fields left in its table, so each use of one asks here. A run
-- that begins at this event would not have it.
local function check_current(event)
  if not rawequal(event, S[EVENT]) then
    raise_final("an event can be read only while it is handled: what is needed later goes into entities")
  end
end

-- Ends the use of an event: takes its fields out of its table.
local function close_event(event)
  if has_more[event] then
    has_more[event], more[1] = nil, more[1] - 1
  end
  local key = next(event)
  while key ~= nil do
    event[key] = nil
    key = next(event, key)
  end
end

-- Notes that the event that counts cannot be read: it is refused, whatever its handler does about it.
local function note_unreadable(problem)
  if S[MODE] ~= DRY then S[REGION].unreadable = problem end
end

local function fetch_field(event, key)
  check_current(event)
  if type(key) ~= "string" then return nil end
  -- The host notes what it cannot read, and ends the run for it unless this is a dry run.
  local value, problem = host.field(key, S[MODE] ~= DRY)
  if problem then
    note_unreadable("event." .. key .. ": " .. problem)
    raise("event." .. key .. ": " .. problem)
  end
  note_fetched(event, key)
  if value ~= nil then rawset(event, key, value) end
  return value
end

function event_meta.__index(event, key)
  if projected[key] and rawequal(event, S[EVENT]) then return nil end
  local keys = fetched[event]
  if keys and keys[key] and rawequal(event, S[EVENT]) then return nil end
  return fetch_field(event, key)
end

-- A handler may keep notes in its event; a field that it removes is removed, whether it was ever read or not.
function event_meta.__newindex(event, key, value)
  check_current(event)
  note_fetched(event, key)
  if value ~= nil then rawset(event, key, value) end
end

-- Whether a field that is nil was removed, or is not in the event.
local function is_gone(event, key)
  local keys, names = fetched[event], absent[event]
  if keys and keys[key] then return true end
  return projected[key] and not (names and names[key])
end

-- An event of which a projected field did not come along: whoever asks for it is told, or gets it.
local spoiled_meta = told_apart({ __name = "event", __newindex = event_meta.__newindex })

function spoiled_meta.__index(event, key)
  if is_gone(event, key) and rawequal(event, S[EVENT]) then return nil end
  return fetch_field(event, key)
end
local spoiled -- fields of the event that is being made which cannot be read

-- A nested value of an event, with the types that are known below its field. One that cannot be read spoils the event.
local function decode_field(json, name)
  local value, problem = host.decode(json, name)
  if problem then
    spoiled = spoiled or {}
    spoiled[name] = true
  end
  return value
end

-- An event whose fields are all here.
local opened_meta = told_apart({ __name = "event", __index = check_current, __newindex = event_meta.__newindex })

local function is_event(meta)
  return meta ~= nil and (event_meta == meta or spoiled_meta == meta or opened_meta == meta)
end

-- An event that is made; `names` are the fields that did not come along, if there are any.
local function finish_event(event, names)
  if not spoiled and not names then return event end
  if spoiled then
    for name in next, names or {} do
      spoiled[name] = true
    end
  end
  absent[event], spoiled = spoiled or names, nil
  return setmeta(event, spoiled_meta)
end

-- Makes all fields of an event plain ones.
local function open_event(event)
  check_current(event)
  if opened_meta == rawmeta(event) then return event end
  local fields, problem = host.all_fields(S[MODE] ~= DRY)
  if problem then
    note_unreadable("event: " .. problem)
    raise("event: " .. problem)
  end
  setmeta(event, opened_meta)
  note_more(event)
  for key, value in next, fields do
    -- What came along and is nil now was removed.
    if value ~= null and event[key] == nil and not is_gone(event, key) then rawset(event, key, value) end
  end
  return event
end

-- An event as it goes into JSON: a copy, with its nulls.
local function whole_event(event)
  check_current(event)
  local is_open, copy = opened_meta == rawmeta(event), {}
  for key, value in next, event do
    copy[key] = value
  end
  local fields, problem = host.all_fields(S[MODE] ~= DRY)
  if problem then
    note_unreadable("event: " .. problem)
    raise("event: " .. problem)
  end
  for key, value in next, fields do
    local is_removed = value ~= null and (is_open or is_gone(event, key))
    if copy[key] == nil and not is_removed then copy[key] = value end
  end
  return copy
end

-- Texts that occur again and again cross once and are named by a number.
local texts, clean = {}, {} -- clean: those that a column takes
local shapes, refills = {}, {} -- by shape: its readers
local closers = { [0] = close_event } -- by shape: ends the use of an event

-- `j` is `i8`, read faster.
local FIELD_FORMATS <const> = {
  i = "j",
  d = "d",
  s = "s4",
  r = "I4",
  N = "s4",
  m = "s4jj",
  q = "jj",
  Q = "s4",
  j = "s4",
  t = "",
  f = "",
  n = "",
  x = "",
}
local FIELD_VALUES <const> = {
  i = "%s",
  d = "%s",
  s = "%s",
  r = "texts[%s]",
  N = "exact(%s)",
  m = "%s",
  q = "setmeta({ %s }, numeric_meta)",
  Q = "canonical(%s)",
  j = "decode(%s, %q)",
  t = "true",
  f = "false",
}

local reader_source = inner.template([[
  local unpack, setmeta, meta, texts, exact, decode, finish, hints, numeric_meta, canonical, has_more, more, close,
    missing = ...
  return function(packed, at)
    local $locals = unpack($form, packed, at)
    $hints
    return $event, block, writer, at
  end, function(packed, at, event)
    local $locals = unpack($form, packed, at)
    $hints
    $refill
    return block, writer, at
  end, function(last)
    $clear
    if more[1] > 0 and has_more[last] then close(last) end
  end]])

-- Makes the readers of the events whose fields have these kinds, one letter a field. The first returns the event, its
-- block, its writer and where the next one begins. The second puts an event into the table of the one before, which is
-- of the same shape and has no more fields than came along; events that may be spoiled have none. The third ends the
-- use of an event. Of a whole number in a text (`m`) the limbs come along; a typed numeric is its limbs (`q`) or its
-- text (`Q`), one that stood in JSON its text (`N`).
local function define_shape(number, names, field_kinds)
  local format_parts, locals, fields, refill, clear = { "jj" }, { "block", "writer" }, {}, {}, {}
  local hints = {}
  local missing
  for at, name in ipairs(names) do
    local kind = sub(field_kinds, at, at)
    local value = "v" .. at
    if FIELD_FORMATS[kind] ~= "" then
      format_parts[#format_parts + 1] = FIELD_FORMATS[kind]
      locals[#locals + 1] = value
    end
    if kind == "m" then
      locals[#locals + 1], locals[#locals + 2] = "h" .. at, "l" .. at
      local place = 3 * #hints + 1
      if #hints < HINTS_MAX then
        hints[#hints + 1] =
          format("hints[%d], hints[%d], hints[%d] = %s, h%d, l%d", place, place + 1, place + 2, value, at, at)
      end
    end
    if kind == "q" then
      locals[#locals + 1] = "w" .. at
      value = value .. ", w" .. at
    end
    if kind == "x" then
      missing = missing or {}
      missing[name] = true
    elseif kind ~= "n" then
      local given = format(FIELD_VALUES[kind], value, name)
      fields[#fields + 1] = format("[%q] = %s", name, given)
      refill[#refill + 1] = format("event[%q] = %s", name, given)
      clear[#clear + 1] = format("last[%q] = nil", name)
    end
  end
  locals[#locals + 1] = "at"
  local may_be_spoiled = find(field_kinds, "[jx]")
  local source = reader_source({
    locals = concat(locals, ", "),
    form = format("%q", "<" .. concat(format_parts)),
    hints = concat(hints, " "),
    refill = may_be_spoiled and "" or concat(refill, " "),
    clear = concat(clear, " "),
    event = format(
      may_be_spoiled and "finish(setmeta({%s}, meta), missing)" or "setmeta({%s}, meta)",
      concat(fields, ", ")
    ),
  })
  local given = { sunpack, setmeta, event_meta, texts, numbers.from_json, decode_field, finish_event, numbers.hints }
  given[#given + 1], given[#given + 2] = numbers.meta, numbers.canonical
  given[#given + 1], given[#given + 2], given[#given + 3], given[#given + 4] = has_more, more, close_event, missing
  shapes[number], refills[number], closers[number] = load(source, "=inner:shape", "t")(unpack(given))
  if may_be_spoiled then refills[number] = nil end
end

-- Events with a rare mix of kinds bring their kinds along.
local projected_names = {}
shapes[0] = function(packed, at)
  local event, missing, block, writer = {}, nil
  block, writer, at = sunpack("<i8i8", packed, at)
  for place = 1, #projected_names do
    local kind
    kind, at = sunpack("c1", packed, at)
    local value, _
    if kind == "t" then
      value = true
    elseif kind == "f" then
      value = false
    elseif kind == "x" then
      missing = missing or {}
      missing[projected_names[place]] = true
    elseif kind ~= "n" then
      if kind == "m" then
        value, _, _, at = sunpack("<s4i8i8", packed, at)
      elseif kind == "q" then
        local high, low
        high, low, at = sunpack("<i8i8", packed, at)
        value = setmeta({ high, low }, numbers.meta)
      else
        value, at = sunpack("<" .. FIELD_FORMATS[kind], packed, at)
      end
      if kind == "r" then
        value = texts[value]
      elseif kind == "N" then
        value = numbers.from_json(value)
      elseif kind == "Q" then
        value = numbers.canonical(value)
      elseif kind == "j" then
        value = decode_field(value, projected_names[place])
      end
    end
    event[projected_names[place]] = value
  end
  return finish_event(setmeta(event, event_meta), missing), block, writer, at
end

local function define_projection(names)
  projected, projected_names = {}, names
  for _, name in ipairs(names) do
    projected[name] = true
  end
  for number in next, shapes do
    if number ~= 0 then
      shapes[number], refills[number], closers[number] = nil, nil, nil
    end
  end
end

local function define_texts(packed, first)
  if first == 1 then
    for at in next, texts do
      texts[at] = nil
    end
    for text in next, clean do
      clean[text] = nil
    end
  end
  local at = 1
  while at <= #packed do
    local text
    text, at = sunpack("<s4", packed, at)
    texts[first], clean[text] = text, not find(text, "\0", 1, true)
    first = first + 1
  end
end

return {
  event_meta = event_meta,
  is_event = is_event,
  open_event = open_event,
  close_event = close_event,
  whole_event = whole_event,
  clean = clean,
  shapes = shapes,
  refills = refills,
  has_more = has_more,
  more = more,
  closers = closers,
  define_projection = define_projection,
  define_shape = define_shape,
  define_texts = define_texts,
}
