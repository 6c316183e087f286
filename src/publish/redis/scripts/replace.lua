-- Writes a text over the one that was read; returns 1, or what is there if that is another.
-- KEYS: the key. ARGV: the SHA-1 of what was read (empty for nothing), the text, its time to live.
local found = redis.call("GET", KEYS[1])
if (found and redis.sha1hex(found) or "") ~= ARGV[1] then return found end
redis.call("SET", KEYS[1], ARGV[2], "PX", ARGV[3])
return 1
