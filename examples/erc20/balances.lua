-- Keeps the balance of each account.
function on_event(event, ctx)
  ctx.account:add(event.from, { balance = -event.value })
  ctx.account:add(event.to, { balance = event.value })
end

function on_snapshot(ctx)
  return { accounts = ctx.account:count() }
end
