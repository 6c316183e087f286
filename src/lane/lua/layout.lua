-- What all pieces stand on: names that are checked, and lists whose entries have names.
--
-- A piece is a file. It gets `inner`, the table of what the pieces before it returned, and returns what it adds. The
-- constants in capitals (`YOUNG`, `SHIFT`) that no file declares come from `layout.rs`.

local inner = ...
local host, layout = inner.host, inner.layout
local setmeta, next, ipairs, error, load, tostring = setmetatable, next, ipairs, error, load, tostring
local concat, move, format = table.concat, table.move, string.format
local gmatch, sub, find = string.gmatch, string.sub, string.find

-- Makes it an error to ask a table for a name that it does not have.
local function strict(tab, what)
  return setmeta(tab, {
    __index = function(_, name)
      error(format("%s: there is no %s", what, name), 2)
    end,
  })
end
strict(inner, "inner")
strict(host, "host")

-- Raises an error at the place in the script that is to blame: a message, or what `string.format` takes.
local function raise(form, ...)
  local message = ... == nil and form or format(form, ...)
  error(host.place() .. message, 0)
end

-- The state of the run: made below.
local S

-- Ends the current call with an error that a script cannot catch: see `protected.lua`.
local function end_call(failure)
  S[ENDED] = failure
  error(failure, 0)
end

-- Raises such an error at the place in the script that is to blame.
local function raise_final(form, ...)
  end_call(host.place() .. format(form, ...))
end

-- Compiles the function that makes a list such as a table's state: `parameters` are its parameters, and `values` says
-- of each of the list's names what it is at first, as Lua text. One that is missing or that there is not is an error.
local function constructor(list, parameters, values)
  local names, is_name, texts = layout.lists[list], {}, {}
  for at, name in ipairs(names) do
    is_name[name] = true
    texts[at] = values[name] or error(format("%s: nothing is said of %s", list, name))
  end
  for name in next, values do
    if not is_name[name] then error(format("%s: there is no %s", list, name)) end
  end
  local source = format("return function(%s) return { %s } end", parameters, concat(texts, ", "))
  return load(source, "=inner:" .. list, "t")()
end

-- Makes a function that fills in a template: `$name` is the value of that name, or the constant if it is in capitals.
local function template(text)
  local parts, holes, from = {}, {}, 1
  for first, name, behind in gmatch(text, "()%$([%a_]+)()") do
    local at = #parts + 2
    parts[at - 1], parts[at] = sub(text, from, first - 1), name
    if find(name, "^%u") then
      parts[at] = layout.constants[name] or error(format("$%s: there is no such constant", name))
    else
      holes[at] = name
    end
    from = behind
  end
  parts[#parts + 1] = sub(text, from)
  return function(values)
    local filled = move(parts, 1, #parts, 1, {})
    for at, name in next, holes do
      filled[at] = values[name] or error(format("$%s: there is no value of that name", name))
    end
    return concat(filled)
  end
end

local new_run_state = constructor("run_state", "", {
  MODE = tostring(RUN),
  BATCH = "1",
  WRITER = "0",
  BLOCK = "0",
  COMMITTED = "0",
  EVENT = "nil",
  REGION = "nil",
  ENDED = "false",
  DRY_WRITES = "nil",
  DRY_READS = "0",
  SUSPENDED_WRITER = "0",
})
S = new_run_state()

-- Metatables that are out of a script's reach.
local hidden = setmeta({}, { __mode = "k" })

-- Metatables by which values are told apart. A value may show a table of the script as its metatable, and that table
-- may have an `__eq`. Lua asks the left side of `==` first. So ours stands there and answers: the script's `__eq` never
-- gets it.
local asked_meta = {
  __eq = function()
    return false
  end,
}
hidden[asked_meta] = true

local function asked_in_place(meta)
  return setmeta(meta, asked_meta)
end

local function told_apart(meta)
  hidden[meta] = true
  return asked_in_place(meta)
end

return {
  hidden = hidden,
  asked_in_place = asked_in_place,
  told_apart = told_apart,
  raise = raise,
  end_call = end_call,
  raise_final = raise_final,
  constructor = constructor,
  template = template,
  run_state = S,
  -- What a script compares a table with before it writes to it: what may not change has an `__eq` that raises then.
  probe = {},
  has_history = host.undo_depth > 0,
  puts_aside = host.puts_aside,
}
