-- Keeps the balance of each account, and every transfer.
function on_event(event, ctx)
  ctx.account:add(event.from, { balance = -event.value })
  ctx.account:add(event.to, { balance = event.value })
  ctx.transfer:set(event.block .. "-" .. event.log_index, {
    from_account = event.from,
    to_account = event.to,
    value = event.value,
  })
end

function on_snapshot(ctx)
  return { accounts = ctx.account:count() }
end
