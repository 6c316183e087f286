--!df flags=allow-undeclared-keys
-- A region's newest snapshot: id, seq, time, document, and the store that signed it ("" if none did); or nothing.
-- KEYS: latest, seq, index. ARGV: region, template of documents, pipeline.
local failure
local function read(key, command, ...)
  local value = redis.pcall(command, key, ...)
  if type(value) == "table" then
    failure = failure or (value.err .. ": " .. key)
    return nil
  end
  return value or nil
end
local id = read(KEYS[1], "GET")
if failure then return redis.error_reply(failure) end
if not id then return false end
local names = { pipeline = ARGV[3], region = ARGV[1], id = id }
local document = read((string.gsub(ARGV[2], "<(%a+)>", names)), "GET")
local seq, moment = read(KEYS[2], "GET"), read(KEYS[3], "ZSCORE", id)
if failure then return redis.error_reply(failure) end
if not document then return false end
-- Who may read the rest need not be allowed to read this.
local signature = redis.pcall("GET", KEYS[2] .. ":store")
if type(signature) ~= "string" then signature = "" end
return { id, seq or "", moment or "", document, signature }
