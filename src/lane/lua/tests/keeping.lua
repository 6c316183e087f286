-- What a script keeps from one call to the next: it is refused, or read-only.
local harness = ...
local equal, load_script = harness.equal, harness.load_script
local tests = {}

local function refused(head, ...)
  local inner, problem = load_script(head)
  if inner then error("expected it to be refused: " .. head, 2) end
  for _, says in ipairs({ ... }) do
    if not problem:find(says, 1, true) then error("expected " .. says .. " of " .. head .. ", got " .. problem, 2) end
  end
  if #problem > 400 then error("too long: " .. problem, 2) end
end

local result, fails = harness.result, harness.fails_in_script

local COUNTER <const> = [[local function counter()
  local n = 0
  return function()
    n = n + 1
    return n
  end
end]]

function tests.assigning_to_a_local_of_the_file_is_refused()
  refused("local ctx\nfunction f(c) ctx = c end", "handlers.lua:2: a function assigns to ctx", "as an argument")
  refused("local n = 0\n\nlocal function f()\n  n = n + 1\nend\nfunction g() f() end", "handlers.lua:4: ", "to n,")
  refused("do local last function f(e) last = e end end", "to last,")
  refused("for i = 1, 2 do local seen = i _G['f' .. i] = function() seen = 1 end end", "to seen,")
  refused("for i = 1, 2 do _G['f' .. i] = function() i = i + 1 end end", "to i,")
  refused("local a, b, c = 1, 2, 3 function f() a, c = c, b end", "to ")
  refused("local n = 0 function f() return function() return function() n = n + 1 end end end", "to n,")
  refused("local n = 0 handlers = { { f = function() n = n + 1 end } }", "to n,")
  refused("local n = 0 T = setmetatable({}, { __index = function() n = n + 1 end })", "to n,")
  refused("local n = 0 T = { [function() n = n + 1 end] = true }", "to n,")
  refused("local n = 0 T = setmetatable({}, { __eq = function() n = n + 1 end })", "to n,")
  refused(
    "local n = 0 local m = { __call = function() n = n + 1 end } T = setmetatable({}, { __eq = "
      .. "setmetatable({}, m) })",
    "to n,"
  )
  refused("local n = 0 local f = function() n = n + 1 end function g() return f end", "to n,")
  refused("local n = 0 function string.count() n = n + 1 end string = nil", "to n,")
  refused("local function f() f = nil end function g() f() end", "to f,")
  refused("local name_" .. ("x"):rep(3000) .. " = 0 function f() name_" .. ("x"):rep(3000) .. " = 1 end", "to name_x")
  refused("local n <close> = nil local m = 1 function f() m = 2 end", "to m,")
  refused(("\n"):rep(1000) .. "local n = 0\nfunction f()\n" .. ("\n"):rep(300) .. "n = 1 end", "handlers.lua:1303: ")
end

function tests.closures_made_while_it_is_loaded_keep_nothing()
  refused(COUNTER .. " next_id = counter()", "handlers.lua:4: ", "to n,")
  refused(COUNTER .. " local next_id = counter() function f() return next_id() end", "to n,")
  refused(COUNTER .. " local ids = { counter() } function f() return ids[1]() end", "to n,")
  refused(
    "local function make(n) return function() local function up() n = n + 1 end up() return n end end f = make(0)",
    "to n,"
  )
  refused("local function make(...) local n = ... return { up = function() n = n + 1 end } end f = make(0)", "to n,")
  refused("f = pcall and select(2, pcall(function() local n = 0 return function() n = n + 1 end end))", "to n,")
  refused("local it = string.gmatch('a b', '%a') function f() return it() end", "it is an iterator", "handlers.lua:1: ")
  refused("it = string.gmatch('a b', '%a')", "it is an iterator")
  refused("local it = pairs({ 1, 2 }) function f() return it() end", "it is an iterator")
  refused("local many = { string.gmatch('a b', '%a') } function f() return many end", "many is an iterator")
end

function tests.the_table_of_globals_is_not_exchanged()
  refused("function f() _ENV = {} end", "handlers.lua:1: _ENV")
  refused("\n_ENV = setmetatable({}, { __index = _ENV })", "handlers.lua:2: _ENV")
  local head = "local out = {} do local _ENV = { a = 5, out = out } function out.f(x) a = x or a return a end end"
  equal(
    result("local out = {} do local _ENV = { a = 5, out = out } function out.f() return a end end", "return out.f()"),
    5
  )
  fails(head, "out.f(6)", "read-only")
