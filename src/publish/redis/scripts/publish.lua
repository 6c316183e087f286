--!df flags=allow-undeclared-keys
-- Publishes one region's snapshot: all of it or nothing.
--
-- KEYS: latest, seq, doc, index, dedup, live, at (if there is one), then summary and votes (if the regions sum up).
-- What can fail comes first: keys of a wrong type are found by reading them, rights are asked for, and the first write
-- is one that fails if the index is no index, and that Redis refuses when its memory is full; after a write it refuses
-- none of the same script.
--
-- Beside seq is the signature of the store that publishes the region. Documents that are given by hand have none, and
-- leave it as it is.
--
-- Who seeds has a lock, and publishes only while it is his. Where all is well the last of the regions writes the health
-- key and gives the lock back too.
--
-- A snapshot that is new is told to the channel of its region.
local region, id, seq, document = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local time, ttl, window, oldest = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local doc_template, at_template, pipeline = ARGV[9], ARGV[10], ARGV[11]
local store, predecessor, takes_over, ahead = ARGV[13], ARGV[14], ARGV[15] == "1", tonumber(ARGV[16])
local lock_key, lock = ARGV[17], ARGV[18]
local event = ARGV[19]
local voters, entry, head, tail = tonumber(ARGV[20] or "0"), ARGV[21], ARGV[22], ARGV[23]
local health_key, health, has_fields = ARGV[24], ARGV[25], ARGV[26] == "1"
local latest_key, seq_key, doc_key, index_key, dedup_key, live_key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local at_key = at_template ~= "" and KEYS[7] or nil
local store_key = seq_key .. ":store"

local function name(template, of_id, of_time)
  return (string.gsub(template, "<(%a+)>", { pipeline = pipeline, region = region, id = of_id, timestamp = of_time }))
end

local is_locked = true
if lock_key ~= "" then
  local held = redis.pcall("GET", lock_key)
  if type(held) == "table" then return redis.error_reply(held.err .. ": " .. lock_key) end
  is_locked = held == lock
end

local found = redis.call("MGET", latest_key, seq_key, dedup_key, store_key)
local newest, known, twin = found[1], found[2], window ~= "0" and found[3]
-- MGET does not tell a key of another type from none. (What is at the dedup key is written over, whatever it is.)
if not (newest and known) then
  if redis.call("EXISTS", latest_key, seq_key) ~= (newest and 1 or 0) + (known and 1 or 0) then
    for _, key in ipairs({ latest_key, seq_key }) do
      local value = redis.pcall("GET", key)
      if type(value) == "table" then return redis.error_reply(value.err .. ": " .. key) end
    end
  end
end
if known and not string.find(known, "^[1-9]%d*$") and known ~= "0" then
  return redis.error_reply("FOREIGN the key does not hold a number of ours: " .. seq_key)
end

local signed = found[4]
if signed and store ~= "" and not takes_over and signed ~= store and signed ~= predecessor then
  return redis.error_reply("SIGNED " .. signed)
end

-- What is older than the time to live, looked up before anything is written.
local past = {}
if newest then
  past = redis.pcall("ZRANGEBYSCORE", index_key, "-inf", "(" .. oldest, "LIMIT", 0, 1000)
  if past.err then return redis.error_reply(past.err .. ": " .. index_key) end
end

if ARGV[12] == "1" and redis.acl_check_cmd then
  local needed = {
    { "SET", doc_key, "" },
    { "ZADD", index_key, "0", "" },
    { "PEXPIRE", index_key, "1" },
    { "SET", latest_key, "" },
    { "SET", seq_key, "" },
    { "DEL", live_key },
    { "SET", dedup_key, "" },
    { "SET", at_key or doc_key, "" },
    { "SET", store ~= "" and store_key or seq_key, "" },
  }
  for _, command in ipairs(needed) do
    if not redis.acl_check_cmd(unpack(command)) then
      return redis.error_reply("NOPERM the user may not " .. command[1] .. " " .. command[2])
    end
  end
