-- Rows that are here, and those that are missed.
local harness = ...
local equal = harness.equal
local tests = {}

function tests.places_are_used_again()
  local inner, state = harness.open()
  local first, d, at = inner.add_row(state, "a", 0, 0)
  equal(first, 1 << SHIFT | 1)
  equal(d[at + state[KIND].id_at], "a")
  local second = inner.add_row(state, "b", 0, 0)
  equal(second - first, state[KIND].width)
  equal(state[ROWS], 2)
  inner.release(state, first)
  equal(state[FREE_COUNT], 1)
  equal(inner.add_row(state, "c", 0, 0), first)
  equal(state[FREE_COUNT], 0)
end

function tests.a_full_segment_is_followed_by_another()
  local inner, state = harness.open()
  local rows_max = state[KIND].rows_max
  for at = 1, rows_max do
    inner.add_row(state, "a" .. at, 0, 0)
  end
  equal(#state[SEGMENTS], 1)
  local slot = inner.add_row(state, "one more", 0, 0)
  equal(slot, 2 << SHIFT | 1)
  assert(#state[SEGMENTS][1] <= SEGMENT_CELLS)
end

function tests.a_look_makes_a_row_young()
  local inner, state = harness.open()
  local slot = inner.add_row(state, "a", 0, 0)
  state[OLD], state[YOUNG] = state[YOUNG], {}
  equal(inner.lookup(state, "a"), slot)
  equal(state[YOUNG].a, slot)
  equal(state[OLD].a, nil)
  equal(inner.lookup(state, "b"), nil)
  state[WHOLE] = true
  equal(inner.lookup(state, "b"), false)
end

function tests.what_is_supplied_is_taken_in_once()
  local inner, state, account = harness.open()
  local rows = harness.packed(inner, "a", { balance = 5 }) .. harness.packed(inner, "b", { note = "x" })
  inner.supply(1, 1, rows, false, string.pack("<s4s4s4", "a", "b", "c"))
  equal(state[ROWS], 2)
  equal(state[YOUNG].c, false)
  equal(tostring(account:get("a").balance), "5")
  equal(account:get("b").note, "x")
  equal(account:get("c"), nil)
  -- What is here is newer.
  account:set("a", { balance = 6 })
  inner.supply(1, 1, rows, false, "")
  equal(tostring(account:get("a").balance), "6")
  equal(state[ROWS], 2)
end

function tests.a_row_written_unseen_is_not_new_once_the_table_came()
  local inner, state, account = harness.open({ is_empty = true })
  state[WHOLE] = false
  account:set("a", { seen = 1 })
  local d, at = inner.cells_at(state, state[YOUNG].a)
  equal(d[at + state[KIND].batch_at], -1)
  inner.supply(1, 1, "", true, "")
  equal(d[at + state[KIND].batch_at], 1)
  equal(state[WHOLE], true)
end

function tests.a_row_that_is_missed_is_asked_for()
  local inner, state, account, host = harness.open()
  -- Outside of a coroutine, as within a comparison of table.sort.
  account:get("a")
  local loads = harness.told(host, "load")
  equal(#loads, 1)
  equal(loads[1][4], "a")
  -- Within one it waits.
  local waits = coroutine.create(function()
    return account:get("b")
  end)
  local _, waiting_for, id = coroutine.resume(waits)
  equal(waiting_for, state)
  equal(id, "b")
  inner.want(waiting_for, id)
  inner.want(waiting_for, id)
  inner.tell_wants()
  local wants = harness.told(host, "want")
  equal(#wants, 1)
  equal(wants[1][5], string.pack("<s4", "b"))
  inner.supply(1, 1, harness.packed(inner, "b", { note = "here" }), false, string.pack("<s4", "b"))
  local _, row = coroutine.resume(waits)
  equal(row.note, "here")
end

return tests
