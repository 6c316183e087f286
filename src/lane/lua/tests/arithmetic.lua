-- Plain numbers: what is exact or an error.
local harness = ...
local equal, fails, find = harness.equal, harness.fails, string.find
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

function tests.a_table_of_the_script_has_its_own_methods()
  local function add()
    return "own"
  end
  local metatables = {}
  local inner = open({
    metatable = function(value)
      return metatables[value]
    end,
  })
  local meta = inner.number_meta
  for _, shown in next, { "locked", {}, false, { __add = error } } do
    local own = {}
    metatables[own] = { __add = add, __metatable = shown }
    setmetatable(own, metatables[own])
    equal(meta.__add(1, own), "own")
    equal("x" + own, "own")
  end
  -- What a metatable inherits is no method of it.
  local heir = {}
  metatables[heir] = setmetatable({}, { __index = { __add = add } })
  setmetatable(heir, metatables[heir])
  fails("attempt to perform arithmetic on a table value", meta.__add, 1, heir)
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

function tests.an_exact_number_is_laid_out_as_a_plain_one_is()
  local new = open().numbers.new
  local all, flags = { "" }, { "-", "+", " ", "#", "0" }
  for _, flag in ipairs(flags) do
    for at = 1, #all do
      all[#all + 1] = all[at] .. flag
    end
  end
  for _, some in ipairs(all) do
    for _, width in ipairs({ "", "1", "9", "14", "99" }) do
      for _, precision in ipairs({ "", ".", ".0", ".1", ".3", ".12" }) do
        for _, kind in ipairs({ "f", "e", "E", "g", "G", "a", "d", "i", "x", "X", "o" }) do
          local spec = "%" .. some .. width .. precision .. kind
          for _, value in ipairs({ "0.0", "1.5", "-1.5", "-12.0", "1234567.0", "0.25" }) do
            local float = tonumber(value)
            local ok, expected = pcall(string.format, spec, float)
            local fits, got = pcall(string.format, spec, new(value))
            equal(fits, ok)
            -- A half is rounded away from zero, and a float to the even digit.
            local is_rounded = kind == "f" and float % 1 ~= 0 and find("|.|.0|.1|", "|" .. precision .. "|", 1, true)
            if ok and not is_rounded then equal(spec .. got, spec .. expected) end
          end
        end
      end
    end
  end
  equal(string.format("%08.3f|%+.2f|% .1f", new("-1.23456"), new("1.5"), new("2")), "-001.235|+1.50| 2.0")
  equal(string.format("%.0f|%#.0f|%.f|%+05.0f", new("-2.5"), new("2.5"), new("0.4"), new("0.5")), "-3|3.|0|+0001")
  equal(string.format("%.1f|%5.1f|%05.1f", new("-0.04"), new("-0.04"), new("-0.04")), "-0.0| -0.0|-00.0")
  local large = new("-18446744073709551616")
  equal(
    string.format("%+d|%25d|%025d|%-25d|", -large, large, large, large),
    table.concat({
      "+18446744073709551616",
      "    -18446744073709551616",
      "-000018446744073709551616",
      "-18446744073709551616    ",
      "",
    }, "|")
  )
  equal(string.format("%030.22d|% .22i", large, -large), "       -0018446744073709551616| 0018446744073709551616")
  equal(string.format("%x %X", new("9007199254740993"), new(-1)), "20000000000001 FFFFFFFFFFFFFFFF")
end

local plain_format = string.format

function tests.no_text_is_a_number_and_no_float_loses_a_digit()
  local given
  open({
    is_given = function(value)
      return value == given
    end,
    numeric_float = function(value)
      return plain_format("%.0f", value), nil, 15
    end,
  })
  for name in next, math do
    if type(math[name]) == "function" and name ~= "type" and not string.find(name, "random") then
      fails("math." .. name .. ': expected a number, got the text "17": numeric(', math[name], "17", 1)
    end
  end
  fails('math.fmod: expected a number, got the text "2"', math.fmod, 17, "2")
  fails("math.sqrt: expected a number, got a nil", math.sqrt)
  for _, spec in ipairs({ "%d", "%5.1f", "%x", "%g" }) do
    fails('string.format: expected a number, got the text "17"', string.format, "%s " .. spec, 1, "17")
    equal(string.format("%s %%" .. spec, "17", 17), string.format("%s %%" .. spec, 17, 17.0))
  end
  local long, longer = 1234567.12345678, 12345678901234568.0
  equal(string.format("%s %5s %.3f", long, 0.5, long), "1234567.12345678   0.5 1234567.123")
  for _, value in ipairs({ longer, -longer, 2.0 ^ 53 }) do
    fails("string.format: a float of 2^53 or more has no exact value for %d", string.format, "%d", value)
    fails("has no exact value for %.0f", string.format, "%s %.0f", 1, value)
    equal(math.type(math.floor(value)), "float")
    equal(math.type((math.modf(value))), "float")
    equal(math.tointeger(value), nil)
  end
  given = 2.0 ^ 53
  equal(string.format("%.0f|%d", given, given), "9007199254740992|9007199254740992")
  equal(string.format("%.2e %g", longer, 1 / 0), "1.23e+16 inf")
  equal(string.format("%d", 2.0 ^ 53 - 1), "9007199254740991")
  local odd = (1 << 53) + 1
  equal(string.format("%.0f|%f|%22.1f", odd, 1, -odd), "9007199254740993|1.000000|   -9007199254740993.0")
  equal(string.format("%d%% paid, 100%%p", 50), "50% paid, 100%p")
  local many = {}
  for at = 1, 200 do
    many[at] = at
  end
  equal(math.max(table.unpack(many)) .. " " .. math.min(table.unpack(many)), "200 1")
  equal(string.format(string.rep("%d", 9), table.unpack(many)), "123456789")
  fails("%p would differ", string.format, "%%%d %-5p", 1, {})
  equal(table.concat({ "x", 1, long, 0.5, longer }, " "), "x 1 1234567.12345678 0.5 12345678901234568.0")
  equal(table.concat({ 1.5, long, "z" }, ",", 2), "1234567.12345678,z")
  equal(table.concat({ long }, ",", 2), "")
  fails("invalid value", table.concat, { long, 2 }, ",", 1, math.maxinteger)
end

function tests.a_form_that_no_number_has_is_refused_as_lua_does()
  local new = open({
    integer = function(text)
      return find(text, "^%-?%d+$") and math.tointeger(tonumber(text))
    end,
  }).numbers.new
  for _, value in ipairs({ 1.5, new("1.5"), new(1), new("1e30") }) do
    for _, spec in ipairs({ "%.99999f", "%100f", "%.500f", "%.100e", "%F", "%0005.1.2f", "%5.3z" }) do
      local _, expected = pcall(string.format, spec, 1.5)
      fails(string.match(expected, "invalid .*"), string.format, spec, value)
    end
  end
  fails("invalid conversion specification: '%.99999f'", string.format, "%.99999f", new(1))
  fails("invalid conversion specification: '%.100d'", string.format, "%.100d", new("1e30"))
  fails("bad argument #3 to 'format'", string.format, "%s %d", 1, true)
  fails("bad argument #4 to 'format'", string.format, "%s %d %d", new(1), new(2), true)
  fails("bad argument #3 to 'format' (number has no integer representation)", string.format, "%s %x", 1, new("1e30"))
  for _, kind in ipairs({ "d", "x", "o" }) do
    fails("1.5 has no form without a fraction", string.format, "%" .. kind, new("1.5"))
    fails("has no form without a fraction", string.format, "%" .. kind, new("3.00000000000000000001"))
  end
  fails("none is as large", string.format, "%g", new("1" .. string.rep("0", 400)))
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
  fails("bad argument #2 to 'unpack'", table.unpack, {}, "x")
  fails("expected a table, got the number 5", inner.script_ipairs, new(5))
  fails("expected a table, got the number 5", table.unpack, new(5))
end

return tests
