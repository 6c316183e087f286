-- Keeps the balance of each account.
local zero = numeric(0)

function on_event(event, ctx)
  local account, value = ctx.account, numeric(event.value)
  local from = account:get(event.from) or { balance = zero }
  from.balance = from.balance - value
  account:set(event.from, from)
  local to = account:get(event.to) or { balance = zero }
  to.balance = to.balance + value
  account:set(event.to, to)
end

function on_snapshot(ctx)
  return { accounts = ctx.account:count() }
end
