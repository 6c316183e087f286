-- What a script keeps of a call, `ctx` or its event, does not work in another one.
local harness = ...
local equal, fails = harness.equal, harness.fails
local tests = {}

local KEPT <const> = "works in that call only"
local READ <const> = "an event can be read only while it is handled"

-- Events of shape 1 with two fields, at blocks from 1 on.
local function chunk(ids)
  local parts = { string.pack("<I2I2", 1, #ids) }
  for at, id in ipairs(ids) do
    parts[at + 1] = string.pack("<i8i8s4i8", at, at, id, at)
  end
  return table.concat(parts)
end

local function open(on_event, given)
  local inner, state, account, host = harness.open(given or { is_empty = true })
  inner.define_region(2, "south", { true })
  inner.define_projection({ "id", "n" })
  inner.define_shape(1, { "id", "n" }, "si")
  inner.set_handlers({ on_event = on_event, on_snapshot = on_event })
  return inner, state, account, host
end

-- Each way through a ctx, or what was taken off it.
local WAYS <const> = {
  region = function(kept)
    return kept.ctx.region
  end,
  block = function(kept)
    return kept.ctx.block
  end,
  entity = function(kept)
    return kept.ctx.account
  end,
  unknown = function(kept)
    return kept.ctx.nonsense
  end,
  get = function(kept)
    return kept.account:get("a")
  end,
  taken_get = function(kept)
    return kept.get(kept.account, "a")
  end,
  set = function(kept)
    kept.account:set("a", { seen = 1 })
  end,
  taken_set = function(kept)
    kept.set(kept.account, "a", { seen = 1 })
  end,
  add = function(kept)
    kept.account:add("a", { seen = 1 })
  end,
  max = function(kept)
    kept.account:max("a", { seen = 1 })
  end,
  min = function(kept)
    kept.account:min("a", { seen = 1 })
  end,
  delete = function(kept)
    kept.account:delete("a")
  end,
  find = function(kept)
    return kept.account:find()
  end,
  count = function(kept)
    return kept.account:count()
  end,
}

local function keep(ctx)
  return { ctx = ctx, account = ctx.account, get = ctx.account.get, set = ctx.account.set }
end

-- In the next call, by way of `again`, each use ends the call.
local function refused(says, again)
  for name, use in next, WAYS do
    local kept
    local inner = open(function(event, ctx)
      ctx = ctx or event
      if kept then return use(kept) end
      kept = keep(ctx)
      use(kept.ctx.region and name ~= "unknown" and kept or { ctx = {} })
    end)
    local status, message = again(inner)
    equal(status, MISUSED)
    local is_told = string.find(message, KEPT, 1, true) and string.find(message, says, 1, true)
    if not is_told then error(name .. ": " .. message) end
    if not string.find(message, "^handlers.lua:7: ") then error(name .. ": " .. message) end
  end
end

function tests.a_ctx_of_an_earlier_event_is_refused()
  refused("an earlier call", function(inner)
    return inner.run(1, 1, 2, chunk({ "a", "b" }))
  end)
end

function tests.a_ctx_of_another_region_is_refused_by_name()
  local says = 'a call for region "north", and works in that call only; use the ctx of this call for region "south"'
  refused(says, function(inner)
    equal((inner.run(1, 1, 1, chunk({ "a" }))), DONE)
    return inner.run(1, 2, 1, chunk({ "a" }))
  end)
end

function tests.a_ctx_of_an_event_is_refused_in_a_snapshot_and_the_other_way_round()
  refused("an earlier call", function(inner)
    equal((inner.run(1, 1, 1, chunk({ "a" }))), DONE)
    return inner.snapshot(1, 7)
  end)
  local kept
  local inner = open(function(event, ctx)
    if kept then return kept:get("a") end
    kept = event.account
    return ctx
  end)
  equal((inner.snapshot(1, 7)), DONE)
  local status, message = inner.run(1, 1, 1, chunk({ "a" }))
  equal(status, MISUSED)
  if not string.find(message, KEPT, 1, true) then error(message) end
end

function tests.a_ctx_of_one_of_many_regions_is_refused_by_name()
  local kept
  local inner = open(function()
    if kept then return kept:get("a") end
  end)
  for number = 3, 3000 do
    inner.define_region(number, "r" .. number, { true })
    equal((inner.run(1, number, 1, chunk({ "a" }))), DONE)
    if number % 1000 == 0 then kept = inner.regions[number].view and inner.regions[number].view.ctx.account end
    if kept then
      local status, message = inner.run(1, 1, 1, chunk({ "a" }))
      equal(status, MISUSED)
      local says = 'a call for region "r' .. number .. '"'
      if not string.find(message, says, 1, true) then error(message) end
      kept = nil
    end
  end
  local views = 0
  for _, region in next, inner.regions do
    if region.view then views = views + 1 end
  end
  if views > 1100 then error(views .. " regions have a ctx") end
end

function tests.a_table_is_made_for_its_first_use_and_no_other_kind_of_entity_is_taken()
  local message
  local inner = harness.open({
    kinds = { harness.ACCOUNT, { name = "token", columns = { { name = "seen", type = "bigint", indexed = false } } } },
    is_empty = true,
  })
  inner.define_region(2, "south", { true, true })
  inner.define_projection({ "id", "n" })
  inner.define_shape(1, { "id", "n" }, "si")
  local function on_event(_, ctx)
    ctx.token:set("a", { seen = 1 })
    _, message = inner.script_pcall(ctx.account.get, ctx.token, "a")
  end
  inner.set_handlers({ on_event = on_event, texts = string })
  equal((inner.run(1, 2, 1, chunk({ "a" }))), DONE)
  equal(inner.regions[2].tables[1], false)
  equal(inner.regions[2].tables[2][ROWS], 1)
  if not string.find(message, "call it with a colon", 1, true) then error(message) end
end

function tests.a_kept_ctx_cannot_be_caught()
  local kept, inner
  inner = open(function(_, ctx)
    if kept then inner.script_pcall(kept.get, kept, "a") end
    kept = ctx.account
  end)
  local status, message = inner.run(1, 1, 2, chunk({ "a", "b" }))
  equal(status, MISUSED)
  if not string.find(message, KEPT, 1, true) then error(message) end
end

function tests.a_ctx_that_is_shared_by_calls_ends_after_some()
  local kept
  local inner = open(function(_, ctx)
    ctx.account:set("a", { seen = 1 })
    kept = kept or ctx
  end)
  local ids = {}
  for at = 1, 1000 do
    ids[at] = "a"
  end
  for _ = 1, 2 do
    equal((inner.run(1, 1, #ids, chunk(ids))), DONE)
  end
  kept = nil
  for _ = 1, 100 do
    equal((inner.run(1, 1, 1, chunk({ "a" }))), DONE)
  end
  fails(KEPT, function()
    return kept.region
  end)
end

function tests.an_event_that_was_kept_shows_nothing()
  local uses = {
    hot = function(event)
      return event.id
    end,
    cold = function(event)
      return event.other
    end,
    note = function(event)
      return event.mine
    end,
    write = function(event)
      event.id = "b"
    end,
    remove = function(event)
      event.id = nil
    end,
  }
  for name, use in next, uses do
    for _, again in next, { "next", "snapshot", "dry" } do
      local kept
      local inner = open(function(event, ctx)
        if kept then return use(kept) end
        kept = event
        equal(event.id, "a")
        event.mine, event.n = 5, nil
        equal(event.other, nil)
        if again == "dry" then ctx.account:get("c") end
      end, { is_empty = again ~= "dry" })
      local status, message
      if again == "snapshot" then
        equal((inner.run(1, 1, 1, chunk({ "a" }))), DONE)
        status, message = inner.snapshot(1, 7)
      else
        status, message = inner.run(1, 1, 2, chunk({ "a", "b" }))
        if again == "dry" then
          -- It fails in the dry run too, which says nothing.
          equal(status, MISSED)
          inner.supply(1, 1, "", true, "")
          status, message = inner.resume(1)
        end
      end
      equal(status, MISUSED)
      if not string.find(message, READ, 1, true) then error(name .. ", " .. again .. ": " .. message) end
    end
  end
end

function tests.the_event_is_readable_while_its_call_waits_and_others_run()
  local seen = {}
  local inner = open(function(event, ctx)
    ctx.account:get(event.id)
    seen[#seen + 1] = event.id .. event.n
  end, { is_empty = false })
  inner.run_state[REGION] = nil
  inner.define_region(3, "east", { false })
  equal((inner.run(1, 1, 2, chunk({ "a", "b" }))), MISSED)
  equal((inner.run(2, 3, 2, chunk({ "c", "d" }))), MISSED)
  inner.supply(1, 1, "", true, "")
  inner.supply(1, 3, "", true, "")
  equal((inner.resume(1)), DONE)
  equal((inner.resume(2)), DONE)
  equal(table.concat(seen, " "), "a1 b2 c1 d2")
end

-- What a handler may do to its event.
local CHANGES <const> = {
  function() end,
  function(event)
    event.id = nil
  end,
  function(event)
    event.n = "another"
  end,
  function(event)
    event.note = 5
  end,
  function(event)
    equal(event.unknown, nil)
    equal(event.id ~= nil, true)
  end,
  function(event)
    event.id = nil
    event.id = "back"
    event.n = nil
  end,
  function(event)
    event.note = event.n
    event.note, event.n = nil, nil
  end,
}

-- A table is used for many events, but each has its own fields only. The first calls have tables of their own.
function tests.the_table_of_an_event_is_used_again_and_holds_nothing_of_the_one_before()
  local FRESH <const>, COUNT <const> = 1024, 3000
  local tables, distinct, asked = {}, 0, 0
  local at = 0
  local function counted(event)
    at = at + 1
    if not tables[event] then
      tables[event], distinct = true, distinct + 1
    end
    equal(rawget(event, "n"), at)
    equal(rawget(event, "id"), "id" .. at)
    local fields = 0
    for _ in next, event do
      fields = fields + 1
    end
    equal(fields, 2)
    if at % 11 == 0 then CHANGES[at // 11 % #CHANGES + 1](event) end
  end
  local inner = open(counted, {
    is_empty = true,
    host = {
      field = function()
        asked = asked + 1
      end,
    },
  })
  local ids = {}
  for number = 1, COUNT do
    ids[number] = "id" .. number
  end
  equal((inner.run(1, 1, COUNT, chunk(ids))), DONE)
  equal(at, COUNT)
  assert(distinct >= FRESH and distinct < COUNT // 2, distinct)
  assert(asked > 0)
  for event in next, tables do
    equal(next(event), nil)
  end
end

-- While one call waits its event is not touched by those of other regions, nor by dry runs.
function tests.the_event_of_a_call_that_waits_stays_as_it_is()
  local seen = {}
  local inner, _, _, host = open(function(event, ctx)
    local before = event.id
    ctx.account:get(before)
    equal(event.id, before)
    equal(event.n, tonumber(string.sub(before, 3)))
    seen[#seen + 1] = before
  end, {})
  local packed = { string.pack("<I2I2", 1, 1200) }
  for number = 1, 1200 do
    local id = number > 1190 and number or 1
    packed[number + 1] = string.pack("<i8i8s4i8", 1, number, "id" .. id, id)
  end
  packed = table.concat(packed)
  equal((inner.run(1, 1, 1200, packed)), MISSED)
  equal((inner.run(2, 2, 1200, packed)), DONE)
  local status
  repeat
    local wants = harness.told(host, "want")
    inner.supply(1, 1, "", false, wants[#wants][5])
    status = inner.resume(1)
  until status ~= MISSED
  equal(status, DONE)
  equal(seen[#seen], "id1200")
end

return tests
