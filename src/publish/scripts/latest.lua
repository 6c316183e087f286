-- A region's newest snapshot: id, seq, time, document; or nothing.
-- KEYS: latest, seq, index. ARGV: region, template of documents, pipeline.
local id = redis.call('GET', KEYS[1])
if not id then return false end
local names = { pipeline = ARGV[3], region = ARGV[1], id = id }
local document = redis.call('GET', (string.gsub(ARGV[2], '<(%a+)>', names)))
if not document then return false end
return { id, redis.call('GET', KEYS[2]) or '', redis.call('ZSCORE', KEYS[3], id) or '', document }
