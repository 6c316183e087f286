//! The same handlers as a script.

/// What [`super::items::handle`] does, in Lua.
pub const SCRIPT: &str = r#"
local function tag(v) return "t" .. ((v or 7) % 3) end
local ORDERS = { "v", "-v", "tag", "-tag" }
local function ids(found)
  local parts = {}
  for at, row in ipairs(found) do parts[at] = row.id .. "=" .. (row.v and "Some(" .. row.v .. ")" or "None") end
  return table.concat(parts, " ")
end
function on_event(e, ctx)
  local id, note, where = "k" .. (e.id or 0), "n" .. e.n % 5, nil
  if e.where then where = {{ "v", e.where[1], e.where[2] }} end
  if e.op == "set" then ctx.item:set(id, { v = e.v, tag = tag(e.v) })
  elseif e.op == "delete" then ctx.item:delete(id)
  elseif e.op == "add" then
    local old = ctx.item:get(id)
    local v = (old and old.v or 0) + e.v
    ctx.item:set(id, { v = v, tag = tag(v) })
  elseif e.op == "find" then
    ctx.note:set(note, { text = ids(ctx.item:find{ where = where, order = ORDERS[e.order % 5], limit = e.limit }) })
  elseif e.op == "tag" then
    where = where or {}
    where[#where + 1] = { "tag", "=", "t" .. e.id % 3 }
    ctx.note:set(note, { text = ids(ctx.item:find{ where = where }) })
  elseif e.op == "count" then
    ctx.note:set(note, { text = ctx.item:count{ where = where } .. " of " .. ctx.item:count() })
  elseif e.op == "fail" then
    local old = ctx.item:get(id)
    local v = (old and old.v or 0) + e.v
    ctx.item:set(id, { v = v, tag = tag(v) })
    ctx.item:delete("k" .. (e.id + 1) % 7)
    ctx.item:set("k" .. (e.id + 2) % 7, { v = e.v, tag = tag(e.v) })
    ctx.note:set(note, { text = ids(ctx.item:find{ order = "-v", limit = 2 }) })
    ctx.item:delete(id)
    error("it was to fail")
  else
    local found = ctx.item:find{ where = {{ "v", ">", e.v }}, order = "-v", limit = 1 }
    if found[1] then ctx.item:delete(found[1].id) end
  end
end
function on_snapshot(ctx)
  local sum = 0
  for _, row in ipairs(ctx.item:find{ order = "v" }) do sum = sum + (row.v or 0) end
  return { n = ctx.item:count(), s = sum }
end
"#;

/// Its entities.
pub const PIPELINE: &str = r#"
name = "hist"
[entities.item]
columns = { v = "bigint", tag = "text" }
indexes = ["v", "tag"]
[entities.note]
columns = { text = "text" }
[handlers]
script = "handlers.lua"
"#;
