-- A call that fails leaves nothing behind. Two machines get the same calls, one of them calls that fail as well: what
-- they see, what they commit and what they keep for a rollback is the same.
local harness = ...
local equal = harness.equal
local tests = {}

local IDS <const> = { "a", "b", "c", "d", "e", "f", "g", "h" }

-- A machine over rows that are committed, by id.
local function open(is_whole, committed)
  local machine = { committed = committed }
  local function supply(id, whole)
    local rows = {}
    for _, known in ipairs(IDS) do
      if committed[known] and (whole or known == id) then
        rows[#rows + 1] = harness.packed(machine.inner, known, committed[known])
      end
    end
    machine.inner.supply(1, 1, table.concat(rows), whole, id and string.pack("<s4", id) or "")
  end
  local host = {
    undo_depth = 10,
    puts_aside = true,
    load = function(_, _, id, untried)
      supply(id, untried and is_whole)
    end,
  }
  machine.inner, machine.state, machine.account, machine.host =
    harness.open({ host = host, is_empty = next(committed) == nil })
  return machine
end

-- What a call does: a list of steps.
local function steps(random)
  local made = {}
  for at = 1, 1 + random(4) do
    made[at] = { what = random(8), id = IDS[1 + random(#IDS)], seen = random(1000) }
  end
  return made
end

local function call(machine, block, made)
  local S, account = machine.inner.run_state, machine.account
  S[BLOCK], S[WRITER] = block, block * 100
  machine.inner.begin_call(machine.inner.regions[1])
  for _, step in ipairs(made) do
    if step.what == 0 then
      account:delete(step.id)
    elseif step.what == 1 then
      local row = account:get(step.id) or { seen = 0 }
      account:set(step.id, { seen = row.seen + 1, balance = step.seen, note = "n" .. step.seen })
    elseif step.what == 2 then
      if machine.state[WHOLE] then account:find({ order = "-balance", limit = 2 }) end
    elseif step.what == 3 then
      account:add(step.id, { seen = step.seen, balance = step.seen })
    elseif step.what == 4 then
      account:max(step.id, { seen = step.seen })
    else
      account:set(step.id, { seen = step.seen, balance = step.seen })
    end
  end
end

local function fail(machine, block, made)
  call(machine, block, made)
  machine.inner.uncount_rows(machine.inner.undo_call())
end

local function row_text(id, row)
  return row and id .. "=" .. row.seen .. "/" .. tostring(row.balance) .. "/" .. tostring(row.note) or id .. "-"
end

-- Every row as a script sees it, and where both machines have the whole table, in order.
local function seen(machine, is_whole)
  local found = {}
  for at, id in ipairs(IDS) do
    found[at] = row_text(id, machine.account:get(id))
  end
  if is_whole then
    found[#found + 1] = "count " .. machine.account:count()
    for _, row in ipairs(machine.account:find({ order = "balance" })) do
      found[#found + 1] = row.id
    end
  end
  return table.concat(found, " ")
end

-- Ends a batch: what the store has then; each row may be handed out only once.
local function commit(machine, batch)
  local kind, handed = machine.state[KIND], {}
  machine.host.told = {}
  machine.inner.seal(0)
  for _, told in ipairs(harness.told(machine.host, "sealed")) do
    local packed, at = told[3], 1
    while at <= #packed do
      local id, change = string.unpack("<s4B", packed, at)
      if handed[id] then error(id .. " is handed out twice") end
      handed[id] = true
      local cells = {}
      if change == DELETED then
        at, machine.committed[id] = at + #string.pack("<s4Bi8", id, 0, 0), nil
      else
        _, at = kind.unpack(packed, at, cells, 1)
        machine.committed[id] = kind.copy(cells, 1)
      end
    end
  end
  equal(machine.inner.changed_rows(), 0)
  machine.inner.begin_batch(batch + 1, batch)
end

local function committed_text(machine)
  local found = {}
  for _, id in ipairs(IDS) do
    found[#found + 1] = row_text(id, machine.committed[id])
  end
  return table.concat(found, " ")
end

local function compare(seed, is_whole, start)
  local state = seed
  local function random(below)
    state = (state * 6364136223846793005 + 1442695040888963407) & math.maxinteger
    return (state >> 33) % below
  end
  local function rows()
    local made = {}
    for at = 1, start do
      made[IDS[at]] = { seen = at, balance = at }
    end
    return made
  end
  local tried, clean = open(is_whole, rows()), open(is_whole, rows())
  local function compare_seen()
    -- Rows that are looked at may be loaded first.
    seen(tried, false)
    seen(clean, false)
    local both = tried.state[WHOLE] and clean.state[WHOLE]
    equal(seen(tried, both), seen(clean, both))
  end
  local block = 0
  for batch = 1, 6 do
    for _ = 1, random(8) do
      block = block + 1
      local made = steps(random)
      if random(3) == 0 then
        fail(tried, block, made)
      else
        call(tried, block, made)
        call(clean, block, made)
      end
      if random(4) == 0 then compare_seen() end
    end
    if start == 0 and batch == 1 then equal(tried.inner.regions[1].undo_count, clean.inner.regions[1].undo_count) end
    commit(tried, batch)
    commit(clean, batch)
    equal(committed_text(tried), committed_text(clean))
    if random(2) == 0 then
      tried.inner.sweep()
      clean.inner.sweep()
    end
  end
  compare_seen()
end

local function compare_many(is_whole, start)
  for seed = 1, 100 do
    local ok, message = pcall(compare, seed, is_whole, start)
    if not ok then error("seed " .. seed .. ": " .. tostring(message)) end
  end
end

function tests.of_an_empty_table()
  compare_many(true, 0)
end

function tests.of_a_table_that_is_loaded_whole()
  compare_many(true, 5)
end

function tests.of_a_table_that_is_loaded_row_by_row()
  compare_many(false, 5)
end

function tests.a_table_loaded_while_a_failed_call_hid_a_row_is_not_thought_to_be_whole()
  local machine = open(true, { a = { seen = 1, balance = 1 }, b = { seen = 2, balance = 2 } })
  machine.inner.begin_call(machine.inner.regions[1])
  machine.account:set("a", { seen = 9 })
  equal(machine.account:get("b").seen, 2)
  machine.inner.uncount_rows(machine.inner.undo_call())
  equal(machine.account:get("a").seen, 1)
  equal(machine.inner.changed_rows(), 0)
end

return tests
