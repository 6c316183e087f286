-- Reads by column.
local harness = ...
local equal, fails = harness.equal, harness.fails
local tests = {}

local function ids(rows)
  local found = {}
  for at, row in ipairs(rows) do
    found[at] = row.id
  end
  return table.concat(found, " ")
end

function tests.ordered_lists_stay_in_order()
  local ordered = harness.open().ordered
  local list = ordered.list_of({})
  for at = 1, 1000 do
    ordered.add(list, at * 7 % 1000, "id" .. at)
  end
  equal(list.size, 1000)
  assert(#list > 1, "it has several chunks")
  local last, count = -1, 0
  ordered.each_up(list, 1, 1, function(_, value)
    assert(value >= last)
    last, count = value, count + 1
  end)
  equal(count, 1000)
  local chunk, inside = ordered.bound(list, 500, false)
  equal(list[chunk].values[inside], 500)
  for at = 1, 1000 do
    ordered.take_out(list, at * 7 % 1000, "id" .. at)
  end
  equal(list.size, 0)
  equal(#list, 0)
end

function tests.a_whole_table_is_searched_here()
  local _, _, account, host = harness.open({ is_empty = true })
  for at = 1, 9 do
    account:set("a" .. at, { balance = at % 3, seen = at })
  end
  account:set("null", {})
  equal(ids(account:find({ where = { { "balance", "=", 1 } } })), "a1 a4 a7")
  equal(ids(account:find({ order = "-balance", limit = 4 })), "a2 a5 a8 a1")
  equal(ids(account:find({ where = { { "balance", ">=", 1 }, { "balance", "<", 2 } } })), "a1 a4 a7")
  equal(ids(account:find({ order = "balance" })), "a3 a6 a9 a1 a4 a7 a2 a5 a8 null")
  -- Each write keeps the index.
  account:set("a1", { balance = 2 })
  account:delete("a4")
  equal(ids(account:find({ where = { { "balance", "=", 1 } } })), "a7")
  equal(account:count(), 9)
  equal(account:count({ where = { { "balance", "=", 2 } } }), 4)
  equal(#harness.told(host, "want_answer"), 0)
end

function tests.what_changed_here_hides_what_is_committed()
  local inner, state, account, host = harness.open()
  state[TRIED] = true
  account:set("a", { balance = 1 })
  account:set("c", { balance = 5 })
  local query = coroutine.create(function()
    return account:find({ order = "balance", limit = 2 })
  end)
  local _, waiting_for, question = coroutine.resume(query)
  inner.want(waiting_for, question)
  inner.tell_wants()
  local asked = harness.told(host, "want_answer")[1]
  equal(asked[2], 1)
  local committed = harness.packed(inner, "c", { balance = 0 }) .. harness.packed(inner, "b", { balance = 3 })
  inner.supply_found(asked[2], committed, 2, true)
  local ok, rows = coroutine.resume(query)
  assert(ok, rows)
  equal(ids(rows), "a b")
end

function tests.the_larger_page_of_a_question_is_asked_once()
  local inner, state, account, host = harness.open()
  state[TRIED] = true
  for _, limit in ipairs({ 2, 5, 3 }) do
    local query = coroutine.create(function()
      return account:find({ order = "balance", limit = limit })
    end)
    local _, waiting_for, question = coroutine.resume(query)
    inner.want(waiting_for, question)
  end
  inner.tell_wants()
  local asked = harness.told(host, "want_answer")
  equal(#asked, 1)
  equal(asked[1][9], 2 * 5 + 16)
end

function tests.a_query_that_cannot_be_is_refused()
  local _, _, account = harness.open({ is_empty = true })
  local function find(query)
    return function()
      return account:find(query)
    end
  end
  fails('a condition by "seen" needs the line indexes', find({ where = { { "seen", "=", 1 } } }))
  fails("is no operator", find({ where = { { "balance", "~", 1 } } }))
  fails("compares with nil", find({ where = { { "balance", "=" } } }))
  -- None is passed over behind one that is not there.
  local one, other = { "balance", ">", 1 }, { "balance", "<", 3 }
  fails("with none of them nil", find({ where = { nil, one } }))
  fails("with none of them nil", find({ where = { one, nil, other } }))
  fails("no other keys", find({ where = { one, also = other } }))
  fails("no other keys", find({ where = { one, other, [0] = other } }))
  fails("expected a list of conditions", find({ where = { [2] = one } }))
  fails("has more than a column", find({ where = { { "balance", ">", 1, "and" } } }))
  fails("has more than a column", find({ where = { { "balance", ">", 1, is = "less" } } }))
  fails("unknown key", find({ limits = 5 }))
  local keys = {}
  for number = 99, 10, -1 do
    keys["k" .. number] = 1
  end
  fails('find: unknown key "k10"', find(keys))
  fails('count: unknown key "k10"', account.count, account, keys)
  fails("limit: expected a count", find({ limit = -1 }))
  fails("an order by id", find({ order = "id" }))
end

return tests
