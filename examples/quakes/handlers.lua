-- What is kept of each earthquake: counts, sums and extremes of its country and of its region.

local function add(row, event)
  row.quakes = row.quakes + 1
  row.sum_mag = row.sum_mag + numeric(event.mag)
  row.last_at = event.time
  if row.max_mag == nil or event.mag > row.max_mag then
    row.max_mag = event.mag
    return true -- the strongest so far
  end
end

function on_event(event, ctx)
  local code = event.country
  if code == nil or code == "" then code = "none" end -- far out at sea
  local country = ctx.country:get(code) or { quakes = 0, sum_mag = numeric(0) }
  add(country, event)
  ctx.country:set(code, country)

  local total = ctx.total:get("all") or { quakes = 0, sum_mag = numeric(0), first_at = event.time }
  if add(total, event) then
    total.strongest, total.strongest_at = event.place, event.time
  end
  ctx.total:set("all", total)
end

function on_snapshot(ctx)
  local total = ctx.total:get("all")
  local top = ctx.country:find { order = "-quakes", limit = 5 }
  return {
    quakes = total.quakes,
    countries = ctx.country:count(),
    mean_mag = tonumber(string.format("%.2f", tonumber(tostring(total.sum_mag)) / total.quakes)),
    max_mag = total.max_mag,
    strongest = total.strongest_at:sub(1, 4) .. ", " .. total.strongest,
    details = { top_countries = top, sum_mag = total.sum_mag, first_at = total.first_at, last_at = total.last_at },
  }
end