end

function tests.what_begins_anew_with_each_call_is_free()
  equal(result(COUNTER, "local next_id = counter() next_id() return next_id()"), 2)
  equal(result(COUNTER .. " local a = counter() print(a() + a())", "return counter()()"), 1)
  equal(result("local n = 0 local function add(x) n = n + x end add(2) add(3) local total = n", "return total"), 5)
  equal(result("local n = 0 for i = 1, 3 do n = n + i end", "return n"), 6)
  equal(
    result(
      "local function sum(list) local n = 0 each(list, function(x) n = n + x end) return n end\n"
        .. "function each(list, f) for _, x in ipairs(list) do f(x) end end local six = sum({ 1, 2, 3 })",
      "return six + sum({ 4 })"
    ),
    10
  )
  equal(result("", "local n = 0 local function up() n = n + 1 end up() up() return n"), 2)
  equal(
    result("", "local t = {} for i = 1, 9 do t[i] = i * i end t.x = 1 t['y'] = 2 t[10] = 3 return #t + t.x + t.y"),
    13
  )
  equal(
    result(
      "local zero <const>, texts = 0, 'a b'",
      "local n = zero for _ in texts:gmatch('%a') do n = n + 1 end return n"
    ),
    2
  )
  equal(result("local f for i = 1, 3 do f = i end function g() return f end", "return g()"), 3)
  equal(
    result(
      "local iterate, list = ipairs({ 7 }) local codes = utf8.codes('x')",
      "return iterate(list, 0) .. type(codes)"
    ),
    "1function"
  )
end

function tests.a_metatable_is_in_its_first_call_what_it_is_in_all()
  local head = "local eq = setmetatable({}, { __call = function() return true end }) meta = { __eq = eq }"
    .. " local kind = type(meta.__eq) function is_same() return type(meta.__eq) end"
  local body = "local first = is_same() local a, b = setmetatable({}, meta), setmetatable({}, meta)"
    .. " return first == is_same() and a == b"
  equal(result(head, body), true)
  equal(result("local data = { __eq = { 1 } }", "return data.__eq[1]"), 1)
  fails("", "setmetatable({}, { __eq = 5 })", "setmetatable: __eq is no function but a number")
end

function tests.tables_are_read_only_once_it_is_loaded()
  local head = "local cache = { a = 1, list = { 1, 2, 3 }, deep = { er = {} }, [1] = 1 }\n"
    .. "local key = {} local by_key = { [key] = true }\n"
    .. "local Class = { __index = {}, __name = 'c' } Class.new = function() return setmetatable({ x = 1 }, Class) end\n"
    .. "local function holder(t) return function() return t end end local held = holder({ 1 })\n"
    .. "local one = Class.new() local marked = array({ 1 }) local empty = {}\n"
    .. "local locked = setmetatable({ x = 1 }, { __metatable = 'locked' })\n"
    .. "local alias = setmetatable({}, { __index = cache, __newindex = cache }) global = { inner = { 1 } }\n"
  for _, body in ipairs({
    "cache.a = 2",
    "cache.b = 2",
    "cache[1] = 2",
    "cache[9] = 2",
    "cache[ctx.region] = 2",
    "cache.list[2] = 5",
    "cache.list[#cache.list + 1] = 4",
    "cache.deep.er.x = 1",
    "for k in next, cache do cache[k] = nil end",
    "table.insert(cache.list, 4)",
    "table.insert(cache.list, 1, 4)",
    "table.remove(cache.list)",
    "table.remove(cache.list, 1)",
    "table.sort(cache.list)",
    "table.move({ 9 }, 1, 1, 1, cache.list)",
    "table.move(cache.list, 1, 2, 2)",
    "setmetatable(cache, {})",
    "setmetatable(empty, nil)",
    "key.x = 1",
    "next(by_key).x = 1",
    "Class.new = nil",
    "Class.__index.f = print",
    "getmetatable(one).x = 1",
    "getmetatable(one).__index = nil",
    "one.x = 2",
    "one.y = 2",
    "held()[1] = 2",
    "held()[2] = 2",
    "marked[1] = 2",
    "marked[2] = 2",
    "table.insert(marked, 2)",
    "locked.x = 2",
    "locked.y = 2",
    "alias.a = 2",
    "alias.zz = 2",
    "global.inner[1] = 2",
    "global.x = 1",
    "string.sub = nil",
    "math.x = 1",
    "local m = table m.concat = nil",
    "local t = cache for i = 1, 2 do t.a = i end",
    "local t t = cache local function f() t.a = 1 end f()",
    "local function f(t) t.a = 1 end f(cache)",
    "local t = {} for _ = 1, 2 do t.a = 1 t = cache end",
    "local t = {} goto in_it ::again:: t.a = 1 do return end ::in_it:: t = cache goto again",
    "local t = {} local function f() t = cache end f() t.a = 5",
    "local o = setmetatable({}, { __newindex = cache }) o.a = 5",
    "local m = {} local o = setmetatable({}, m) m.__newindex = cache o.a = 5",
    "local m = { __newindex = 1 } local o = setmetatable({}, m) m.__newindex = cache o.a = 5",
    "local m = { __newindex = 1 } local o = setmetatable({}, m) m['__new' .. 'index'] = cache o.a = 5",
    "array(cache.list)[1] = 1 cache.list[1] = 5",
  }) do
    fails(head, body, "handlers.lua", "read-only")
  end
  fails(head, "cache.deep.er.x = 1", "cache is read-only", "keep state in entities", "in: ")
  fails("  big = { " .. ("x"):rep(2000) .. " = 1 }", "big." .. ("x"):rep(2000) .. " = 2", "big is read-only")
