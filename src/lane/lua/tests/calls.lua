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
  return inner.regions[number].ctx.account
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
  equal(wants[1][5], string.pack("<s4s4s4", "a", "b", "c"))
  inner.supply(1, 1, harness.packed(inner, "b", { seen = 10 }), false, wants[1][5])
  equal((inner.resume(1)), DONE)
  equal(account_of(inner, 1):get("a").seen, 1)
  equal(account_of(inner, 1):get("b").seen, 11)
  equal(inner.changed_rows(), 3)
end

function tests.several_calls_may_wait()
  local inner, _, _, host = open(add)
  inner.define_region(2, "south", { false }, { false })
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
  equal(inner.regions[1].ctx.block, 7)
end

return tests
