-- Keeps the balance of each account, and every transfer.
local zero = numeric(0)

function on_event(event, ctx)
  local account, value = ctx.account, numeric(event.value)
  local from = account:get(event.from) or { balance = zero }
  from.balance = from.balance - value
  account:set(event.from, from)
  local to = account:get(event.to) or { balance = zero }
  to.balance = to.balance + value
  account:set(event.to, to)
  ctx.transfer:set(event.block .. "-" .. event.log_index, {
    from_account = event.from,
    to_account = event.to,
    value = value,
  })
end

function on_snapshot(ctx)
  return { accounts = ctx.account:count() }
end
