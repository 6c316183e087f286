-- What a batch writes.
local harness = ...
local equal, fails = harness.equal, harness.fails
local tests = {}

local function batch_of(inner, state, id)
  local d, at = inner.cells_at(state, inner.lookup(state, id))
  return d[at + state[KIND].batch_at], d[at + state[KIND].writer_at]
end

function tests.a_row_is_marked_once_a_batch()
  local inner, state, account = harness.open({ is_empty = true })
  inner.run_state[WRITER] = 77
  account:set("a", { seen = 1 })
  account:set("a", { seen = 2 })
  equal(state[DIRTY_COUNT], 1)
  equal(inner.changed_rows(), 1)
  local batch, writer = batch_of(inner, state, "a")
  equal(batch, -1)
  equal(writer, 77)
  equal(account:get("a").seen, 2)
end

function tests.a_row_that_comes_back_is_not_new()
  local inner, state, account = harness.open()
  inner.supply(1, 1, harness.packed(inner, "a", { seen = 1 }), false, "")
  account:delete("a")
  equal(state[GONE].a, true)
  equal(account:get("a"), nil)
  account:set("a", { seen = 2 })
  equal((batch_of(inner, state, "a")), 1)
end

function tests.the_fast_and_the_slow_way_write_the_same()
  local fast, fast_handle, fast_account = harness.open({ is_empty = true })
  local slow, slow_handle = harness.open({ is_empty = true })
  local row = { balance = "-17", note = "n", seen = 3 }
  fast_account:set("a", row)
  slow.slow_set(slow_handle, "a", row)
  local kind = fast_handle[KIND]
  for at = 0, kind.width - 1 do
    local d, from = fast.cells_at(fast_handle, fast_handle[YOUNG].a)
    local e, other = slow.cells_at(slow_handle, slow_handle[YOUNG].a)
    equal(d[from + at], e[other + at])
  end
end

function tests.a_refused_row_changes_nothing()
  local inner, state, account = harness.open({ is_empty = true })
  inner.plain = function(tab)
    return tab
  end
  fails("account.seen: expected a bigint", account.set, account, "a", { seen = "x" })
  fails('there is no column "senn"', account.set, account, "a", { senn = 1 })
  -- Of several the first, in whatever order they lie.
  local names = { 1, 2, [2.5] = 1, balance = 1, id = "a" }
  for number = 10, 60 do
    names["n" .. number] = number
    if number > 10 then fails("there is no column a number", account.set, account, "a", names) end
  end
  names[1], names[2], names[2.5] = nil, nil, nil
  local computed = setmetatable(names, { __index = function() end })
  fails('there is no column "n10"', account.set, account, "a", computed)
  setmetatable(names, nil)
  fails('there is no column "n10"', account.set, account, "a", names)
  fails('there is no column "id"', account.set, account, "b", names)
  fails('account:set: expected a table of columns, got the text "x"', account.set, account, "a", "x")
  fails("account:set: expected an id", account.set, account, {}, {})
  fails("call it with a colon", account.set, "a", {})
  equal(state[DIRTY_COUNT], 0)
  equal(inner.changed_rows(), 0)
end

function tests.a_dry_run_sees_its_own_writes_and_leaves_none()
  local inner, state, account = harness.open({ is_empty = true })
  account:set("a", { seen = 1 })
  inner.run_state[MODE] = DRY
  inner.begin_dry({})
  account:set("a", { seen = 2 })
  account:set("b", { seen = 3 })
  equal(account:get("a").seen, 2)
  equal(account:get("b").seen, 3)
  account:delete("a")
  equal(account:get("a"), nil)
  inner.run_state[MODE] = RUN
  equal(account:get("a").seen, 1)
  equal(account:get("b"), nil)
  equal(state[ROWS], 1)
end

function tests.a_dry_run_ends_at_what_the_call_that_waits_wrote()
  local inner, _, account = harness.open({ is_empty = true })
  inner.run_state[WRITER] = 5
  account:set("a", { seen = 1 })
  inner.run_state[MODE], inner.run_state[SUSPENDED_WRITER] = DRY, 5
  inner.begin_dry({})
  local ok, reason = pcall(account.get, account, "a")
  equal(ok, false)
  equal(reason, inner.DRY_END)
