-- Sums, maxima and minima that a row makes itself.
local harness = ...
local equal, fails = harness.equal, harness.fails
local tests = {}

local THING <const> = {
  name = "thing",
  columns = {
    { name = "big", type = "bigint", indexed = false },
    { name = "num", type = "numeric", indexed = false },
    { name = "dbl", type = "double", indexed = false },
    { name = "txt", type = "text", indexed = false },
    { name = "at", type = "timestamptz", indexed = false },
    { name = "is", type = "boolean", indexed = false },
    { name = "doc", type = "jsonb", indexed = false },
  },
}
-- A kind with so many number columns that nothing is compiled for it.
local WIDE <const> = { name = "wide", columns = {} }
for at = 1, 70 do
  WIDE.columns[at] = { name = "n" .. at, type = at % 2 == 0 and "bigint" or "numeric", indexed = false }
end

local function open()
  local inner, state, thing = harness.open({ is_empty = true, kinds = { THING } })
  thing:get("none")
  return thing, inner, state
end

function tests.a_row_is_made_and_null_counts_as_nothing()
  local thing = open()
  thing:add("a", { big = 2 })
  equal(thing:get("a").big, 2)
  equal(thing:get("a").num, nil)
  thing:add("a", { big = 3, num = "1.5", dbl = 0.5 })
  thing:add("a", { num = 2 })
  local row = thing:get("a")
  equal(row.big, 5)
  equal(tostring(row.num), "3.5")
  equal(row.dbl, 0.5)
  equal(row.txt, nil)
  thing:add("b", {})
  equal(next(thing:get("b")), nil)
end

function tests.the_edges_of_64_bits_are_held()
  local thing = open()
  local top, bottom = math.maxinteger, math.mininteger
  local sums = { { top - 1, 1, top }, { bottom + 1, -1, bottom }, { top, bottom, -1 }, { bottom, top, -1 } }
  for _, case in ipairs(sums) do
    thing:set("a", { big = case[1] })
    thing:add("a", { big = case[2] })
    equal(thing:get("a").big, case[3])
  end
  for _, case in ipairs({ { top, 1 }, { 1, top }, { bottom, -1 }, { -1, bottom }, { top, top }, { bottom, bottom } }) do
    thing:set("a", { big = case[1], num = 7 })
    local says = 'thing.big: add to the row the text "a": ' .. case[1] .. " + " .. case[2] .. " leaves the 64 bits"
    fails(says, thing.add, thing, "a", { num = 1, big = case[2] })
    equal(thing:get("a").big, case[1])
    equal(tostring(thing:get("a").num), "7")
  end
end

function tests.numerics_are_exact_whatever_their_size()
  local thing, inner = open()
  local numeric = inner.numbers.new
  local nines = ("9"):rep(36)
  for _, case in ipairs({
    { nines, "1", "1" .. ("0"):rep(36) },
    { "1" .. ("0"):rep(36), "-1", nines },
    { "-" .. nines, "-1", "-1" .. ("0"):rep(36) },
    { "999999999999999999", "1", "1000000000000000000" },
    { "1000000000000000000", "-1", "999999999999999999" },
    { "0.1", "0.2", "0.3" },
    { "1", "-1", "0" },
    { "-5", "3", "-2" },
    { ("9"):rep(60), "0.5", ("9"):rep(60) .. ".5" },
  }) do
    for _, given in ipairs({ case[2], numeric(case[2]), math.tointeger(case[2]) }) do
      thing:set("a", { num = case[1] })
      thing:add("a", { num = given })
      equal(tostring(thing:get("a").num), case[3])
      thing:delete("b")
      thing:add("b", { num = case[1] })
      thing:add("b", { num = given })
      equal(tostring(thing:get("b").num), case[3])
    end
  end
end

function tests.the_later_and_the_earlier_in_the_order_of_the_column()
  local thing, inner = open()
  local numeric = inner.numbers.new
  for name, values in
    next,
    {
      big = { 1, 2, math.maxinteger },
      num = { numeric("-1.5"), numeric("2"), numeric(("9"):rep(50)) },
      dbl = { -1.5, 0.25, math.huge },
      txt = { "", "a", "b" },
      at = { "-004712-01-01T00:00:00Z", "1999-12-31T23:59:59Z", "1999-12-31T23:59:59.650Z" },
      is = { false, true, true },
    }
  do
    for first, a in ipairs(values) do
      for second, b in ipairs(values) do
        thing:delete("x")
        thing:max("x", { [name] = a })
        equal(thing:get("x")[name], a)
        thing:max("x", { [name] = b })
        equal(thing:get("x")[name], values[math.max(first, second)])
        thing:set("x", {})
        thing:min("x", { [name] = a })
        thing:min("x", { [name] = b })
        equal(thing:get("x")[name], values[math.min(first, second)])
      end
    end
  end
  fails("the column doc is of the type jsonb, which has no order", thing.max, thing, "x", { doc = 1 })