end

-- Whether a is above b: decimal integers without leading zeros.
local function above(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

-- Whether readers have that content: under another id, or under that very one. An id that was given may come again with
-- another content.
local function has_content()
  if not newest or twin ~= newest then return false end
  if newest == id then return redis.call("GET", doc_key) == document end
  return redis.call("EXISTS", name(doc_template, newest)) == 1
end

local status
if known and newest and above(known, seq) then
  status = has_content() and "duplicate" or "stale"
elseif newest == id then
  -- What Redis has let go is written again too.
  if (known == seq or twin == id) and redis.call("GET", doc_key) == document then
    status = known == seq and "same" or "duplicate"
  end
elseif has_content() then
  status = "duplicate"
end

-- What is there already may be ours, of a try whose answer was lost; then the lock was given back since.
if not is_locked then
  if status ~= "same" and status ~= "duplicate" then
    return redis.error_reply("UNLOCKED the lock is not ours any more")
  end
  voters = 0
end

-- A number that is too far ahead would close the region until then: it is the time, of a host whose clock is wrong.
if not status and ahead then
  local clock = redis.pcall("TIME")
  local now = not clock.err and tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
  if now and tonumber(seq) > now + ahead then return redis.error_reply(string.format("AHEAD %.0f", now)) end
end

-- A document that is there and not in the index is not this region's. But where its key or its id has the region's name
-- and nothing of it changes, Redis has let the index go.
local is_apart = string.find(doc_template, "<region>", 1, true) ~= nil
local is_named = is_apart or string.sub(id, 1, #region + 1) == region .. "."
local function is_taken(key)
  return redis.call("EXISTS", key) == 1 and not (is_named and redis.call("GET", key) == document)
end

if not status and newest ~= id then
  local place = redis.pcall("ZSCORE", index_key, id)
  if type(place) == "table" then return redis.error_reply(place.err .. ": " .. index_key) end
  -- Past its time to live, an id that regions share may be another region's by now.
  if place and not is_apart and tonumber(place) < tonumber(oldest) then place = false end
  local copies = at_key and string.find(at_template, "<id>", 1, true)
  if not place and (is_taken(doc_key) or copies and is_taken(at_key)) then
    return redis.error_reply("TAKEN the document is there and not in the index")
  end
end

if status then
  -- The same may be what an attempt has left that was cut short by the server itself.
  if status == "same" then redis.call("DEL", live_key) end
  if newest then
    local moment = at_key and redis.call("ZSCORE", index_key, newest)
    redis.call("PEXPIRE", latest_key, ttl)
    -- What Redis has let go alone is made again.
    if redis.call("PEXPIRE", index_key, ttl) == 0 then
      redis.pcall("ZADD", index_key, time, newest)
      redis.call("PEXPIRE", index_key, ttl)
    end
    redis.call("PEXPIRE", name(doc_template, newest), ttl)
    if moment then redis.call("PEXPIRE", name(at_template, newest, string.format("%.0f", moment)), ttl) end
  end
  if redis.call("PEXPIRE", seq_key, ttl) == 0 then redis.pcall("SET", seq_key, seq, "PX", ttl) end
  if store == "" or signed == store then
    redis.pcall("PEXPIRE", store_key, ttl)
  else
    -- A full memory may refuse it; then the next one signs.
    redis.pcall("SET", store_key, store, "PX", ttl)
  end
else
  local added = redis.pcall("ZADD", index_key, time, id)
  if type(added) == "table" then return redis.error_reply(added.err .. ": " .. index_key) end
  redis.call("SET", doc_key, document, "PX", ttl)
  if at_key then redis.call("SET", at_key, document, "PX", ttl) end
  redis.call("PEXPIRE", index_key, ttl)
  redis.call("DEL", live_key)
  redis.call("SET", latest_key, id, "PX", ttl)
  redis.call("SET", seq_key, seq, "PX", ttl)
  if store ~= "" then
    redis.call("SET", store_key, store, "PX", ttl)
  elseif signed then
    redis.pcall("PEXPIRE", store_key, ttl)
  end
  for _, old in ipairs(past) do
    -- While a slot moves, a key that has gone ahead is left to the next time. A key that regions share expires by
    -- itself: it may be another region's by now.
    if old ~= id and (not is_apart or type(redis.pcall("DEL", name(doc_template, old))) == "number") then
      redis.pcall("ZREM", index_key, old)
    end
  end
  if window ~= "0" then redis.call("SET", dedup_key, id, "PX", window) end
end

local now_id, now_seq = id, seq
if status then
  now_id, now_seq = newest or id, known or seq
end

-- The last of the regions of one publish writes the summary, so that it costs no round trip. A region that fails does
-- not vote, and then nobody writes it.
local summed, settled = 0, 0
if voters > 0 then
  local summary_key, votes_key = KEYS[#KEYS - 1], KEYS[#KEYS]
  if status then
    entry = '{"region":' .. cjson.encode(region) .. ',"id":' .. cjson.encode(now_id) .. ',"seq":' .. now_seq .. "}"
  end
  local mark = status == "stale" and "2" or status and "0" or "1"
  local vote = redis.pcall("HSETNX", votes_key, region, mark .. entry)
  local votes = {}
  if type(vote) == "number" then
    redis.pcall("PEXPIRE", votes_key, 60000)
    if redis.pcall("HLEN", votes_key) == voters then votes = redis.pcall("HGETALL", votes_key) end
  end
  if #votes == 2 * voters then
    local entries, marks, regions = {}, { ["0"] = 0, ["1"] = 0, ["2"] = 0 }, {}
    for at = 1, #votes, 2 do
      regions[votes[at]] = tonumber(string.match(votes[at + 1], '"seq":(%d+)')) or 0
      local marked = string.sub(votes[at + 1], 1, 1)
      marks[marked] = marks[marked] + 1
      entries[#entries + 1] = string.sub(votes[at + 1], 2)
    end
    redis.pcall("DEL", votes_key)
    local before = redis.pcall("GET", summary_key)
    local is_known = before == false
    if type(before) == "string" then
      local is_json, content = pcall(cjson.decode, before)
      -- One that a store has signed is written from outside, which keeps the signature.
      is_known = is_json and type(content) == "table" and type(content.regions) == "table" and not content.store
      for _, one in ipairs(is_known and content.regions or {}) do
        is_known = is_known
          and type(one) == "table"
          and regions[one.region] ~= nil
          and (tonumber(one.seq) or 0) <= regions[one.region]
      end
    end
    -- Fields of what was there already are not in its entry.
    local is_whole = is_known and (not has_fields or marks["1"] == voters)
    if marks["1"] == 0 then
      redis.pcall("PEXPIRE", summary_key, ttl)
      summed = 1
    elseif is_whole then
      table.sort(entries)
      local text = head .. table.concat(entries, ",") .. tail
      if not redis.pcall("SET", summary_key, text, "PX", ttl).err then summed = 1 end
    end
    local is_well = is_known and marks["2"] == 0 and summed == 1
    if is_well and health_key ~= "" then
      local text = string.gsub(health, "<(%a+)>", { published = marks["1"] })
      local written = redis.pcall("SET", health_key, text, "PX", ttl)
      is_well = type(written) ~= "table" or not written.err
    end
    if is_well and lock_key ~= "" then is_well = type(redis.pcall("DEL", lock_key)) == "number" end
    if is_well then settled = 1 end
  end
end

-- Who listens is told of what is new. That the user may not do so is no reason to lose the snapshot.
local untold = ""
if not status then
  local told = redis.pcall("PUBLISH", "forebay:{" .. pipeline .. ":" .. region .. "}:events", event)
  if type(told) == "table" then untold = told.err end
end

return { status or "published", now_id, now_seq, summed, signed or "", settled, untold }
