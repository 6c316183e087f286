-- What a batch hands out at its end.
local harness = ...
local equal = harness.equal
local tests = {}

-- The changes in what was handed out: "id change" by id.
local function changes(state, host)
  local found = {}
  for _, told in ipairs(harness.told(host, "sealed")) do
    local packed, at = told[3], 1
    while at <= #packed do
      local id, change = string.unpack("<s4B", packed, at)
      found[id] = change
      if change == DELETED then
        at = at + #string.pack("<s4Bi8", id, 0, 0)
      else
        _, at = state[KIND].unpack(packed, at, {}, 1)
      end
    end
  end
  return found
end

function tests.each_row_is_handed_out_as_what_became_of_it()
  local inner, state, account, host = harness.open()
  local rows = harness.packed(inner, "changed", { seen = 1 }) .. harness.packed(inner, "deleted", { seen = 2 })
  inner.supply(1, 1, rows, true, "")
  account:set("changed", { seen = 3 })
  account:set("new", { seen = 4 })
  account:set("passing", { seen = 5 })
  account:delete("passing")
  account:delete("deleted")
  inner.seal()
  local found = changes(state, host)
  equal(found.changed, WRITTEN)
  equal(found.new, NEW)
  equal(found.deleted, DELETED)
  equal(found.passing, nil)
  equal(state[DIRTY_COUNT], 0)
  equal(inner.changed_rows(), 0)
end

function tests.nothing_is_handed_out_twice()
  local inner, _, account, host = harness.open({ is_empty = true })
  account:set("a", { seen = 1 })
  inner.seal()
  inner.begin_batch(2, 1)
  inner.seal()
  equal(#harness.told(host, "sealed"), 1)
end

function tests.many_rows_come_in_parts()
  local inner, state, account, host = harness.open({ is_empty = true })
  local note = ("x"):rep(100)
  for at = 1, 5000 do
    account:set("a" .. at, { note = note })
  end
  inner.seal()
  assert(#harness.told(host, "sealed") > 1)
  local found, count = changes(state, host), 0
  for _ in next, found do
    count = count + 1
  end
  equal(count, 5000)
end

return tests
