--!df flags=allow-undeclared-keys
-- Begins the time to live of what a region has anew. Returns its id, or nothing if it has nothing.
-- KEYS: latest, seq, index. ARGV: region, ttl, template of documents, template of copies by time, pipeline.
local newest = redis.call("GET", KEYS[1])
if not newest then return false end
local function name(template, moment)
  local names = { pipeline = ARGV[5], region = ARGV[1], id = newest, timestamp = moment }
  return (string.gsub(template, "<(%a+)>", names))
end
if redis.call("EXISTS", name(ARGV[3])) == 0 then return false end
local moment = ARGV[4] ~= "" and redis.call("ZSCORE", KEYS[3], newest)
for _, key in ipairs({ KEYS[1], KEYS[2], KEYS[3], name(ARGV[3]) }) do
  redis.call("PEXPIRE", key, ARGV[2])
end
redis.pcall("PEXPIRE", KEYS[2] .. ":store", ARGV[2])
if moment then redis.call("PEXPIRE", name(ARGV[4], string.format("%.0f", moment)), ARGV[2]) end
return newest
