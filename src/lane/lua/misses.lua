-- Rows that are missed: what is wanted of the host, and what it supplies.

local inner = ...
local host, S, regions = inner.host, inner.run_state, inner.regions
local add_row, cells_at, lookup, note_unknown = inner.add_row, inner.cells_at, inner.lookup, inner.note_unknown
local end_call = inner.end_call
local next, ipairs, type = next, ipairs, type
local co_yield, co_yieldable = coroutine.yield, coroutine.isyieldable
local spack, sunpack, concat, move = string.pack, string.unpack, table.concat, table.move

local DRY_END <const> = {} -- what ends a dry run at a row that is not here

local wants, wants_list = {}, {}

local TRY <const> = {} -- the whole table, if it is small

-- Notes what is wanted: the row of an id, the whole table if it is small, or what `find.lua` asks.
local function want(state, what)
  local wanted = wants[state]
  if not wanted then
    wanted = { ids = {}, maybe = {}, set = {}, asked = {}, questions = {}, has_rows = false }
    wants[state] = wanted
    wants_list[#wants_list + 1] = state
  end
  if what == TRY then
    wanted.has_rows = true
  elseif type(what) == "table" then
    -- The larger page of the same question, among those of calls that count if there are any: what a dry run asks for
    -- may be too much.
    local known = wanted.asked[what.key]
    if known then
      local limit, more, is_sure = known.limit, what.limit, what.is_sure
      local is_larger = limit ~= NO_LIMIT and (more > limit or (more == NO_LIMIT and is_sure))
      if is_sure and not known.is_sure or is_sure == known.is_sure and is_larger then known.limit = more end
      known.is_sure = known.is_sure or is_sure
    else
      wanted.asked[what.key] = what
      wanted.questions[#wanted.questions + 1] = what
    end
  elseif not wanted.set[what] then
    wanted.set[what], wanted.has_rows = true, true
    local ids = S[MODE] == DRY and wanted.maybe or wanted.ids
    ids[#ids + 1] = what
  end
end

-- What was asked of each table and is not answered yet: by number.
local questions, questions_count = {}, 0

-- A question as the host takes it: its number, then what is asked.
local function posed(state, question)
  questions_count = questions_count + 1
  questions[questions_count] = { state, question }
  local kind, region, plan = state[KIND].number, state[REGION_NUMBER], question.plan
  local is_count, column, is_down = plan.is_counted or false, plan.column or 0, plan.is_down or false
  local limit, changed, is_sure = question.limit, question.changed, question.is_sure
  return questions_count, kind, region, is_count, plan.packed, column, is_down, limit, changed, is_sure
end

-- Waits until what is wanted is here.
local function need(state, what)
  if S[MODE] == DRY then
    want(state, what)
    end_call(DRY_END)
  elseif co_yieldable() then
    co_yield(state, what)
  elseif what ~= TRY and type(what) == "table" then
    -- Within a comparison of table.sort and the like: one at a time.
    host.ask(posed(state, what))
  else
    host.load(state[KIND].number, state[REGION_NUMBER], what ~= TRY and what or nil, not state[TRIED])
  end
end

-- Whether it is known that there is no row of an id that is not here.
local function is_absent(state, id)
  if state[FILTERED] and host.is_absent(state[KIND].number, state[REGION_NUMBER], id) then
    state[YOUNG][id] = false
    return true
  end
  return false
end

-- The slot of an id, or false: waits for the row if it is not here.
local function fetch(state, id)
  local slot = lookup(state, id)
  if slot == nil then
    if is_absent(state, id) then return false end
    need(state, id)
    slot = lookup(state, id) or false
  end
  return slot
end

-- The table and the question of that number, which is answered now.
local function take_question(number)
  local state, question = questions[number][1], questions[number][2]
  questions[number] = nil
  if next(questions) == nil then questions_count = 0 end
  return state, question
end

local taken = {} -- the cells of the row that is being taken in

-- Takes in a row that the host found, if nothing is known of it here; returns its id and where the next one begins.
local function take_in(state, packed, from)
  local kind, id = state[KIND]
  id, from = kind.unpack(packed, from, taken, 1)
  if state[YOUNG][id] == nil and state[OLD][id] == nil then
    local _, d, at = add_row(state, id, 0, 0)
    move(taken, 1, kind.cells, at, d)
  end
  return id, from
end

-- The rows the host found, of the ids that are given or of the whole table.
local function supply(kind_number, region_number, packed, is_whole, ids)
  local state = inner.table_of(regions[region_number], kind_number)
  local young, old = state[YOUNG], state[OLD]
  local at, _ = 1
  while at <= #packed do
    _, at = take_in(state, packed, at)
  end
  state[TRIED] = true
  if is_whole and not state[WHOLE] then
    state[WHOLE] = true
    -- A row that was written without being here may have been there before.
    local batch_at = state[KIND].batch_at
    for dirty_at = 1, state[DIRTY_COUNT] do
      local d, cell = cells_at(state, state[DIRTY][dirty_at])
      if d[cell + batch_at] == -S[BATCH] then d[cell + batch_at] = S[BATCH] end
    end
  end
  at = 1
  while at <= #ids do
    local id
    id, at = sunpack("<s4", ids, at)
    if young[id] == nil and old[id] == nil then
      young[id] = false
      if not is_whole then note_unknown(state[KIND]) end
    end
  end
end

local function packed(ids)
  local texts = {}
  for at, id in ipairs(ids) do
    texts[at] = spack("<s4", id)
  end
  return concat(texts)
end

-- Tells the host all that is wanted. What only dry runs asked for can be done without.
local function tell_wants()
  for _, state in ipairs(wants_list) do
    local wanted = wants[state]
    if wanted.has_rows then
      host.want(state[KIND].number, state[REGION_NUMBER], not state[TRIED], packed(wanted.ids), packed(wanted.maybe))
    end
    for _, question in ipairs(wanted.questions) do
      host.want_answer(posed(state, question))
    end
  end
  wants, wants_list = {}, {}
end

return {
  DRY_END = DRY_END,
  TRY = TRY,
  want = want,
  tell_wants = tell_wants,
  take_question = take_question,
  need = need,
  is_absent = is_absent,
  fetch = fetch,
  taken = taken,
  take_in = take_in,
  supply = supply,
}
