-- Events as they come in.
local harness = ...
local equal, fails = harness.equal, harness.fails
local tests = {}

local function open(own)
  return harness.open({ host = own })
end

-- The event is the one that is being handled.
local function handled(inner, event)
  inner.run_state[EVENT] = event
  return event
end

function tests.a_shape_reads_each_kind_of_field()
  local inner = open()
  local names = { "t", "i", "d", "s", "r", "m", "n", "j" }
  inner.define_projection(names)
  inner.define_texts(string.pack("<s4s4", "first", "second"), 1)
  inner.define_shape(1, names, "tidsrmnj")
  local packed = string.pack("<i8i8" .. "i8ds4I4s4i8i8s4", 9, 77, -5, 0.5, "text", 2, "1234567", 0, 1234567, "{}")
  local event, block, writer, next_at = inner.shapes[1](packed, 1)
  handled(inner, event)
  equal(block, 9)
  equal(writer, 77)
  equal(next_at, #packed + 1)
  equal(event.t, true)
  equal(event.i, -5)
  equal(event.d, 0.5)
  equal(event.s, "text")
  equal(event.r, "second")
  equal(event.m, "1234567")
  equal(event.n, nil)
  equal(event.j.text, "{}")
  -- The limbs of a number in a text came along.
  equal(tostring(inner.numbers.new("1234567")), "1234567")
end

function tests.a_loose_event_brings_its_kinds_along()
  local inner = open()
  inner.define_projection({ "a", "b", "c" })
  local packed = string.pack("<i8i8c1i8c1c1s4", 9, 77, "i", 5, "n", "s", "x")
  local event = handled(inner, inner.shapes[0](packed, 1))
  equal(event.a, 5)
  equal(event.b, nil)
  equal(event.c, "x")
end

function tests.a_field_that_did_not_come_along_is_fetched_once()
  local asked = 0
  local inner = open({
    field = function(name)
      asked = asked + 1
      return name == "known" and 5 or nil
    end,
  })
  inner.define_shape(1, {}, "")
  local event = handled(inner, inner.shapes[1](string.pack("<i8i8", 1, 1), 1))
  equal(event.known, 5)
  equal(event.known, 5)
  equal(event.unknown, nil)
  equal(event.unknown, nil)
  equal(asked, 2)
  event.known = nil
  equal(event.known, nil)
  handled(inner, {})
  fails("an event can be read only while it is handled", function()
    return event.other
  end)
end

function tests.who_asks_for_a_field_that_cannot_be_read_is_told()
  local inner = open({
    field = function()
      return nil, "out of range"
    end,
  })
  inner.define_projection({ "odd" })
  inner.define_shape(1, { "odd" }, "x")
  local event = handled(inner, inner.shapes[1](string.pack("<i8i8", 1, 1), 1))
  fails("event.odd: out of range", function()
    return event.odd
  end)
end

function tests.a_field_that_was_removed_stays_so()
  local inner = open({
    field = function(name)
      return name == "large" and "its text" or 7
    end,
    all_fields = function()
      return { here = 5, large = "its text", other = 7 }
    end,
  })
  inner.define_projection({ "here", "large" })
  inner.define_shape(1, { "here", "large" }, "ix")
  local function event_of(remove)
    local event = handled(inner, inner.shapes[1](string.pack("<i8i8i8", 1, 1, 5), 1))
    remove(event)
    return event
  end
  local function removed(event)
    event.here, event.other = nil, 1
    event.other = nil
  end
  local event = event_of(removed)
  equal(event.here, nil)
  equal(event.other, nil)
  equal(event.large, "its text")
  for _, whole in next, { inner.open_event, inner.whole_event } do
    local fields = whole(event_of(removed))
    equal(fields.here, nil)
    equal(fields.other, nil)
    equal(fields.large, "its text")
  end
end

function tests.texts_begin_anew()
  local inner = open()
  inner.define_texts(string.pack("<s4s4", "a", "with \0"), 1)
  equal(inner.clean.a, true)
  equal(inner.clean["with \0"], false)
  inner.define_texts(string.pack("<s4", "b"), 1)
  equal(inner.clean.a, nil)
  equal(inner.clean.b, true)
end

function tests.newly_projected_fields_make_the_shapes_void()
  local inner = open()
  inner.define_shape(1, {}, "")
  inner.define_projection({ "a" })
  equal(inner.shapes[1], nil)
  assert(inner.shapes[0])
end

return tests
