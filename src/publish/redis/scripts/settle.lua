--!df flags=allow-undeclared-keys
-- Ends a publish: writes the health key and gives the lock back, each if there is one, while the lock is ours. Returns
-- 1, or 0 if it is not.
-- KEYS: those that follow. ARGV: lock, what it holds while it is ours, health key, its text, its time to live.
local lock, health = ARGV[1], ARGV[3]
if lock ~= "" and redis.call("GET", lock) ~= ARGV[2] then return 0 end
if health ~= "" then redis.call("SET", health, ARGV[4], "PX", ARGV[5]) end
if lock ~= "" then redis.call("DEL", lock) end
return 1
