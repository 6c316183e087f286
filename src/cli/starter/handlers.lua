-- Called once for each event, in order within its region.
function on_event(event, ctx)
  local product = ctx.product:get(event.product) or { sold = 0, revenue = numeric(0) }
  product.sold = product.sold + event.quantity
  product.revenue = product.revenue + numeric(event.price) * event.quantity
  product.last_at = event.time
  ctx.product:set(event.product, product)
end

-- Called for each region that had events, when a snapshot is due. What it returns is the region's document.
function on_snapshot(ctx)
  return {
    products = ctx.product:count(),
    best_sellers = ctx.product:find { order = "-sold", limit = 3 },
  }
end