end

function tests.reading_goes_on_as_before()
  local head = "local data = { 3, 1, 2, name = 'n', inner = { a = 1 } }\n"
    .. "local P = {} P.__index = P P.__eq = function(a, b) return a.id == b.id end\n"
    .. "P.__len = function(s) return s.n end\n"
    .. "P.__call = function(_, x) return x + 1 end P.__lt = function(a, b) return a.id < b.id end\n"
    .. "P.__tostring = function() return 'p' end P.__concat = function() return 'c' end\n"
    .. "P.__add = function() return 9 end\n"
    .. "function P.of(id) return setmetatable({ id = id, n = 1 }, P) end local one, two = P.of(1), P.of(2)\n"
    .. "local fallback = setmetatable({ a = 1 }, { __index = function(_, k) return k .. '?' end,\n"
    .. "  __pairs = function(t) return next, { only = 1 }, nil end }) local list = array({})\n"
  for _, case in ipairs({
    { "return data[1] + data[2] + #data + #data.name", 8 },
    { "local n = 0 for k, v in pairs(data) do n = n + 1 end return n", 5 },
    { "local n = 0 for i, v in ipairs(data) do n = n + v end return n", 6 },
    { "local n = 0 for k in next, data do n = n + 1 end return n", 5 },
    { "return table.concat(data, ',') .. select('#', table.unpack(data))", "3,1,23" },
    { "local copy = { table.unpack(data) } table.sort(copy) return table.concat(copy)", "123" },
    { "local t = table.move(data, 1, 3, 1, {}) t[1] = 9 return t[1] + data[1]", 12 },
    { "local p, q = P.of(1), P.of(1) p.id = 7 p.id = 1 return tostring(p == q) .. tostring(p == one)", "truetrue" },
    { "return tostring(one == two) .. tostring(one < two) .. #one .. one(1) .. tostring(one)", "falsetrue12p" },
    { "return (one .. 'x') .. (one + 1)", "c9" },
    { "return fallback.a .. fallback.b", "1b?" },
    { "local k = '' for key in pairs(fallback) do k = k .. key end return k", "only" },
    { "return tostring(getmetatable(one) == P) .. tostring(getmetatable(data))", "truenil" },
    { "return tostring(getmetatable(list)) .. tostring(getmetatable('x'))", "falsefalse" },
    { "return tostring(getmetatable(print)) .. tostring(getmetatable(_G))", "nilfalse" },
    { "return tostring(rawequal(data, data)) .. rawlen(data) .. type(next({}))", "true3nil" },
    { "local t = table.pack(1, 2) table.insert(t, 3) return table.remove(t, 1) + table.remove(t) + #t", 5 },
    { "local t = { 1, 2, 3 } return tostring(table.remove(t, 4)) .. table.remove(t, 1) .. #t", "nil12" },
    { "return table.remove({ 1, 2 }, nil)", 2 },
    { "return tostring(table.remove({})) .. tostring(table.remove({}, 0))", "nilnil" },
    { "array(data).x = 1 return #array(data) .. tostring(data.x) .. #array(list)", "3nil0" },
    { "local o = setmetatable({}, { __index = data }) o.name = 'x' return o.name .. o[1] .. data.name", "x3n" },
    { "local log = {} local o = setmetatable({}, { __newindex = log }) o.a = 1 return log.a", 1 },
    { "local c = { f = function() return 5 end } c.g = function() return c.f() end return c.g()", 5 },
  }) do
    equal(result(head, case[1]), case[2])
  end
