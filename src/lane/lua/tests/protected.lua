-- What ends a call cannot be caught by the script.
local harness = ...
local equal = harness.equal
local tests = {}

local function chunk(ids)
  local parts = { string.pack("<I2I2", 1, #ids) }
  for at, id in ipairs(ids) do
    parts[at + 1] = string.pack("<i8i8s4", at, at, id)
  end
  return table.concat(parts)
end

local function open(on_event, given)
  local inner, state, account, host = harness.open(given)
  inner.define_projection({ "id" })
  inner.define_shape(1, { "id" }, "s")
  inner.set_handlers({ on_event = on_event })
  return inner, state, account, host
end

-- Ways to catch an error of `call`; each is tried until nothing fails any more, as a script may that does not give up.
local CATCHERS <const> = {
  pcall = function(inner, call)
    return inner.script_pcall(call)
  end,
  nested = function(inner, call)
    return inner.script_pcall(inner.script_pcall, inner.script_pcall, call)
  end,
  xpcall = function(inner, call, seen)
    return inner.script_xpcall(call, function(failure)
      seen[#seen + 1] = failure
      return failure
    end)
  end,
  close = function(inner, call)
    return inner.script_pcall(function()
      local _ <close> = setmetatable({}, {
        __close = function()
          error("another one")
        end,
      })
      call()
    end)
  end,
  loop = function(inner, call)
    local closing = setmetatable({}, {
      __close = function()
        error({})
      end,
    })
    return inner.script_pcall(function()
      for value in call, nil, nil, closing do
        if value then break end
      end
    end)
  end,
  index = function(inner, call)
    return inner.script_pcall(function()
      return setmetatable({}, { __index = call }).x
    end)
  end,
  sort = function(inner, call)
    return inner.script_pcall(table.sort, { 1, 2, 3 }, call)
  end,
  gsub = function(inner, call)
    return inner.script_pcall(string.gsub, "abc", ".", call)
  end,
}

function tests.a_dry_run_ends_however_its_end_is_caught()
  for name, catch in next, CATCHERS do
    local seen, tries = {}, 0
    local inner, host, _
    inner, _, _, host = open(function(event, ctx)
      repeat
        tries = tries + 1
        if tries > 100 then return end
        local _, row = catch(inner, function()
          return ctx.account:get(event.id)
        end, seen)
      until row == nil or row
    end)
    local status, message = inner.run(1, 1, 3, chunk({ "a", "b", "c" }))
    if status == MISSED then
      if tries ~= 3 then error(name .. ": " .. tries .. " tries") end
      local want = harness.told(host, "want")[1]
      equal(want[5] .. want[6], string.pack("<s4s4s4", "a", "b", "c"))
      inner.supply(1, 1, "", true, "")
      status, message = inner.resume(1)
    else
      -- A call cannot wait within a function of the library: it loads the row at once.
      equal(harness.told(host, "load")[1][4], "a")
    end
    if status ~= DONE then error(name .. ": " .. tostring(message)) end
    equal(#seen, 0)
  end
end

function tests.memory_that_is_used_up_is_not_caught()
  for name, catch in next, CATCHERS do
    local seen = {}
    local inner
    inner = open(function()
      catch(inner, function()
        error("not enough memory", 0)
      end, seen)
    end)
    local status, message = inner.run(1, 1, 1, chunk({ "a" }))
    -- A script can have no `__close`: there another error may take its place.
    if name ~= "close" and name ~= "loop" then
      equal(status, SHORT)
      equal(message, "handlers.lua: not enough memory")
    end
    equal(#seen, 0)
  end
end

function tests.a_stack_that_is_used_up_is_not_caught()
  local inner
  local function deep()
    return 1 + deep()
  end
  local function nested()
    inner.script_pcall(nested)
  end
  -- How deep calls of C nest depends on whether the call has waited for a row, so it is nothing of the event.
  for call, expected in next, { [deep] = FAILED, [nested] = MISUSED } do
    inner = open(function()
      inner.script_pcall(call)
    end)
    local status, message = inner.run(1, 1, 1, chunk({ "a" }))
    equal(status, expected)
    if not string.find(message, "stack overflow", 1, true) then error(message) end
  end
end

-- A text of an event may say what Lua does.
function tests.what_a_script_says_is_no_stack_that_is_used_up()
  for text in string.gmatch("stack overflow,C stack overflow,stack overflow (x),too many results to unpack", "[^,]+") do
    local inner, caught, handled, answer
    inner = open(function(event)
      caught = select(2, inner.script_pcall(error, text, 0))
      answer = select(
        2,
        inner.script_xpcall(error, function(failure)
          handled = failure
          return "not enough memory"
        end, text, 0)
      )
      if event.id == "b" then error(text, 0) end
    end)
    equal(inner.run(1, 1, 1, chunk({ "a" })), DONE)
    equal(caught, text)
    equal(handled, text)
    equal(answer, "not enough memory")
    local status, message = inner.run(1, 1, 1, chunk({ "b" }))
    equal(status, FAILED)
    equal(message, "handlers.lua: " .. text)
  end
end

function tests.memory_that_is_used_up_in_a_dry_run_ends_the_dry_run()
  local is_short = true
  local inner, _, _, host = open(function(event, ctx)
    if event.id == "b" and is_short then error("not enough memory", 0) end
    ctx.account:get(event.id)
  end)
  equal(inner.run(1, 1, 3, chunk({ "a", "b", "c" })), MISSED)
  equal(#harness.told(host, "begin_dry"), 1)
  equal(#harness.told(host, "end_dry"), 1)
  equal(harness.told(host, "want")[1][5], string.pack("<s4", "a"))
  is_short = false
  inner.supply(1, 1, "", true, "")
  equal(inner.resume(1), DONE)
end

function tests.other_errors_are_caught_as_ever()
  local inner = harness.open()
  local ok, failure = inner.script_pcall(error, "no luck", 0)
  equal(ok, false)
  equal(failure, "no luck")
  equal(select("#", inner.script_pcall(error)), 2)
  local sum, a, b
  ok, sum, a, b = inner.script_pcall(function(...)
    return 1, ...
  end, nil, 3)
  equal(ok and sum == 1 and a == nil and b, 3)
  ok, failure = inner.script_xpcall(error, function(text)
    return "seen: " .. text
  end, "no luck", 0)
  equal(ok, false)
  equal(failure, "seen: no luck")
  harness.fails("pcall: expected a function", inner.script_pcall)
  harness.fails("xpcall: expected a function that handles errors, got a nil", inner.script_xpcall, error)
end

-- As in Lua a handler of errors hears of its own ones; it is not asked for ever.
function tests.a_handler_of_errors_that_raises_hears_of_it()
  local inner, heard, answer
  local on_event = {}
  function on_event.once()
    answer = select(
      2,
      inner.script_xpcall(error, function(failure)
        heard[#heard + 1] = failure
        if #heard == 1 then error("second", 0) end
        return "third"
      end, "first", 0)
    )
  end
  function on_event.ever()
    answer = select(
      2,
      inner.script_xpcall(error, function(failure)
        heard[#heard + 1] = failure
        error("again", 0)
      end, "first", 0)
    )
  end
  for name, expected in next, { once = "first second third", ever = "first again error in error handling" } do
    heard = {}
    inner = open(on_event[name])
    equal(inner.run(1, 1, 1, chunk({ "a" })), DONE)
    equal(heard[1] .. " " .. heard[2] .. " " .. answer, expected)
  end
end

function tests.the_text_of_an_error_is_made_without_rows()
  local inner = open(function(_, ctx)
    error(setmetatable({}, {
      __tostring = function()
        ctx.account:set("x", { seen = 1 })
        return "never"
      end,
    }))
  end)
  local _, message = inner.run(1, 1, 1, chunk({ "a" }))
  equal(message, "handlers.lua: it raised a table, and no message")
  local of_event = open(function(event)
    error(setmetatable({}, {
      __tostring = function()
        return "bad " .. event.id
      end,
    }))
  end)
  _, message = of_event.run(1, 1, 1, chunk({ "a" }))
  equal(message, "handlers.lua: bad a")
end

return tests
