-- Called once for each event, in order within its region.
function on_event(event, ctx)
  -- Adds to the row, exactly, and makes it if it is not there.
  ctx.product:add(event.product, {
    sold = event.quantity,
    revenue = numeric(event.price) * event.quantity,
  })
  ctx.product:max(event.product, { last_at = event.time })
end

-- Called for each region that had events, when a snapshot is due. What it returns is the region's document.
function on_snapshot(ctx)
  return {
    products = ctx.product:count(),
    best_sellers = ctx.product:find { order = "-sold", limit = 3 },
  }
end
