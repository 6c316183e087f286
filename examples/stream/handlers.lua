-- What was sold of each product.

function on_event(order, ctx)
  ctx.product:add(order.product, {
    orders = 1,
    sold = order.quantity,
    revenue = order.price * order.quantity,
  })
end

function on_snapshot(ctx)
  local best = ctx.product:find { order = "-sold", limit = 1 }[1]
  return { products = ctx.product:count(), best = best.id, sold = best.sold, revenue = best.revenue }
end