end

-- The row is here: both go the short way.
function tests.an_event_is_no_change_whatever_was_read_of_it()
  local thing, inner = open()
  thing:set("a", { big = 1 })
  local event = setmetatable({ big = 2 }, inner.event_meta)
  inner.run_state[EVENT] = event
  fails("thing:add: expected a table such as { big = 1 }, got a table", thing.add, thing, "a", event)
  fails("thing:max: expected a table such as { big = 1 }, got a table", thing.max, thing, "a", event)
  equal(thing:get("a").big, 1)
end

function tests.what_is_no_change_is_refused_and_changes_nothing()
  local thing, inner = open()
  thing:set("a", { big = 1, txt = "t" })
  inner.take_touched()
  fails("thing:add: expected a table such as { big = 1 }, got float 1.5", thing.add, thing, "a", 1.5)
  fails('thing:add: there is no column "bigg"', thing.add, thing, "a", { big = 1, bigg = 2 })
  fails("the column txt is of the type text, which is no number", thing.add, thing, "a", { txt = 2 })
  local names = { big = 1, id = "a" }
  for number = 99, 10, -1 do
    names["n" .. number] = 1
  end
  for _, called in ipairs({ "add", "max", "min" }) do
    fails("thing:" .. called .. ': there is no column "n10"', thing[called], thing, "a", names)
  end
  names.aa = "x"
  fails('thing:add: there is no column "aa"', thing.add, thing, "a", names)
  fails("thing.big: expected a bigint", thing.add, thing, "a", { big = 1.5 })
  fails("thing.num: expected a numeric", thing.add, thing, "a", { num = "x" })
  fails("thing.big: expected a bigint", thing.max, thing, "a", { big = "x" })
  fails("thing.txt: expected text", thing.min, thing, "a", { txt = 1 })
  fails("thing:add: expected an id", thing.add, thing, {}, { big = 1 })
  fails("add: call it with a colon", thing.add, "a", {})
  thing:set("inf", { dbl = math.huge })
  fails("thing.dbl: add to the row", thing.add, thing, "inf", { dbl = -math.huge })
  equal(thing:get("a").big, 1)
  thing:add("a", { id = "a", big = 1 })
  equal(thing:get("a").big, 2)
  inner.run_state[MODE] = SNAPSHOT
  fails("on_snapshot may read, and not write", thing.add, thing, "a", { big = 1 })
end

function tests.of_several_mistakes_the_first_column_is_named()
  local thing = open()
  for _ = 1, 20 do
    fails("thing.big: expected", thing.add, thing, "a", { dbl = "x", num = "x", big = "x" })
    fails("thing.big: expected", thing.max, thing, "a", { txt = 1, at = "x", big = "x" })
  end
end

function tests.numbers_are_ids_by_their_digits()
  local thing, inner = open()
  local numeric = inner.numbers.new
  for _, id in ipairs({ 17, 17.0, "17", numeric(17), numeric("17.0") }) do
    thing:add(id, { big = 1 })
  end
  equal(thing:get("17").big, 5)
  thing:set(numeric("9223372036854775808"), { big = 1 })
  equal(thing:get("9223372036854775808").big, 1)
  thing:delete(17.0)
  equal(thing:get("17"), nil)
  for _, id in ipairs({ 1.5, numeric("1.5"), 2.0 ^ 53, -2.0 ^ 53, 1e20, math.huge, 0 / 0, true }) do
    fails("thing:set: expected an id (text or a whole number)", thing.set, thing, id, {})
  end
end

function tests.a_wide_kind_does_the_same()
  local inner, _, wide = harness.open({ is_empty = true, kinds = { WIDE } })
  wide:get("none")
  local change = {}
  for at = 1, 70 do
    change["n" .. at] = at
  end
  for _ = 1, 3 do
    wide:add("a", change)
  end
  for at = 1, 70 do
    equal(tostring(wide:get("a")["n" .. at]), tostring(3 * at))
  end
  fails("wide:add: there is no column", wide.add, wide, "a", { n71 = 1 })
  equal(inner.changed_rows(), 1)
end

function tests.a_dry_run_leaves_nothing()
  local thing, inner = open()
  inner.run_state[WRITER] = 4
  thing:set("a", { big = 1 })
  inner.run_state[MODE] = DRY
  inner.begin_dry({})
  thing:add("a", { big = 5 })
  thing:add("a", { big = 5 })
  thing:max("new", { big = 5 })
  equal(thing:get("a").big, 11)
  equal(thing:get("new").big, 5)
  inner.run_state[SUSPENDED_WRITER] = 4
  inner.begin_dry({})
  local ok, reason = pcall(thing.add, thing, "a", { big = 1 })
  equal(ok, false)
  equal(reason, inner.DRY_END)
  inner.run_state[MODE] = RUN
  equal(thing:get("a").big, 1)
  equal(thing:get("new"), nil)
end

return tests
