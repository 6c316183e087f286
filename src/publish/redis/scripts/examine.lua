--!df flags=allow-undeclared-keys
-- Which of some commands the user may not run: their places, from 1; nothing if the server cannot tell. Runs none of
-- them.
-- ARGV: the commands with their arguments, as JSON.
if not redis.acl_check_cmd then return false end
local lacking = {}
for place, command in ipairs(cjson.decode(ARGV[1])) do
  local is_known, is_allowed = pcall(redis.acl_check_cmd, unpack(command))
  if is_known and not is_allowed then lacking[#lacking + 1] = place end
end
return lacking
