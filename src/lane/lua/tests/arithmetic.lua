-- Plain numbers: what is exact or an error.
local harness = ...
local equal, fails = harness.equal, harness.fails
local tests = {}

local function open(own)
  return harness.open({ last = "library", host = own })
end

function tests.what_leaves_64_bits_is_an_error()
  local meta = open().number_meta
  local max, min <const> = math.maxinteger, math.mininteger
  equal(meta.__add(max - 1, 1), max)
  equal(meta.__sub(min + 1, 1), min)
  equal(meta.__mul(3037000499, -3037000499), -9223372030926249001)
  equal(meta.__mul(min, 1), min)
  equal(meta.__mul(0, min), 0)
  equal(meta.__add(0.5, 1), 1.5)
  for _, case in
    next,
    {
      { "__add", max, 1 },
      { "__add", min, -1 },
      { "__sub", min, 1 },
      { "__sub", 0, min },
      { "__mul", max, 2 },
      { "__mul", min, -1 },
      { "__mul", -1, min },
      { "__mul", 4294967296, 4294967296 },
      { "__mul", 5000000000000000000, 3 },
    }
  do
    fails("leaves the 64 bits of an integer", meta[case[1]], case[2], case[3])
  end
end

function tests.a_text_is_no_number()
  open()
  fails('attempt to compute with the text "5" (+)', function()
    return "5" + 1
  end)
  fails('attempt to compute with the text "5" (-)', function()
    return -"5"
  end)
  fails('the text "6" (//)', function()
    return 5.5 // "6"
  end)
end

function tests.an_exact_number_behind_a_plain_one_is_computed_exactly()
  local inner = open()
  local new, meta = inner.numbers.new, inner.number_meta
  equal(tostring(meta.__add(1, new("18446744073709551616"))), "18446744073709551617")
  equal(tostring(meta.__sub(1, new("0.5"))), "0.5")
  equal(tostring(meta.__mul(3, new("5000000000000000000"))), "15000000000000000000")
  equal(tostring("7" + new(1)), "8")
end

function tests.a_mistake_names_the_kind_and_the_line()
  local inner = open()
  inner.set_script_text("1\n2\n3\n4\n5\n6\n  local x = row.none + 1\n8")
  fails("attempt to perform arithmetic on a nil value (before the +) in: local x = row.none + 1", function()
    inner.number_meta.__add(nil, 1)
  end)
  fails("a nil value (behind the *)", function()
    inner.number_meta.__mul(1, nil)
  end)
  fails("a null value (behind the -)", function()
    inner.number_meta.__sub(1, inner.host.null)
  end)
end

function tests.a_text_becomes_the_number_that_it_says()
  local inner = open()
  local number = inner.script_tonumber
  for text, expected in
    next,
    {
      [" 17 "] = "17",
      ["1e3"] = "1000.0",
      ["-0.5"] = "-0.5",
      ["340282366920938463463374607431768211457"] = "340282366920938463463374607431768211457",
      ["100000000000000000000"] = "100000000000000000000",
      ["0.1234567890123456789"] = "0.1234567890123456789",
      ["0xff"] = "255",
      ["-0xffffffffffffffff"] = "-18446744073709551615",
    }
  do
    equal(tostring(number(text)), expected)
  end
  equal(number("ten"), nil)
  equal(number("zz", 36), 1295)
  equal(tostring(number("-zzzzzzzzzzzzzzz", 36)), "-221073919720733357899775")
  equal(math.type(number(inner.numbers.new("0.5"))), "float")
  equal(tostring(number(inner.numbers.new("0.1234567890123456789"))), "0.1234567890123456789")
end

function tests.the_library_knows_exact_numbers()
  local inner = open()
  local new = inner.numbers.new
  equal(string.format("%d|%5d|%-4d|", new("18446744073709551616"), new(7), new(-7)), "18446744073709551616|    7|-7  |")
  equal(string.format("%.2f %s %g %d%%", new("2.675"), new("0.5"), new("1.5"), 5), "2.68 0.5 1.5 5%")
  equal(math.floor(new("2.5")), 2)
  equal(math.ceil(new("-2.5")), -2)
  equal(math.floor(2.5), 2)
  equal(math.type(math.floor(1e17)), "float")
  equal(tostring(math.abs(new("-0.5"))), "0.5")
  equal(tostring(math.max(1, new(5), 3.5)), "5")
  equal(tostring(math.min(1, new(5), 3.5)), "1")
  equal(math.tointeger(new(4)), 4)
  equal(math.tointeger(1e17), nil)
  fails("leaves the 64 bits", math.abs, math.mininteger)
  fails("expected a table, got the number 5", inner.script_ipairs, new(5))
  fails("expected a table, got the number 5", table.unpack, new(5))
end

return tests
