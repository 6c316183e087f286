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
  equal(all.canonical("12"), all.new(12))
end

return tests
