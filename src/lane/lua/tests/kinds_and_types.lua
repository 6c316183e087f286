-- What is compiled for each kind of entity, with columns of every type.
local harness = ...
local equal, fails = harness.equal, harness.fails
local tests = {}

-- Of each type: a value as a script gives it, how it comes back (itself if not given), and one that is refused.
local CASES <const> = {
  text = { "Grüße", refused = 7 },
  boolean = { false, refused = "false" },
  bigint = { math.mininteger, refused = 1.5 },
  double = { 0.25, refused = "0.25" },
  numeric = { "123456789012345678901234567890", text = "123456789012345678901234567890", refused = {} },
  timestamptz = { "2018-01-31T01:49:59.650Z", refused = "yesterday" },
  jsonb = { "list", text = "json list" },
  bytes = { "\0\255", refused = 1 },
}

local function as_text(value)
  if type(value) == "table" and value.text then return "json " .. value.text end
  return tostring(value)
end

local function kind_of(columns)
  local inner = harness.open({ kinds = { { name = "thing", columns = columns } } })
  return inner.table_of(inner.regions[1], 1)[KIND]
end

function tests.each_type_is_read_copied_packed_and_unpacked()
  for _, name in ipairs(harness.host().column_types) do
    local case = CASES[name] or error("there is no case for the type " .. name)
    local kind = kind_of({ { name = "it", type = name, indexed = false } })
    local cells, again = {}, {}
    kind.read({ it = case[1] }, cells, 1)
    equal(as_text(kind.copy(cells, 1).it), case.text or tostring(case[1]))
    local id, next_at = kind.unpack(kind.pack("one", WRITTEN, 0, cells, 1), 1, again, 1)
    equal(id, "one")
    equal(next_at, #kind.pack("one", WRITTEN, 0, cells, 1) + 1)
    equal(as_text(kind.copy(again, 1).it), case.text or tostring(case[1]))
    -- Null.
    kind.read({}, cells, 1)
    kind.unpack(kind.pack("none", WRITTEN, 0, cells, 1), 1, again, 1)
    equal(kind.copy(again, 1).it, nil)
    equal(kind.comparable(1, again, 1), nil)
    if case.refused ~= nil then fails("thing.it: expected", kind.read, { it = case.refused }, {}, 1) end
  end
end

function tests.many_columns_take_several_masks_and_a_scratch_list()
  local columns, row = {}, {}
  for at = 1, 70 do
    columns[at] = { name = "c" .. at, type = at % 2 == 0 and "numeric" or "bigint", indexed = false }
    if at % 3 ~= 0 then row["c" .. at] = at end
  end
  local kind = kind_of(columns)
  local cells, again = {}, {}
  kind.read(row, cells, 1)
  kind.unpack(kind.pack("wide", NEW, 9, cells, 1), 1, again, 1)
  local copy = kind.copy(again, 1)
  for at = 1, 70 do
    equal(tostring(copy["c" .. at]), tostring(row["c" .. at]))
  end
  equal(kind.some, 0)
end

function tests.rows_that_are_packed_together_are_as_those_packed_alone()
  local inner, state, account = harness.open({ is_empty = true })
  local kind = state[KIND]
  for at = 1, kind.some do
    account:set("a" .. at, { balance = 10 ^ at, seen = at })
  end
  local alone = {}
  for at = 1, kind.some do
    local d, cell = inner.cells_at(state, state[DIRTY][at])
    alone[at] = kind.pack("a" .. at, NEW, d[cell + kind.writer_at], d, cell)
  end
  equal(kind.pack_some(state[SEGMENTS], state[DIRTY], 1, 1), table.concat(alone))
  account:delete("a2")
  equal(kind.pack_some(state[SEGMENTS], state[DIRTY], 1, 1), nil)
end

function tests.times_compare_as_moments()
  local kind = kind_of({ { name = "it", type = "timestamptz", indexed = false } })
  local function comparable(text)
    return kind.comparable(1, { text }, 1)
  end
  assert(comparable("2018-01-31T01:49:59Z") < comparable("2018-01-31T01:49:59.5Z"))
  assert(comparable("-000002-01-01T00:00:00Z") < comparable("-000001-01-01T00:00:00Z"))
  assert(comparable("-000001-01-01T00:00:00Z") < comparable("0001-01-01T00:00:00Z"))
end

return tests