end

function tests.what_a_script_adds_to_the_library_is_its_own()
  equal(
    result(
      "function string.twice(s) return s .. s end function math.half(x) return x // 2 end",
      "return ('ab'):twice() .. math.half(9) .. ('x'):rep(2)"
    ),
    "abab4xx"
  )
  equal(
    result(
      "math.min = nil string.sub, string.format, table.concat, string.byte = nil local m = math m.max = nil",
      "ctx.account:find({ order = '-balance' }) local ok, p = pcall(ctx.account.find, ctx.account, { order = 'x' })\n"
        .. "return tostring(p):find('no column', 1, true) and 'fine'"
    ),
    "fine"
  )
  fails("", "('x').y = 1", "")
end

function tests.metatables_neither_finalise_nor_weaken()
  for _, head in ipairs({
    "o = setmetatable({}, { __gc = false })",
    "o = setmetatable({}, { __gc = print })",
    "o = setmetatable({}, { __mode = 'k' })",
    "o = setmetatable({}, { __mode = false })",
    "local m = {} o = setmetatable({}, m) m.__mode = 'k'",
    "local m = {} o = setmetatable({}, m) m.__gc = print",
    "local m = {} local o = setmetatable({}, m) m.__mode = 'v' function f() return o end",
    "o = setmetatable({}, setmetatable({ __gc = 1 }, {}))",
  }) do
    refused(head, "__gc, __mode and __close")
  end
  fails("local m = {} local o = setmetatable({}, m)", "m.__gc = print", "read-only")
  fails("local m = { __gc = false }", "setmetatable({}, m)", "__gc, __mode and __close")
  fails("", "setmetatable({}, { __gc = false })", "__gc, __mode and __close")
  fails("", "local m = {} setmetatable({}, m) m.__mode = 'k'", "a metatable is read-only once it is in use")
  fails("", "local m = setmetatable({}, {}) setmetatable({}, m) m.__gc = print", "read-only once it is in use")
  -- A metamethod of an operation may have passed the table on.
  for _, sign in next, { "*", "+", "-", "%", "..", "//" } do
    local other = "local o = setmetatable({}, { __mul = f, __add = f, __sub = f, __mod = f, __concat = f, __idiv = f })"
    local head = "local function f(a) setmetatable({}, a) return 1 end "
    local body = " local n = { x = 1 } local r = n " .. sign .. " o n.__gc = f"
    fails("", head .. other .. body, "read-only once it is in use")
  end
  fails("", "setmetatable({}, numeric(1))", "setmetatable")
end

function tests.exact_numbers_never_change()
  for _, body in ipairs({
    "local n = numeric(5) n[2] = 77",
    "local n = numeric(5) n[1] = 77",
    "local n = numeric(5) local k = 2 n[k] = 77",
    "local n = numeric('1' .. ('0'):rep(60)) n[2] = '1'",
    "local n = numeric(5) n.x = 1",
    "local n = numeric(5) n[3] = true",
    "table.move({ 7 }, 1, 1, 2, numeric(5))",
    "table.insert(numeric(5), 1)",
    "table.remove(numeric(5))",
    "table.sort(numeric(5))",
    "setmetatable(numeric(5), {})",
    "array(numeric(5))",
    "zero[2] = 1",
    "local o = setmetatable({}, { __newindex = zero }) o[2] = 1",
    "table.move(zero, 1, 2, 1, {})",
  }) do
    fails("local zero = numeric(0)", body, "handlers.lua")
    equal(result("local zero = numeric(0) zero2 = zero", "return tostring(zero) .. tostring(zero2)"), "00")
  end
  fails("", "local n = numeric(5) n[2] = 77", "a number cannot be changed")
  local inner, problem = load_script("local n = numeric(5)\nn[2] = 77")
  equal(inner, nil)
  equal(problem:find("a number cannot be changed", 1, true) ~= nil, true)
  equal(
    result("", "local a, b = numeric(5), numeric('5') return tostring(a == b) .. tostring(a == numeric(6))"),
    "truefalse"
  )
end

return tests
