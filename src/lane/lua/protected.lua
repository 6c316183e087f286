-- Errors that a script cannot catch: the end of a dry run, a `ctx` or an event that was kept, a store that does not
-- answer, and memory or a stack that is used up, perhaps amid a function of the inner side. What has ended the call is
-- noted (ENDED), as a script's `__close` may put another error in its place.

local inner = ...
local S, raise, host, null = inner.run_state, inner.raise, inner.host, inner.host.null
local collectgarbage = collectgarbage
local xpcall, error, type, select, tonumber, tostring = xpcall, error, type, select, tonumber, tostring
local rawmeta, setmeta = getmetatable, setmetatable
local script_name <const> = inner.script_name
local sub, find, match, gmatch = string.sub, string.find, string.match, string.gmatch
local tointeger = math.tointeger

local NO_MEMORY <const>, NO_STACK <const> = "not enough memory", "stack overflow"
local STACK_END <const> = NO_STACK .. "$"
local NO_ROOM <const> = "too many results to unpack" -- what table.unpack says where the stack gets no more memory
local NO_HANDLER <const> = "error in error handling"
local HANDLER_TRIES <const> = 10 -- errors of a handler of errors that it hears of itself

-- Lua says these as they stand here, behind the line where it does so. A text of an event may hold the same words: what
-- a script raises with them is told apart by `said`.

-- What Lua says, without the line. The name of the script may hold a colon.
local function without_line(failure)
  if sub(failure, 1, #script_name + 1) == script_name .. ":" then
    return match(failure, "^%d+: (.*)$", #script_name + 2) or failure
  end
  return match(failure, "^inner:[%l_]+:%d+: (.*)$") or match(failure, "^[^:]*:%d+: (.*)$") or failure
end

-- Whether an error came of a function of the host, or of memory that is used up: then the inner side may have stopped
-- anywhere.
local function is_broken(failure)
  if type(failure) == "string" then return failure == NO_MEMORY end
  return type(failure) == "userdata" and failure ~= null
end

-- Whether memory is used up.
local function is_short(failure)
  if type(failure) ~= "userdata" or failure == null then return failure == NO_MEMORY end
  local text = tostring(failure)
  text = sub(text, 1, (find(text, "\nstack traceback:", 1, true) or 0) - 1)
  return sub(text, -#NO_MEMORY) == NO_MEMORY
end

local function is_final(failure)
  if is_broken(failure) then return true end
  if type(failure) ~= "string" then return false end
  local text = without_line(failure)
  return text == NO_STACK
    or text == "C " .. NO_STACK
    or sub(text, 1, #NO_STACK + 2) == NO_STACK .. " ("
    or text == NO_ROOM
    or failure == NO_HANDLER
end

-- Whether an error may be another one the next time, or none: there is less room on the stack of C in a call that has
-- not waited for a row, and lists get as much of a stack as there is memory for. Functions of the script alone fill up
-- the same stack each time.
local function is_of_the_time(failure)
  if not is_final(failure) or is_broken(failure) then return false end
  return without_line(failure) ~= NO_STACK
end

-- A text that a script raised, and that Lua might have said.
local said_meta = inner.told_apart({ __name = "error" })

local function said(text)
  return setmeta({ text }, said_meta)
end

-- What a script raised, as it sees it.
local function unsaid(failure)
  if type(failure) == "table" and said_meta == rawmeta(failure) then return failure[1] end
  return failure
end

-- How messages of Lua begin that name a line of ours, or none: the script's line is what users want.
local PLACELESS <const> = {
  "^inner:[%l_]+:%d+: ()",
  "^()attempt to compare ",
  "^()attempt to index a ",
  "^()attempt to call a ",
  "^()attempt to concatenate a ",
  "^()attempt to get length of a ",
  "^()attempt to perform arithmetic on a ",
  "^()bad argument #%d",
  "^()invalid key to 'next'",
}

local script_text = ""

-- The line of the script that is being run, for a message that does not name the operand.
local function script_line()
  local wanted = tonumber(match(host.place(), ":(%d+): $"))
  local number = 0
  for line in gmatch(script_text, "([^\n]*)\n?") do
    number = number + 1
    if number == wanted then return " in: " .. match(line, "^%s*(.-)%s*$") end
  end
  return ""
end

-- Of two operands that are no numbers Lua does not always know the name.
local NAMELESS <const> = "attempt to perform arithmetic on a [%a ]+ value$"

local function placed(failure)
  if type(failure) ~= "string" then return failure end
  if find(failure, STACK_END) then
    -- On a stack that is full there is little room, and a step of the collector would take that away.
    collectgarbage("stop")
    local is_raised = host.is_raised()
    collectgarbage("restart")
    if not is_raised then return failure end
  end
  -- Of memory that is used up no handler of errors hears; nor of `error("not enough memory", 0)`, which Lua makes that.
  if is_final(failure) then return host.is_raised() and said(failure) or failure end
  local said_by_lua = failure
  if find(failure, NAMELESS) then said_by_lua = failure .. script_line() end
  for at = 1, #PLACELESS do
    local first = match(failure, PLACELESS[at])
    if first then
      said_by_lua = host.place() .. sub(said_by_lua, first)
      break
    end
  end
  -- What a script raises stays as it is, whatever it begins with.
  return said_by_lua ~= failure and not host.is_raised() and said_by_lua or failure
end

-- Calls a handler: whether it failed, and its answer or what it failed with.
local function call_handler(...)
  local ok, answer = xpcall(...)
  return not ok, answer
end

-- What `pcall` gave, unless the call has ended.
local function unless_ended(ok, ...)
  if ok then return ok, ... end
  local failure = ...
  if S[ENDED] == false and is_final(failure) then S[ENDED] = failure end
  if S[ENDED] ~= false then error(S[ENDED], 0) end
  return false, unsaid(failure)
end

-- Of a text that is raised the host says where it is to stand: Lua would name lines of ours.
local function script_error(failure, level, ...)
  local depth = level == nil and 1 or tointeger(level)
  if depth and depth > 0 and type(failure) == "string" then return error(host.place_at(depth) .. failure, 0) end
  return error(failure, level, ...)
end

local function script_pcall(...)
  if select("#", ...) == 0 then raise("pcall: expected a function") end
  local call = ...
  return unless_ended(xpcall(call, placed, select(2, ...)))
end

local function script_xpcall(call, handler, ...)
  if type(handler) ~= "function" then
    raise("xpcall: expected a function that handles errors, got a " .. type(handler))
  end
  local function handle(failure, ...)
    failure = placed(failure)
    for _ = 1, HANDLER_TRIES do
      if S[ENDED] ~= false or is_final(failure) then return failure end
      local is_handled, answer = xpcall(handler, placed, unsaid(failure), ...)
      if is_handled then return is_final(answer) and said(answer) or answer end
      failure = answer
    end
    return said(NO_HANDLER)
  end
  return unless_ended(xpcall(call, handle, ...))
end

return {
  is_broken = is_broken,
  is_final = is_final,
  is_short = is_short,
  is_of_the_time = is_of_the_time,
  unsaid = unsaid,
  script_line = script_line,
  set_script_text = function(text)
    script_text = text
  end,
  placed = placed,
  call_handler = call_handler,
  script_error = script_error,
  script_pcall = script_pcall,
  script_xpcall = script_xpcall,
}
