-- What the tests of the Lua files have: a host that notes what it is told, and a few checks.

local load_pieces, real, constants = ...

local harness = { constants = constants }
local tointeger = math.tointeger -- the pieces put another one in its place

-- A kind that has a bit of everything.
harness.ACCOUNT = {
  name = "account",
  columns = {
    { name = "balance", type = "numeric", indexed = true },
    { name = "note", type = "text", indexed = false },
    { name = "seen", type = "bigint", indexed = false },
  },
}

-- A host that knows nothing. `told` is all that it was told, in order: the function's name and what it was given.
function harness.host(own)
  local host = { told = {}, undo_depth = 0, memory_bytes = math.maxinteger, puts_aside = false }
  for name, value in next, real do
    host[name] = value
  end
  local function note(name, answer)
    host[name] = function(...)
      host.told[#host.told + 1] = { name, ... }
      return answer
    end
  end
  for _, name in ipairs({ "tick", "want", "want_answer", "ask", "load", "sealed", "before", "unseen" }) do
    note(name)
  end
  note("forget_region")
  note("begin_dry")
  note("end_dry")
  host.place = function()
    return "handlers.lua:7: "
  end
  host.nearest = function()
    return ""
  end
  host.is_absent = function()
    return false
  end
  host.integer = tointeger
  host.is_given = function()
    return false
  end
  host.time = function(text)
    return string.sub(text, -1) == "Z" and text or nil
  end
  host.encode = function(value)
    return tostring(value)
  end
  host.decode = function(text)
    return { text = text }
  end
  host.field = function()
    return nil
  end
  host.all_fields = function()
    return {}
  end
  for name, value in next, own or {} do
    host[name] = value
  end
  return host
end

-- Loads the pieces up to `last` (or all but the sandbox) for one region, number 1. Returns what they gave, the state of
-- its first table, that table as a script has it, and the host.
function harness.open(given)
  given = given or {}
  local host = harness.host(given.host)
  local kinds = given.kinds or { harness.ACCOUNT }
  local inner = load_pieces(host, kinds, given.last or "calls")
  if given.last then return inner, host end
  inner.define_region(1, "north", { given.is_empty or false })
  inner.begin_batch(1, 0)
  inner.run_state[constants.REGION] = inner.regions[1]
  inner.use_ctx(inner.regions[1])
  return inner, inner.table_of(inner.regions[1], 1), inner.regions[1].view.ctx[kinds[1].name], host
end

-- What was told of one name.
function harness.told(host, name)
  local found = {}
  for _, one in ipairs(host.told) do
    if one[1] == name then found[#found + 1] = one end
  end
  return found
end

function harness.equal(got, expected)
  if got ~= expected then error("expected " .. tostring(expected) .. ", got " .. tostring(got), 2) end
end

-- The call fails, and says so.
function harness.fails(says, call, ...)
  local ok, message = pcall(call, ...)
  if ok then error("expected it to fail: " .. says, 2) end
  if not string.find(tostring(message), says, 1, true) then
    error("expected it to say " .. says .. ", got " .. tostring(message), 2)
  end
end

-- Loads a script whose on_snapshot is `body`, behind `head`. Returns the inner side, or what is wrong with the script.
function harness.load_script(head, body)
  local inner = harness.open({ host = { print = print, puts_aside = false }, last = "sandbox" })
  inner.define_region(1, "north", { true })
  inner.begin_batch(1, 0)
  inner.table_of(inner.regions[1], 1)
  inner.run_state[constants.REGION] = inner.regions[1]
  local text = head .. "\nfunction on_event() end\nfunction on_snapshot(ctx)\n" .. (body or "") .. "\nend\n"
  local ok, problem = inner.load_script(text)
  return ok ~= nil and inner or nil, problem
end

-- What the body of such a script returns.
function harness.result(head, body)
  local inner, problem = harness.load_script(head, body)
  if not inner then error("refused: " .. problem, 2) end
  local status, answer = inner.snapshot(1, 7)
  if status ~= constants.DONE then error(body .. ": " .. tostring(answer), 2) end
  return answer
end

-- Its body fails, and says all of that.
function harness.fails_in_script(head, body, ...)
  local inner, problem = harness.load_script(head, body)
  if not inner then error("refused: " .. problem, 2) end
  local status, answer = inner.snapshot(1, 7)
  if status ~= constants.FAILED then error("expected it to fail: " .. head .. " " .. body, 2) end
  for _, says in ipairs({ ... }) do
    if not answer:find(says, 1, true) then error("expected " .. says .. " of " .. body .. ", got " .. answer, 2) end
  end
  if #answer > 400 then error("too long: " .. answer, 2) end
end

-- The row of an id in packed form, as the host supplies it.
function harness.packed(inner, id, row)
  local cells, kind = {}, inner.table_of(inner.regions[1], 1)[constants.KIND]
  kind.read(row, cells, 1)
  return kind.pack(id, constants.WRITTEN, 0, cells, 1)
end

return harness
