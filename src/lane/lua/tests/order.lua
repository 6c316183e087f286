-- The order in which `pairs` and `next` give a table's keys: one in every process.
local harness = ...
local equal, result, fails = harness.equal, harness.result, harness.fails_in_script
local tests = {}

-- Three ways to go through a table `t`, which put what they find into `out`.
local WAYS <const> = {
  "for k, v in pairs(t) do out[#out + 1] = tostring(k) .. '=' .. tostring(v) %s end",
  "for k, v in next, t do out[#out + 1] = tostring(k) .. '=' .. tostring(v) %s end",
  "local k, v = next(t) while k ~= nil do out[#out + 1] = tostring(k) .. '=' .. tostring(v) %s k, v = next(t, k) end",
}

-- Each way gives the same.
local function gives(head, expected, also)
  for _, way in ipairs(WAYS) do
    local body = "local out = {} " .. head .. " " .. way:format(also or "") .. " return table.concat(out, ' ')"
    equal(result("", body), expected)
  end
end

function tests.keys_of_one_kind_are_in_order()
  local letters, expected = {}, {}
  for at = 1, 300 do
    local key = string.format("k%03d", (at * 7919) % 1000)
    letters[at], expected[at] = key .. " = " .. at, key .. "=" .. at
  end
  table.sort(expected)
  gives("local t = { " .. table.concat(letters, ", ") .. " }", table.concat(expected, " "))
  gives("local t = { [3] = 'c', [1] = 'a', [-2.5] = 'z', [2] = 'b' }", "-2.5=z 1=a 2=b 3=c")
end

function tests.kinds_come_one_after_another()
  gives("local t = { b = 1, [true] = 2, [7] = 3, a = 4, [false] = 5, [{}] = 6 }", "false=5 true=2 7=3 a=4 b=1 table=6")
  gives("local t = {}", "")
  gives("local t = { [print] = 1 }", "function=1")
end

function tests.keys_may_go_meanwhile()
  gives("local t = { a = 1, b = 2, c = 3, d = 4 }", "a=1 b=2 c=3 d=4", "t[k] = nil")
  gives("local t = { a = 1, b = 2, c = 3, d = 4 }", "a=1 c=3 d=4", "t.b = nil")
  gives("local t = { a = 1, b = 2, c = 3 }", "a=1 b=2 c=3", "t[k] = 9")
  equal(
    result(
      "",
      "local t, n = { a = 1, b = 2, c = 3 }, '' local k = next(t) while k do t[k] = nil n = n .. k k = next(t) end "
        .. "return n"
    ),
    "abc"
  )
end

function tests.a_table_is_gone_through_within_itself()
  local body = "local t, out = { a = 1, b = 2, c = 3 }, '' for k in next, t do for l in next, t do out = out .. k .. l "
    .. "end end return out"
  equal(result("", body), "aaabacbabbbccacbcc")
end

function tests.a_new_pass_sees_what_came_after_the_last_one()
  local body = "local t, out = { b = 1, d = 2, e = 3 }, '' for k in next, t do if k == 'd' then break end end t.c = 4 "
    .. "t.a = 5 for k in next, t do out = out .. k end return out"
  equal(result("", body), "abcde")
end

function tests.a_pass_that_began_while_the_script_was_loaded_is_over()
  local head = "t = { a = 1, b = 2 } local first = next(t) last = next(t, first) t.c = 3"
  equal(result(head, "return next(t, last) .. next(t, last)"), "cc")
end

-- Lua looks for these in the metatable alone, and so does what stands in their place.
function tests.what_a_class_inherits_is_no_method_of_lua()
  local head = "local Base = { __tostring = function() return 'base' end, __name = 'Base' } Base.__index = Base "
    .. "function Base.__pairs(t) return next, t, nil end "
    .. "local Derived = setmetatable({}, Base) Derived.__index = Derived "
  local made = "local t = setmetatable({ a = 1, d = 4, b = 2, c = 3, e = 5, f = 6 }, Derived) "
  equal(result(head, made .. "local out = '' for k in pairs(t) do out = out .. k end return out"), "abcdef")
  equal(result(head, made .. "return tostring(t) .. string.format('%s', t)"), "tabletable")
  equal(result(head, "return tostring(Derived)"), "base")
  fails(head, "error(setmetatable({}, Derived))", "it raised a table, and no message")
end

function tests.what_a_method_raises_in_move_comes_as_it_is()
  local body = "local said = { code = 7 } "
    .. "local odd = setmetatable({}, { __index = function() error(said) end }) "
    .. "local ok, err = pcall(table.move, odd, 1, 1, 1, {}) return err == said and err.code"
  equal(result("", body), 7)
  fails("", "table.move({}, 1, 2)", "handlers.lua:7: bad argument #4 to 'table.move'")
end

function tests.whether_a_table_is_empty()
  equal(result("", "return tostring(next({})) .. tostring(next({ x = 1 })) .. tostring(next({ 7, 8 }))"), "nilx1")
  equal(result("", "local t = { a = 1 } t.a = nil return next(t) == nil"), true)
  equal(result("local t = { b = 1, a = 2 }", "return next(t) .. select(2, next(t))"), "a2")
  equal(result("", "return type(next(_G))"), "string")
end

function tests.what_has_no_order_is_refused()
  for _, call in ipairs({ "for k in pairs(t) do end", "for k in next, t do end", "next(t)" }) do
    fails("", "local t = { [{}] = 1, [{}] = 2 } " .. call, "several keys of the table are tables, which have no order")
    fails("", "local t = { [print] = 1, [next] = 2 } " .. call, "are functions, which have no order", "handlers.lua")
    fails("", "local t = { [numeric(1)] = 1, [numeric(2)] = 2 } " .. call, "no order")
  end
  fails("", "local t = { a = 1, [{}] = 1, [{}] = 2 } next(t, 'a')", "next: several keys of the table are tables")
  equal(result("", "return next({ a = 1, [{}] = 1, [{}] = 2 })"), "a")
  fails("", "next(7)", "next: expected a table, got a number")
  fails("", "next()", "next: expected a table, got a nil")
end

return tests
