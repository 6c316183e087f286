-- Calls of handlers: a lane's events, one chunk of them after the other, and snapshots. A call that misses a row is
-- suspended until the host has supplied it.

local inner = ...
local host, S, regions, shapes, has_history =
  inner.host, inner.run_state, inner.regions, inner.shapes, inner.has_history
local want, tell_wants, begin_dry, prune_undo = inner.want, inner.tell_wants, inner.begin_dry, inner.prune_undo
local failure_text, is_broken, is_final, tick = inner.failure_text, inner.is_broken, inner.is_final, host.tick
local call_handler, placed, is_of_the_time, is_short =
  inner.call_handler, inner.placed, inner.is_of_the_time, inner.is_short
local use_ctx, next_ctx, fresh_ctx = inner.use_ctx, inner.next_ctx, inner.fresh_ctx
local close_event, closers = inner.close_event, inner.closers
local refills, has_more, more = inner.refills, inner.has_more, inner.more
local puts_aside, begin_call, undo_call, uncount_rows =
  inner.puts_aside, inner.begin_call, inner.undo_call, inner.uncount_rows
local pcall, error, min, spack, sunpack = pcall, error, math.min, string.pack, string.unpack
local text_meta = getmetatable("")
local co_create, co_resume, co_status = coroutine.create, coroutine.resume, coroutine.status

local handlers -- of the script: on_event, on_snapshot

-- The events being handled: runs of one shape, each behind the shape's number and its length.
local packed, position, event_no, count
local read_event, refill_event, run_left = nil, nil, 0
local ticks_before = 0 -- events of other lanes that crossed along, and come before

local ctx_left = 0 -- calls that may be given the same `ctx` as those before, and the same table of an event

local function handle_events()
  local state, events, note_event, touched, is_touched = S, packed, tick, more, has_more
  local region, number, last, at, left = state[REGION], event_no, count, position, run_left
  local view, on_event = region.view, handlers.on_event
  local ctx, fields, next_renewal = view.ctx, view.fields, number + ctx_left + 1
  local event, read, refill, close = nil, read_event, refill_event, close_event
  local block, writer
  while number < last do
    if left == 0 then
      if event then close(event) end
      local shape
      shape, left, at = sunpack("<I2I2", events, at)
      event, read, refill, close = nil, shapes[shape], refills[shape], closers[shape]
      read_event, refill_event = read, refill
    end
    left, number = left - 1, number + 1
    event_no, run_left = number, left
    note_event(ticks_before + number)
    if event and refill and number < next_renewal and (touched[1] == 0 or not is_touched[event]) then
      block, writer, at = refill(events, at, event)
    else
      if event then close(event) end
      event, block, writer, at = read(events, at)
      state[EVENT] = event
      if number >= next_renewal then
        local calls
        calls, view = next_ctx(region)
        ctx, fields, next_renewal = view.ctx, view.fields, number + calls
      end
    end
    position = at
    state[WRITER], state[BLOCK], fields.block = writer, block, block
    on_event(event, ctx)
  end
  if event then close(event) end
  state[EVENT], ctx_left = nil, next_renewal - number - 1
end

-- The same where events are put aside: each call can be taken back. An event that cannot be read is refused also if its
-- handler caught the error.
local function handle_events_apart()
  local region, on_event = S[REGION], handlers.on_event
  local next_renewal = event_no + ctx_left + 1
  local event, close = nil, close_event
  local block, writer
  while event_no < count do
    if run_left == 0 then
      if event then close(event) end
      local shape
      shape, run_left, position = sunpack("<I2I2", packed, position)
      event, read_event, refill_event, close = nil, shapes[shape], refills[shape], closers[shape]
    end
    run_left = run_left - 1
    event_no = event_no + 1
    tick(ticks_before + event_no)
    if event and event_no < next_renewal and refill_event and (more[1] == 0 or not has_more[event]) then
      block, writer, position = refill_event(packed, position, event)
    else
      if event then close(event) end
      event, block, writer, position = read_event(packed, position)
      S[EVENT] = event
      if event_no >= next_renewal then next_renewal = event_no + next_ctx(region) end
    end
    S[WRITER], S[BLOCK], region.view.fields.block = writer, block, block
    begin_call(region)
    on_event(event, region.view.ctx)
    if region.unreadable then error(region.unreadable, 0) end
  end
  if event then close(event) end
  S[EVENT], ctx_left = nil, next_renewal - event_no - 1
