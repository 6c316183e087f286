-- Functions of the library that take texts.
local harness = ...
local result, fails = harness.result, harness.fails_in_script
local tests = {}

local EQUAL <const> = [[
  local long, digits = 0.1 + 0.2, "0.30000000000000004"
  local function equal(got, expected)
    if got ~= expected then error("expected " .. tostring(expected) .. ", got " .. tostring(got), 2) end
  end
]]

-- Each of these is true.
local function holds(body)
  result("", EQUAL .. body)
end

function tests.a_float_has_all_its_digits()
  holds([[
    equal(string.sub(long, 1), digits)
    equal(string.len(long), #digits)
    equal(string.upper(long) .. string.lower(long), digits .. digits)
    equal(string.reverse(long), "40000000000000003.0")
    equal(string.byte(long, -1), 52)
    equal(string.rep(long, 2, long), digits .. digits .. digits)
    equal(string.find(long, "4"), #digits)
    equal(string.find(digits, long, 1, true), 1)
    equal(string.match(long, ".*"), digits)
    equal(string.match(digits, long), digits)
    equal(string.gmatch(long, ".+")(), digits)
    equal(string.format(long), digits)
    local object = setmetatable({}, { __tostring = function() return long end })
    equal(tostring(object) .. string.format("%s", object), digits .. digits)
    equal(table.concat({ 1, 2 }, long), "1" .. digits .. "2")
    equal(utf8.len(long), #digits)
    equal(utf8.codepoint(long, -1), 52)
  ]])
end

function tests.so_it_has_where_it_takes_the_place_of_a_match()
  holds([[
    equal(string.gsub(long, "0+", "_"), "_.3_4")
    equal(string.gsub("a", "a", long), digits)
    equal(string.gsub("ab", ".", { a = long }), digits .. "b")
    local function both(a, b) return a .. b == "ab" and long, 1 end
    equal(string.gsub("ab", "(.)(.)", both), digits)
    equal(string.gsub("ab", ".", { a = false, b = 5 }), "a5")
    equal(select(2, string.gsub("aaa", "a", "b", 2)), 2)
    equal(("aab"):gsub("^a", { a = 1.5 }), "1.5ab")
  ]])
  fails("", "string.gsub('a', 'a', function() return {} end)", "invalid replacement value (a table)")
  fails("", "string.gsub('a', 'a', true)", "bad argument #3 to 'gsub'")
end

function tests.so_it_has_as_bytes_or_is_refused()
  holds([[
    equal(string.unpack("z", string.pack("z", long)), digits)
    equal(string.unpack("!4 Xi4 s1", string.pack("!4 Xi4 s1", long)), digits)
    equal(string.pack("c20 b", long, 1), digits .. "\0\1")
    equal(string.unpack("d", string.pack("d", long)), long)
    equal(string.unpack("z", long .. "\0"), digits)
  ]])
  fails("", "string.pack('i8', 2.0 ^ 53)", "string.pack: a float of 2^53 or more has no exact value")
  fails("", "string.pack('i8')", "bad argument #2 to 'pack'")
  fails("", "string.pack()", "bad argument #1 to 'pack'")
end

function tests.so_it_has_in_a_list_whatever_its_bounds_are()
  holds([[
    equal(table.concat({ long, 5, long }, ",", 1, "2"), digits .. ",5")
    equal(table.concat({ long, 5, long }, ",", "2", 3.0), "5," .. digits)
    equal(pcall(table.concat, { long }, ",", "x"), false)
  ]])
end

function tests.an_object_gets_the_number_that_it_is_joined_to()
  holds([[
    local V = setmetatable({}, { __concat = function(a, b) return type(a) == "table" and b or a end })
    equal(V .. long, long)
    equal(long .. V, long)
    equal(long .. V .. "x", digits .. "x")
    equal(long .. numeric(5), digits .. "5")
    equal(numeric(5) .. long, "5" .. digits)
    equal("a" .. long .. numeric(5) .. long, "a" .. digits .. "5" .. digits)
  ]])
end

-- A message may go into a row.
function tests.no_message_ends_within_a_character()
  for before = 36, 40 do
    holds(([[
      local given = ("a"):rep(%d) .. "\xE2\x82\xAC and more"
      local _, message = pcall(string.format, "%%d", given)
      equal(type(utf8.len(message)), "number")
    ]]):format(before))
  end
end

function tests.what_is_missing_is_an_error()
  fails("", "string.upper()", "bad argument #1 to 'upper'")
  fails("", "string.sub('a')", "bad argument #2 to 'sub'")
  fails("", "string.rep('a')", "bad argument #2 to 'rep'")
  fails("", "utf8.len()", "bad argument #1 to 'len'")
  fails(
    "",
    "tostring(setmetatable({}, { __tostring = function() return {} end }))",
    "'__tostring' must return a string"
  )
end

return tests
