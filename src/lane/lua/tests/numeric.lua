-- Exact numbers: what is computed here and what by the host come to the same.
local harness = ...
local equal, fails = harness.equal, harness.fails
local tests = {}

local function numbers()
  return harness.open({ last = "numeric" }).numbers
end

function tests.a_number_has_one_form()
  local new = numbers().new
  for given, text in next, { [7] = "7", ["007"] = "7", ["-0"] = "0", [1.5] = "1.5", ["1e3"] = "1000" } do
    equal(tostring(new(given)), text)
  end
  equal(new("1000000000000000000"), new("999999999999999999") + 1)
  assert(new(2) < new("10") and new(-1) < new(0) and new("0.5") <= new(1))
end

function tests.the_limbs_carry_and_borrow()
  local new = numbers().new
  local edge = new("999999999999999999999999999999999999")
  equal(tostring(edge + 1), "1000000000000000000000000000000000000")
  equal(tostring(edge + 1 - 1), tostring(edge))
  equal(tostring(new(0) - edge - 1), "-1000000000000000000000000000000000000")
  equal(tostring(-new("1000000000000000000")), "-1000000000000000000")
  equal(tostring(new(5) - 7), "-2")
  equal(tostring(new("-1000000000000000000") + 1), "-999999999999999999")
end

function tests.products_and_quotients_are_exact()
  local new = numbers().new
  equal(tostring(new(3037000499) * 3037000499), "9223372030926249001")
  equal(tostring(new("123456789012345678901") * 10), "1234567890123456789010")
  equal(tostring(new(7) // 2), "3")
  equal(tostring(new(-7) // 2), "-4")
  equal(tostring(new(-7) % 2), "1")
  equal(tostring(new(1) / 4), "0.25")
end

function tests.what_is_no_number_is_refused()
  local new = numbers().new
  fails("numeric: ", new, "ten")
  fails("numeric: expected a number or a text of digits, got table", new, {})
  fails("numeric: ", function()
    return new(1) // 0
  end)
  fails("numeric: a number cannot be changed", function()
    new(1).high = 2
  end)
end

function tests.limbs_cross_the_border_both_ways()
  local all = numbers()
  equal(tostring(all.from_limbs(-1, LIMB - 5, "")), "-5")
  equal(tostring(all.from_limbs(0, 0, "0.5")), "0.5")
  equal(all.from_json("12"), all.new(12))
end

function tests.a_float_is_taken_as_far_as_its_digits_say_what_it_is()
  local given = 0.1 + 0.2
  local inner = harness.open({
    last = "numeric",
    host = {
      is_given = function(value)
        return value == 0.30000000000000004
      end,
    },
  })
  local new = inner.numbers.new
  equal(tostring(new(given)), "0.30000000000000004")
  equal(tostring(new(1e18)), "1000000000000000000")
  fails("0.3333333333333333 has more digits than a float keeps", new, 1 / 3)
  assert(new("0.3") < 1 / 3 and 1 / 3 < new("0.34"))
  assert(new(5) < math.huge and -math.huge < new(5))
  equal(new(5) < 0 / 0, false)
  equal(0 / 0 <= new(5), false)
end

function tests.a_number_is_no_table()
  local five = numbers().new(5)
  fails("a number has no length", function()
    return #five
  end)
end

return tests