end

local handle = puts_aside and handle_events_apart or handle_events

-- Handles the events behind the one that is suspended, as far as time and memory for dry runs go.
local function handle_ahead()
  local on_event, view = handlers.on_event, S[REGION].view
  local ctx, fields = view.ctx, view.fields
  local at, left, read_next = position, run_left, read_event
  host.begin_dry()
  for ahead = event_no + 1, min(event_no + DRY_EVENTS_MAX, count) do
    tick(ticks_before + ahead)
    if left == 0 then
      local shape
      shape, left, at = sunpack("<I2I2", packed, at)
      read_next = shapes[shape]
    end
    left = left - 1
    local event, block, _
    event, block, _, at = read_next(packed, at)
    begin_dry(event)
    fields.block = block
    -- A mistake that the handler makes here it will make again when it counts.
    local ok, failure = pcall(on_event, event, ctx)
    close_event(event)
    if not ok and (is_broken(failure) or is_broken(S[ENDED])) then return end
  end
end

-- Dry runs the events behind the one that is suspended, to learn which rows they will miss. They see rows of before, so
-- none of their mistakes counts: what uses up time or memory here may need little of both in its order. Where memory is
-- used up, the inner side may have stopped at whatever takes some; all that it does in a dry run is right up to there.
local function run_ahead()
  local fields = S[REGION].view.fields
  local event_now, block_now = S[EVENT], fields.block
  S[SUSPENDED_WRITER], S[MODE] = S[WRITER], DRY
  pcall(handle_ahead)
  host.end_dry()
  S[MODE], S[DRY_WRITES], S[ENDED] = RUN, nil, false
  S[EVENT], fields.block = event_now, block_now
  tick(ticks_before + event_no)
end

local running -- the coroutine of the call that runs now

-- Calls that wait for rows, by number: those of lanes from 1 on, those of snapshots from SNAPSHOT_CALL downwards.
local waiting = {}

local function suspend(number)
  S[REGION].view.is_waiting = true
  waiting[number] = {
    coroutine = running,
    packed = packed,
    position = position,
    event_no = event_no,
    count = count,
    read_event = read_event,
    refill_event = refill_event,
    run_left = run_left,
    region = S[REGION],
    event = S[EVENT],
    writer = S[WRITER],
    block = S[BLOCK],
    mode = S[MODE],
  }
end

local function restore(number)
  local call = waiting[number]
  waiting[number] = nil
  running = call.coroutine
  packed, position, event_no, count = call.packed, call.position, call.event_no, call.count
  read_event, refill_event, run_left = call.read_event, call.refill_event, call.run_left
  S[REGION], S[EVENT], S[WRITER], S[BLOCK], S[MODE] = call.region, call.event, call.writer, call.block, call.mode
  S[ENDED], ticks_before = false, 0
  S[REGION].view.is_waiting = false
  use_ctx(S[REGION])
end

-- The call of a script has failed.
local function fail(failure)
  local status = FAILED
  if S[ENDED] ~= false then
    failure = S[ENDED]
    if not is_final(failure) then status = MISUSED end
  end
  if is_of_the_time(failure) then status = MISUSED end
  if is_short(failure) then status = SHORT end
  running, S[MODE], S[ENDED] = nil, RUN, false
  -- The script may make the text: it may read its event, and no rows.
  use_ctx(nil)
  local text = failure_text(failure)
  if S[EVENT] then close_event(S[EVENT]) end
  S[EVENT], S[ENDED] = nil, false
  return status, text
end

-- Runs the coroutine on, at first with what it calls: DONE with its result, MISSED with rows to load, or FAILED,
-- MISUSED or SHORT with a message.
local function go_on(number, ...)
  local ok, first, second = co_resume(running, ...)
  if not ok then return fail(first) end
  if co_status(running) == "dead" then
    running = nil
    if first then return fail(second) end
    return DONE, second
  end
  want(first, second)
  if S[MODE] == RUN then run_ahead() end
  tell_wants()
  suspend(number)
  return MISSED
