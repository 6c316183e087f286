-- Settings of luacheck, which tests/lua.sh runs.
std = "lua54"
max_line_length = 120
color = false

-- The constants that src/lane/lua/layout.rs gives to the files beside it.
local constants = {}
for name in io.open("src/lane/lua/layout.rs"):read("*a"):gmatch('"([A-Z][A-Z_]+)"') do
  constants[#constants + 1] = name
end
files["src/lane/lua"] = { read_globals = constants }
-- It takes away what scripts may not use.
files["src/lane/lua/sandbox.lua"] = {
  read_globals = constants,
  globals = { math = { fields = { "random", "randomseed" }, other_fields = true },
    string = { fields = { "dump" }, other_fields = true }, table = { fields = { "sort" }, other_fields = true } },
}
-- It lets functions of the library know exact numbers.
files["src/lane/lua/library.lua"] = {
  read_globals = constants,
  globals = {
    math = { fields = { "floor", "ceil", "abs", "tointeger", "max", "min" }, other_fields = true },
    string = { fields = { "format" }, other_fields = true }, table = { fields = { "unpack" }, other_fields = true } },
}

-- What the pipeline calls.
local handlers = { globals = { "on_event", "on_snapshot" }, read_globals = { "numeric", "array", "null" } }
files["examples"], files["src/cli/starter"] = handlers, handlers

files["src/publish/redis/scripts"] = { std = "lua51", read_globals = { "redis", "cjson", "KEYS", "ARGV" } }
