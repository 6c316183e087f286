--!df flags=allow-undeclared-keys
-- A region's snapshots, newest first: id, time, document, id, time, document, …
-- KEYS: index. ARGV: region, template of documents, pipeline, the earliest time, how many at most.
local limit, found, offset = tonumber(ARGV[5]), {}, 0
while #found < 3 * limit do
  local page = redis.call("ZREVRANGEBYSCORE", KEYS[1], "+inf", ARGV[4], "WITHSCORES", "LIMIT", offset, 100)
  if #page == 0 then break end
  for at = 1, #page, 2 do
    local names = { pipeline = ARGV[3], region = ARGV[1], id = page[at] }
    local document = redis.call("GET", (string.gsub(ARGV[2], "<(%a+)>", names)))
    if document and #found < 3 * limit then
      found[#found + 1] = page[at]
      found[#found + 1] = page[at + 1]
      found[#found + 1] = document
    end
  end
  offset = offset + 100
end
return found
