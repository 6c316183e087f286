-- Begins the time of a lock anew, if it is ours. Returns 1, or 0 if it is not.
-- KEYS: the lock. ARGV: what it holds while it is ours, its time to live.
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call("PEXPIRE", KEYS[1], ARGV[2])
