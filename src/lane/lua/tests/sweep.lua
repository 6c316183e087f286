-- Letting go of rows, and closing the gaps.
local harness = ...
local equal = harness.equal
local tests = {}

local function fill(account, from, to)
  for at = from, to do
    account:set("a" .. at, { seen = at })
  end
end

-- As `open` of the harness, with a kind that is read: rows of others are let go with their batch.
local function open_read()
  local inner, state, account, host = harness.open({ is_empty = true })
  account:get("none")
  return inner, state, account, host
end

local function check(account, from, to)
  for at = from, to do
    equal(account:get("a" .. at).seen, at)
  end
end

function tests.committed_rows_that_nobody_used_go()
  local inner, state, account = open_read()
  fill(account, 1, 10)
  inner.seal()
  inner.begin_batch(2, 1)
  inner.sweep()
  equal(state[ROWS], 10)
  check(account, 3, 4)
  inner.sweep()
  equal(state[ROWS], 2)
  equal(state[WHOLE], false)
  check(account, 3, 4)
end

function tests.rows_that_are_not_committed_stay()
  local inner, state, account = open_read()
  fill(account, 1, 3)
  inner.seal()
  inner.begin_batch(2, 0)
  fill(account, 4, 5)
  inner.sweep()
  inner.sweep()
  inner.sweep()
  equal(state[ROWS], 5)
  equal(state[DIRTY_COUNT], 2)
  check(account, 1, 5)
end

function tests.rows_move_into_gaps_and_segments_go()
  local inner, state, account = open_read()
  local rows_max = state[KIND].rows_max
  fill(account, 1, 3 * rows_max)
  equal(#state[SEGMENTS], 3)
  inner.seal()
  inner.begin_batch(2, 1)
  fill(account, 3 * rows_max + 1, 3 * rows_max + 5)
  inner.sweep()
  check(account, 2 * rows_max + 1, 2 * rows_max + 20)
  inner.sweep()
  equal(#state[SEGMENTS], 1)
  equal(state[ROWS], 25)
  equal(state[FREE_COUNT], 0)
  -- Those that the open batch wrote are still known as such, at their new slots.
  equal(state[DIRTY_COUNT], 5)
  for at = 1, 5 do
    local d, cell = inner.cells_at(state, state[DIRTY][at])
    equal(d[cell + state[KIND].id_at], "a" .. 3 * rows_max + at)
  end
  check(account, 2 * rows_max + 1, 2 * rows_max + 20)
  check(account, 3 * rows_max + 1, 3 * rows_max + 5)
end

function tests.rows_that_are_never_read_go_once_they_are_committed()
  local inner, state, account = harness.open({ is_empty = true })
  fill(account, 1, 4)
  inner.seal()
  inner.begin_batch(2, 0)
  equal(state[ROWS], 4)
  account:set("a1", { seen = 100 })
  inner.seal()
  inner.begin_batch(3, 1)
  -- The first was changed again.
  equal(state[ROWS], 1)
  inner.begin_batch(4, 2)
  equal(state[ROWS], 0)
end

function tests.rows_that_are_only_written_go_also_where_the_table_had_rows()
  local inner, state, account = harness.open()
  fill(account, 1, 1000)
  inner.seal()
  inner.begin_batch(2, 0)
  equal(state[ROWS], 1000)
  inner.begin_batch(3, 1)
  equal(state[ROWS], 0)
  -- Of them it is not known whether they are there.
  equal(inner.take_unknown(1), 1000)
  equal(inner.take_unknown(1), 0)
end

function tests.once_it_is_known_which_rows_there_are_the_others_are_new()
  local inner, state, account, host = harness.open()
  account:set("a1", { seen = 1 })
  inner.set_filtered(1)
  account:set("a2", { seen = 2 })
  equal(inner.take_unknown(1), 1)
  inner.seal()
  -- The host looks at what it knows, and so it does not rely on what is said here.
  local told = harness.told(host, "sealed")[1]
  local _, _, is_sure = string.unpack("<I4I4B", told[2])
  equal(is_sure, 0)
  local _, change = string.unpack("<s4B", told[3])
  equal(change, WRITTEN)
  local _, at = state[KIND].unpack(told[3], 1, {}, 1)
  _, change = string.unpack("<s4B", told[3], at)
  equal(change, NEW)
end

function tests.after_a_rollback_nothing_is_known()
  local inner, _, account, host = harness.open({ is_empty = true })
  fill(account, 1, 4)
  account:count()
  inner.forget()
  equal(inner.regions[1], nil)
  equal(#harness.told(host, "forget_region"), 1)
  inner.define_region(1, "north", { false }, true)
  local state = inner.table_of(inner.regions[1], 1)
  equal(state[ROWS], 0)
  equal(state[WHOLE], false)
  equal(state[FILTERED], false)
  equal(next(state[YOUNG]), nil)
  equal(inner.changed_rows(), 0)
  equal(inner.lookup(state, "a1"), nil)
end

-- A region of which nothing is here any more goes, and is as it was when it comes back.
local function went(inner, host)
  equal(inner.regions[1], nil)
  equal(harness.told(host, "forget_region")[1][2], 1)
  inner.define_region(1, "north", { true }, true)
  local state = inner.table_of(inner.regions[1], 1)
  equal(state[WHOLE], false)
  equal(state[FILTERED], true)
end

function tests.a_region_goes_with_its_last_row()
  local inner, _, _, host = open_read()
  inner.use_ctx(nil)
  inner.run_state[REGION] = nil
  inner.sweep()
  inner.sweep()
  went(inner, host)
end

function tests.a_region_that_is_only_written_goes_once_that_is_committed()
  local inner, _, account, host = harness.open({ is_empty = true })
  fill(account, 1, 4)
  inner.run_state[REGION] = nil
  inner.seal()
  inner.begin_batch(2, 0)
  equal(inner.regions[1] ~= nil, true)
  inner.begin_batch(3, 1)
  went(inner, host)
end

function tests.a_region_stays_while_anything_of_it_is_not_committed()
  for name, change in
    next,
    {
      write = function(account)
        account:set("a1", { seen = 2 })
      end,
      deletion = function(account)
        account:delete("a1")
      end,
    }
  do
    local inner, state, account, host = open_read()
    fill(account, 1, 1)
    inner.seal()
    inner.begin_batch(2, 1)
    change(account)
    inner.run_state[REGION] = nil
    for _ = 1, 3 do
      inner.sweep()
    end
    if inner.regions[1].tables[1] ~= state then error(name) end
    inner.seal()
    inner.begin_batch(3, 1)
    for _ = 1, 3 do
      inner.sweep()
    end
    if inner.regions[1].tables[1] ~= state then error(name .. ", sealed") end
    inner.begin_batch(4, 2)
    for _ = 1, 3 do
      inner.sweep()
    end
    went(inner, host)
  end
end

return tests