end

function tests.a_snapshot_may_not_write()
  local inner, _, account = harness.open({ is_empty = true })
  inner.run_state[MODE] = SNAPSHOT
  fails("on_snapshot may read, and not write", account.set, account, "a", {})
  fails("on_snapshot may read, and not write", account.delete, account, "a")
end

-- What has a metatable is a row all the same, and goes the slow way.
function tests.a_row_may_have_a_metatable()
  local inner, _, account = harness.open({ is_empty = true })
  inner.plain = function(tab)
    return tab
  end
  local base = { note = "of the base", seen = 7 }
  account:set("a", setmetatable({ balance = 5 }, { __index = base }))
  equal(account:get("a").note, "of the base")
  account:set("a", setmetatable({ balance = 5, note = "own", seen = 1 }, { __index = base }))
  equal(account:get("a").note, "own")
  equal(tostring(account:get("a").balance), "5")
  account:set("a", inner.array({}))
  equal(account:get("a").note, nil)
  fails('there is no column "nots"', account.set, account, "a", setmetatable({ nots = 1 }, {}))
end

function tests.what_is_no_row_is_refused()
  local inner, _, account = harness.open({ is_empty = true })
  account:set("a", { seen = 1 })
  fails("account:set: expected a table of columns", account.set, account, "a", inner.numbers.new(5))
  for _, odd in ipairs({ 5, "text", true, inner.host.null, print, 0.5 }) do
    for _, id in ipairs({ "a", "new" }) do
      fails("account:set: expected a table of columns", account.set, account, id, odd)
      fails("account:add: expected a table such as", account.add, account, id, odd)
    end
  end
  for _, id in ipairs({ "a", "new" }) do
    fails("account:set: expected a table of columns", account.set, account, id, false)
    fails("account:set: expected a table of columns", account.set, account, id, nil)
    fails("account:add: expected a table such as", account.add, account, id, nil)
    fails("there is no column a boolean", account.set, account, id, { [false] = 1, seen = 2 })
    fails("there is no column", account.add, account, id, { [false] = 1, seen = 2 })
  end
  equal(account:get("a").seen, 1)
  equal(account:get("new"), nil)
end

-- A row that `get` gave is the script's own: what is set is what it holds then.
function tests.a_row_that_was_read_may_be_changed_set_and_changed_again()
  local inner, state, account = harness.open({ is_empty = true })
  account:set("a", { balance = 5, note = "first", seen = 1 })
  local row = account:get("a")
  row.balance = row.balance + 1
  account:set("a", row)
  row.balance, row.note = row.balance + 1, nil
  equal(tostring(account:get("a").balance), "6")
  account:set("b", row)
  equal(account:get("a").note, "first")
  equal(account:get("b").note, nil)
  equal(tostring(account:get("b").balance), "7")
  -- The row is deleted, made anew and evicted in between.
  account:delete("a")
  row.seen = 9
  account:set("a", row)
  equal(account:get("a").seen, 9)
  inner.seal()
  inner.begin_batch(2, 1)
  inner.sweep()
  inner.sweep()
  equal(state[ROWS], 0)
  inner.supply(1, 1, harness.packed(inner, "a", { balance = 1, note = "of the store" }), true, "")
  equal(account:get("a").note, "of the store")
  row.note = "kept"
  account:set("a", row)
  equal(account:get("a").note, "kept")
  equal(tostring(account:get("a").balance), "7")
  inner.forget()
  inner.define_region(1, "north", { false }, true)
  inner.use_ctx(inner.regions[1])
  account = inner.regions[1].view.ctx.account
  inner.supply(1, 1, "", true, "")
  account:set("a", row)
  equal(account:get("a").seen, 9)
  row[1] = 1
  fails("there is no column a number", account.set, account, "a", row)
end

return tests
