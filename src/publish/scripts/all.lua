-- The newest snapshots of all regions of the summary: the summary, then for each region in its order what latest.lua
-- returns. If they are too many, only the summary.
-- KEYS: summary. ARGV: how many at most, templates of latest, seq, index and documents, pipeline.
local text = redis.call('GET', KEYS[1])
if not text then return {} end
local is_json, summary = pcall(cjson.decode, text)
if not is_json or type(summary) ~= 'table' or type(summary.regions) ~= 'table' then return { text } end
if #summary.regions > tonumber(ARGV[1]) then return { text } end
local found = { text }
for at, one in ipairs(summary.regions) do
  local names = { pipeline = ARGV[6], region = one.region }
  local function get(command, template, ...)
    return redis.call(command, (string.gsub(template, '<(%a+)>', names)), ...)
  end
  local id = get('GET', ARGV[2])
  names.id = id or nil
  local document = id and get('GET', ARGV[5])
  found[at + 1] = document and { id, get('GET', ARGV[3]) or '', get('ZSCORE', ARGV[4], id) or '', document } or {}
end
return found
