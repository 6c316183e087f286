--!df flags=allow-undeclared-keys
-- The newest snapshots of all regions of the summary: the summary, then for each region its name and what latest.lua
-- returns, or its name and what is wrong. If they are too many, only the summary.
-- KEYS: summary. ARGV: how many at most, templates of latest, seq, index and documents, pipeline.
local text = redis.call("GET", KEYS[1])
if not text then return {} end
local is_json, summary = pcall(cjson.decode, text)
if not is_json or type(summary) ~= "table" or type(summary.regions) ~= "table" then return { text } end
if #summary.regions > tonumber(ARGV[1]) then return { text } end
local found = { text }
for _, one in ipairs(summary.regions) do
  if type(one) ~= "table" or type(one.region) ~= "string" then return { text } end
  local names = { pipeline = ARGV[6], region = one.region }
  local failure
  local function get(command, template, ...)
    local key = string.gsub(template, "<(%a+)>", names)
    local value = redis.pcall(command, key, ...)
    if type(value) == "table" then
      failure = failure or (value.err .. ": " .. key)
      return nil
    end
    return value or nil
  end
  local id = get("GET", ARGV[2])
  names.id = id
  local document = id and get("GET", ARGV[5])
  local seq, moment = get("GET", ARGV[3]), id and get("ZSCORE", ARGV[4], id)
  if failure then
    found[#found + 1] = { one.region, failure }
  elseif document then
    local signature = redis.pcall("GET", string.gsub(ARGV[3], "<(%a+)>", names) .. ":store")
    if type(signature) ~= "string" then signature = "" end
    found[#found + 1] = { one.region, id, seq or "", moment or "", document, signature }
  end
end
return found
