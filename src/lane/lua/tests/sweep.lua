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
  local inner, handle, account, host = harness.open({ is_empty = true })
  account:get("none")
  return inner, handle, account, host
end

local function check(account, from, to)
  for at = from, to do
    equal(account:get("a" .. at).seen, at)
  end
end

function tests.committed_rows_that_nobody_used_go()
  local inner, handle, account = open_read()
  fill(account, 1, 10)
  inner.seal()
  inner.begin_batch(2, 1)
  inner.sweep()
  equal(handle[ROWS], 10)
  check(account, 3, 4)
  inner.sweep()
  equal(handle[ROWS], 2)
  equal(handle[WHOLE], false)
  check(account, 3, 4)
end

function tests.rows_that_are_not_committed_stay()
  local inner, handle, account = open_read()
  fill(account, 1, 3)
  inner.seal()
  inner.begin_batch(2, 0)
  fill(account, 4, 5)
  inner.sweep()
  inner.sweep()
  inner.sweep()
  equal(handle[ROWS], 5)
  equal(handle[DIRTY_COUNT], 2)
  check(account, 1, 5)
end

function tests.rows_move_into_gaps_and_segments_go()
  local inner, handle, account = open_read()
  local rows_max = handle[KIND].rows_max
  fill(account, 1, 3 * rows_max)
  equal(#handle[SEGMENTS], 3)
  inner.seal()
  inner.begin_batch(2, 1)
  fill(account, 3 * rows_max + 1, 3 * rows_max + 5)
  inner.sweep()
  check(account, 2 * rows_max + 1, 2 * rows_max + 20)
  inner.sweep()
  equal(#handle[SEGMENTS], 1)
  equal(handle[ROWS], 25)
  equal(handle[FREE_COUNT], 0)
  -- Those that the open batch wrote are still known as such, at their new places.
  equal(handle[DIRTY_COUNT], 5)
  for at = 1, 5 do
    local d, cell = inner.cells_at(handle, handle[DIRTY][at])
    equal(d[cell + handle[KIND].id_at], "a" .. 3 * rows_max + at)
  end
  check(account, 2 * rows_max + 1, 2 * rows_max + 20)
  check(account, 3 * rows_max + 1, 3 * rows_max + 5)
end

function tests.rows_that_are_never_read_go_once_they_are_committed()
  local inner, handle, account = harness.open({ is_empty = true })
  fill(account, 1, 4)
  inner.seal()
  inner.begin_batch(2, 0)
  equal(handle[ROWS], 4)
  account:set("a1", { seen = 100 })
  inner.seal()
  inner.begin_batch(3, 1)
  -- The first was changed again.
  equal(handle[ROWS], 1)
  inner.begin_batch(4, 2)
  equal(handle[ROWS], 0)
end

function tests.after_a_rollback_nothing_is_known()
  local inner, handle, account = harness.open({ is_empty = true })
  fill(account, 1, 4)
  account:count()
  inner.forget()
  equal(handle[ROWS], 0)
  equal(handle[WHOLE], false)
  equal(handle[FILTERED], false)
  equal(next(handle[YOUNG]), nil)
  equal(inner.changed_rows(), 0)
  equal(inner.lookup(handle, "a1"), nil)
end

return tests
