-- Rows that are here, and those that are missed.
local harness = ...
local equal = harness.equal
local tests = {}

function tests.places_are_used_again()
  local inner, handle = harness.open()
  local first, d, at = inner.add_row(handle, "a", 0, 0)
  equal(first, 1 << SHIFT | 1)
  equal(d[at + handle[KIND].id_at], "a")
  local second = inner.add_row(handle, "b", 0, 0)
  equal(second - first, handle[KIND].width)
  equal(handle[ROWS], 2)
  inner.release(handle, first)
  equal(handle[FREE_COUNT], 1)
  equal(inner.add_row(handle, "c", 0, 0), first)
  equal(handle[FREE_COUNT], 0)
end

function tests.a_full_segment_is_followed_by_another()
  local inner, handle = harness.open()
  local rows_max = handle[KIND].rows_max
  for at = 1, rows_max do
    inner.add_row(handle, "a" .. at, 0, 0)
  end
  equal(#handle[SEGMENTS], 1)
  local place = inner.add_row(handle, "one more", 0, 0)
  equal(place, 2 << SHIFT | 1)
  assert(#handle[SEGMENTS][1] <= SEGMENT_CELLS)
end

function tests.a_look_makes_a_row_young()
  local inner, handle = harness.open()
  local place = inner.add_row(handle, "a", 0, 0)
  handle[OLD], handle[YOUNG] = handle[YOUNG], {}
  equal(inner.lookup(handle, "a"), place)
  equal(handle[YOUNG].a, place)
  equal(handle[OLD].a, nil)
  equal(inner.lookup(handle, "b"), nil)
  handle[WHOLE] = true
  equal(inner.lookup(handle, "b"), false)
end

function tests.what_is_supplied_is_taken_in_once()
  local inner, handle, account = harness.open()
  local rows = harness.packed(inner, "a", { balance = 5 }) .. harness.packed(inner, "b", { note = "x" })
  inner.supply(1, 1, rows, false, string.pack("<s4s4s4", "a", "b", "c"))
  equal(handle[ROWS], 2)
  equal(handle[YOUNG].c, false)
  equal(tostring(account:get("a").balance), "5")
  equal(account:get("b").note, "x")
  equal(account:get("c"), nil)
  -- What is here is newer.
  account:set("a", { balance = 6 })
  inner.supply(1, 1, rows, false, "")
  equal(tostring(account:get("a").balance), "6")
  equal(handle[ROWS], 2)
end

function tests.a_row_written_unseen_is_not_new_once_the_table_came()
  local inner, handle, account = harness.open({ is_empty = true })
  handle[WHOLE] = false
  account:set("a", { seen = 1 })
  local d, at = inner.cells_at(handle, handle[YOUNG].a)
  equal(d[at + handle[KIND].batch_at], -1)
  inner.supply(1, 1, "", true, "")
  equal(d[at + handle[KIND].batch_at], 1)
  equal(handle[WHOLE], true)
end

function tests.a_row_that_is_missed_is_asked_for()
  local inner, handle, account, host = harness.open()
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
  equal(waiting_for, handle)
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
