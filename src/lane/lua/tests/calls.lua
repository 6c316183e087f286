-- Calls of handlers: events in chunks, calls that wait, and snapshots.
local harness = ...
local equal = harness.equal
local tests = {}

-- Events of shape 1 with one field, at blocks from 1 on.
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
  inner.set_handlers({
    on_event = on_event,
    on_snapshot = function(ctx)
      return ctx.account:get("a").seen
    end,
    texts = string,
  })
  return inner, state, account, host
end

-- The first table of a region as its next call has it.
local function account_of(inner, number)
  inner.use_ctx(inner.regions[number])
  return inner.regions[number].view.ctx.account
end

local function add(event, ctx)
  local row = ctx.account:get(event.id) or { seen = 0 }
  row.seen = row.seen + 1
  ctx.account:set(event.id, row)
end

function tests.events_are_handled_in_order()
  local inner, _, _, host = open(add, { is_empty = true })
  equal((inner.run(1, 1, 3, chunk({ "a", "b", "a" }))), DONE)
  equal(account_of(inner, 1):get("a").seen, 2)
  equal(account_of(inner, 1):get("b").seen, 1)
  equal(#harness.told(host, "tick"), 3)
end

function tests.a_call_waits_and_those_behind_it_run_dry()
  local inner, _, _, host = open(add)
  equal((inner.run(1, 1, 3, chunk({ "a", "b", "c" }))), MISSED)
  local wants = harness.told(host, "want")
  equal(#wants, 1)
  equal(wants[1][5], string.pack("<s4", "a"))
  equal(wants[1][6], string.pack("<s4s4", "b", "c"))
  inner.supply(1, 1, harness.packed(inner, "b", { seen = 10 }), false, wants[1][5] .. wants[1][6])
  equal((inner.resume(1)), DONE)
  equal(account_of(inner, 1):get("a").seen, 1)
  equal(account_of(inner, 1):get("b").seen, 11)
  equal(inner.changed_rows(), 3)
end

function tests.several_calls_may_wait()
  local inner, _, _, host = open(add)
  inner.define_region(2, "south", { false })
  equal((inner.run(1, 1, 1, chunk({ "a" }))), MISSED)
  equal((inner.run(2, 2, 1, chunk({ "a" }))), MISSED)
  equal(#harness.told(host, "want"), 2)
  inner.supply(1, 1, "", true, "")
  inner.supply(1, 2, "", true, "")
  equal((inner.resume(1)), DONE)
  equal((inner.resume(2)), DONE)
  equal(account_of(inner, 1):get("a").seen, 1)
  equal(account_of(inner, 2):get("a").seen, 1)
end

-- Lanes of few events: of each its number, its region, and its ids.
local function few(...)
  local heads, events = {}, ""
  for at, given in ipairs({ ... }) do
    heads[at] = string.pack("<i8i8i8i8", given[1], given[2], #given[3], #events + 1)
    events = events .. chunk(given[3])
  end
  return table.concat(heads), events
end

function tests.lanes_of_few_events_are_handled_in_order()
  local seen = {}
  local inner, _, _, host = open(function(event, ctx)
    seen[#seen + 1] = ctx.region .. ctx.block .. event.id
  end, { is_empty = true })
  inner.define_region(2, "south", { true })
  local status, are_waiting = inner.run_few(few({ 7, 2, { "a", "b" } }, { 9, 1, { "c" } }))
  equal(status, DONE)
  equal(are_waiting, "")
  equal(table.concat(seen, " "), "south1a south2b north1c")
  local ticks = harness.told(host, "tick")
  equal(ticks[1][2] .. ticks[2][2] .. ticks[3][2], "123")
end

function tests.a_lane_that_waits_keeps_nobody_from_going_on()
  local inner, _, _, host = open(add)
  inner.define_region(2, "south", { true })
  inner.define_region(3, "east", { false })
  local status, are_waiting = inner.run_few(few({ 4, 1, { "a", "b" } }, { 5, 2, { "a", "a" } }, { 6, 3, { "c", "d" } }))
  equal(status, DONE)
  equal(are_waiting, string.pack("<i8i8", 4, 6))
  equal(account_of(inner, 2):get("a").seen, 2)
  local wants = harness.told(host, "want")
  equal(#wants, 2)
  equal(wants[1][5] .. wants[1][6], string.pack("<s4s4", "a", "b"))
  inner.supply(1, 1, harness.packed(inner, "a", { seen = 10 }), true, "")
  inner.supply(1, 3, "", true, "")
  equal((inner.resume(4)), DONE)
  equal((inner.resume(6)), DONE)
  equal(account_of(inner, 1):get("a").seen, 11)
  equal(account_of(inner, 1):get("b").seen, 1)
  equal(account_of(inner, 3):get("d").seen, 1)
  equal(inner.changed_rows(), 5)
end

function tests.behind_an_event_that_fails_its_lane_and_the_others_go_on()
  local inner, _, _, host = open(function(event, ctx)
    add(event, ctx)
    if event.id == "b" then error("no such luck", 0) end
  end, { is_empty = true, host = { puts_aside = true } })
  inner.define_region(2, "south", { true })
  local status, message = inner.run_few(few({ 1, 1, { "a", "b", "c" } }, { 2, 2, { "b" } }, { 3, 1, { "d" } }))
  equal(status, FAILED)
  equal(message, "handlers.lua: no such luck")
  equal(harness.told(host, "tick")[2][2], 2)
  equal((inner.pass_over_few()), FAILED)
  equal(harness.told(host, "tick")[4][2], 4)
  equal((inner.pass_over_few()), DONE)
  equal(inner.changed_rows(), 3)
  equal(account_of(inner, 1):get("b"), nil)
  equal(account_of(inner, 1):get("d").seen, 1)
end

function tests.snapshots_may_wait_together()
  local inner = open(add)
  inner.define_region(2, "south", { false })
  equal((inner.snapshot(1, 7, SNAPSHOT_CALL)), MISSED)
  equal((inner.snapshot(2, 7, SNAPSHOT_CALL - 1)), MISSED)
  inner.supply(1, 1, harness.packed(inner, "a", { seen = 3 }), false, "")
  inner.supply(1, 2, harness.packed(inner, "a", { seen = 4 }), false, "")
  local _, first = inner.resume(SNAPSHOT_CALL)
  local _, second = inner.resume(SNAPSHOT_CALL - 1)
  equal(first + second * 10, 43)
end

function tests.a_snapshot_counts_in_passing()
  local inner, state, account, host = open(add)
  inner.set_handlers({
    on_event = add,
    on_snapshot = function(ctx)
      return ctx.account:count() + 100 * ctx.account:count({ where = { { "balance", ">", 1 } } })
    end,
    texts = string,
  })
  inner.supply(1, 1, harness.packed(inner, "a", { seen = 3 }), false, "")
  account:get("a")
  account:set("a", { balance = 5 })
  account:set("b", { balance = 1 })
  equal((inner.snapshot(1, 7)), MISSED)
  equal(#harness.told(host, "want"), 0)
  local asked = harness.told(host, "want_answer")[1]
  -- The store is to count neither.
  equal(#asked[10], #string.pack("<s4s4", "a", "b"))
  inner.supply_found(1, "", 40, true)
  equal((inner.resume(SNAPSHOT_CALL)), MISSED)
  inner.supply_found(1, "", 20, true)
  local status, document = inner.resume(SNAPSHOT_CALL)
  equal(status, DONE)
  equal(document, 42 + 100 * 21)
  -- Writes need not keep it right.
  equal(state[COUNTS], false)
  equal(state[INDEXES], false)
end

function tests.a_handler_that_fails_says_where()
  local inner = open(function()
    error("no such luck", 0)
  end)
  local status, message = inner.run(1, 1, 1, chunk({ "a" }))
  equal(status, FAILED)
  equal(message, "handlers.lua: no such luck")
  local again = open(function()
    error({})
  end)
  local _, other = again.run(1, 1, 1, chunk({ "a" }))
  equal(other, "handlers.lua: it raised a table, and no message")
end

function tests.a_snapshot_waits_as_a_call_does()
  local inner = open(add)
  equal((inner.snapshot(1, 7)), MISSED)
  inner.supply(1, 1, harness.packed(inner, "a", { seen = 3 }), false, "")
  local status, document = inner.resume(SNAPSHOT_CALL)
  equal(status, DONE)
  equal(document, 3)
  equal(inner.regions[1].view.ctx.block, 7)
end

return tests