end

-- Goes on with a call that was suspended; its rows are here.
local function resume(number)
  restore(number)
  if S[MODE] == RUN then tick(event_no) end
  return go_on(number)
end

-- Handles a chunk of a region's events.
local function run(number, region_number, event_count, events)
  packed, position, event_no, count, run_left, ticks_before = events, 1, 0, event_count, 0, 0
  S[REGION], S[MODE], S[ENDED] = regions[region_number], RUN, false
  use_ctx(S[REGION])
  if has_history then
    local _, _, block = sunpack("<I2I2i8", packed)
    prune_undo(block)
  end
  running = co_create(call_handler)
  return go_on(number, handle, placed)
end

-- Goes on behind the event that has just failed, as if it had not been.
local function pass_over(number)
  uncount_rows(undo_call())
  use_ctx(S[REGION])
  running, S[MODE] = co_create(call_handler), RUN
  return go_on(number, handle, placed)
end

-------------------------------------------------------------------------------------------- many lanes of few events

-- The lanes that cross together, 4 numbers of 8 bytes each: the lane's, the region's, its events, where they begin.
local few, few_at = "", 1
local lane -- the number of the one that is being handled
local are_waiting -- the numbers of those that wait, packed

-- Makes the next lane the one that is handled; false if there is none.
local function next_lane()
  if few_at > #few then return false end
  local region_number
  ticks_before = ticks_before + count
  lane, region_number, count, position, few_at = sunpack("<i8i8i8i8", few, few_at)
  event_no, run_left = 0, 0
  S[REGION] = regions[region_number]
  use_ctx(S[REGION])
  if has_history and count > 0 then
    local _, _, block = sunpack("<I2I2i8", packed, position)
    prune_undo(block)
  end
  return true
end

-- Handles the lane and those behind it, unless this one has waited: then another coroutine has gone on with those.
local function handle_lanes(call)
  repeat
    handle()
  until call.has_waited or not next_lane()
end

-- Goes through the lanes: DONE with the numbers of those that wait for rows, or FAILED or MISUSED with a message.
local function go_through()
  repeat
    local call = { has_waited = false }
    running = co_create(call_handler)
    local ok, first, second = co_resume(running, handle_lanes, placed, call)
    if not ok then return fail(first) end
    if co_status(running) == "dead" then
      running = nil
      if first then return fail(second) end
      break
    end
    call.has_waited = true
    want(first, second)
    run_ahead()
    tell_wants()
    suspend(lane)
    are_waiting = are_waiting .. spack("<i8", lane)
  until not next_lane()
  return DONE, are_waiting
end

-- Handles some lanes of few events each.
local function run_few(heads, events)
  few, few_at, packed, are_waiting, ticks_before, count = heads, 1, events, "", 0, 0
  S[MODE], S[ENDED] = RUN, false
  next_lane()
  return go_through()
end

-- Goes on behind the event that has just failed, as if it had not been.
local function pass_over_few()
  uncount_rows(undo_call())
  use_ctx(S[REGION])
  S[MODE] = RUN
  return go_through()
end

-- Makes a region's snapshot. Several may wait at a time, each by a number of its own.
local function snapshot(region_number, block, number)
  local region = regions[region_number]
  local view = fresh_ctx(region)
  local on_snapshot = handlers.on_snapshot
  view.fields.block, ctx_left = block, 0
  S[MODE], S[REGION], S[EVENT], S[ENDED] = SNAPSHOT, region, nil, false
  running = co_create(call_handler)
  return go_on(number or SNAPSHOT_CALL, on_snapshot, placed, view.ctx)
end

return {
  run = run,
  resume = resume,
  pass_over = pass_over,
  run_few = run_few,
  pass_over_few = pass_over_few,
  snapshot = snapshot,
  set_handlers = function(found)
    handlers, text_meta.__index = found, found.texts
  end,
}
