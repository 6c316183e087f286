-- What rows were before blocks.
local harness = ...
local equal = harness.equal
local tests = {}

local function open(given)
  given = given or {}
  given.host = { undo_depth = 10 }
  return harness.open(given)
end

local function at_block(inner, block)
  inner.run_state[BLOCK] = block
end

function tests.the_first_write_in_a_block_keeps_what_was()
  local inner, state, account, host = open({ is_empty = true })
  at_block(inner, 1)
  account:set("a", { seen = 1 })
  account:set("a", { seen = 2 })
  at_block(inner, 2)
  account:set("a", { seen = 3 })
  account:set("a", { seen = 4 })
  inner.take_undo(0)
  local told = harness.told(host, "before")
  equal(#told, 1)
  local block, id, change, _, at = string.unpack("<i8s4Bi8", told[1][4])
  equal(block .. id .. change, "1a" .. DELETED)
  local cells = {}
  block, at = string.unpack("<i8", told[1][4], at)
  equal(block, 2)
  id, at = state[KIND].unpack(told[1][4], at, cells, 1)
  equal(id, "a")
  equal(state[KIND].copy(cells, 1).seen, 2)
  equal(at, #told[1][4] + 1)
end

function tests.much_is_handed_out_in_parts()
  local inner, state, account, host = open({ is_empty = true })
  for block = 1, 9 do
    at_block(inner, block)
    account:set("a", { note = string.rep("x", 100000) .. block })
  end
  inner.take_undo(0)
  local told, seen, _ = harness.told(host, "before"), {}, nil
  for _, one in ipairs(told) do
    local packed, at, cells = one[4], 1, {}
    while at <= #packed do
      seen[#seen + 1], at = string.unpack("<i8", packed, at)
      if #seen == 1 then
        -- The row was not there.
        _, _, _, at = string.unpack("<s4Bi8", packed, at)
      else
        _, at = state[KIND].unpack(packed, at, cells, 1)
      end
    end
    if #packed > 400000 then error("a part of " .. #packed .. " bytes") end
  end
  equal(table.concat(seen, " "), "1 2 3 4 5 6 7 8 9")
  equal(#told, 3)
end

function tests.what_is_written_unseen_is_for_the_store_to_say()
  local inner, _, account, host = open()
  at_block(inner, 3)
  coroutine.wrap(function()
    account:set("a", { seen = 1 })
  end)()
  inner.take_undo(0)
  local told = harness.told(host, "unseen")
  equal(#told, 1)
  equal(told[1][4], string.pack("<i8s4", 3, "a"))
  equal(#harness.told(host, "before"), 0)
end

function tests.only_blocks_behind_the_one_that_is_given_are_handed_out()
  local inner, _, account, host = open({ is_empty = true })
  for block = 1, 4 do
    at_block(inner, block)
    account:set("a" .. block, { seen = block })
  end
  inner.take_undo(3)
  local told = harness.told(host, "before")
  equal(#told, 1)
  equal((string.unpack("<i8", told[1][4])), 4)
  inner.take_undo(0)
  equal(#harness.told(host, "before"), 1)
end

function tests.what_lies_too_far_back_goes()
  local inner, _, account = open({ is_empty = true })
  for block = 1, 40 do
    at_block(inner, block)
    account:set("a", { seen = block })
    inner.prune_undo(block)
  end
  local region = inner.regions[1]
  assert(region.undo[1] > 10, "block " .. region.undo[1] .. " is still there")
  equal(region.undo[region.undo_count + 1], nil)
  equal(#region.undo, region.undo_count)
end

function tests.a_deleted_row_is_kept_whole()
  local inner, state, account, host = open()
  inner.supply(1, 1, harness.packed(inner, "a", { note = "as it was" }), false, "")
  at_block(inner, 5)
  account:delete("a")
  inner.take_undo(0)
  local cells = {}
  state[KIND].unpack(harness.told(host, "before")[1][4], 9, cells, 1)
  equal(state[KIND].copy(cells, 1).note, "as it was")
end

return tests
