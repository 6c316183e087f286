-- Calls of handlers: a lane's events, one chunk of them after the other, and snapshots. A call that misses a row is
-- suspended until the host has supplied it.

local inner = ...
local host, S, regions, shapes, has_history =
  inner.host, inner.run_state, inner.regions, inner.shapes, inner.has_history
local want, tell_wants, begin_dry, prune_undo = inner.want, inner.tell_wants, inner.begin_dry, inner.prune_undo
local failure_text, tick = inner.failure_text, host.tick
local puts_aside, begin_call, undo_call, uncount_rows =
  inner.puts_aside, inner.begin_call, inner.undo_call, inner.uncount_rows
local pcall, error, min, sunpack = pcall, error, math.min, string.unpack
local text_meta = getmetatable("")
local co_create, co_resume, co_status = coroutine.create, coroutine.resume, coroutine.status

local handlers -- of the script as it runs now: on_event, on_snapshot
local checked -- the same, with all arithmetic checked
local load_less -- gives those with less of it checked, and whether they are sure of large integers all the same
local is_sure = true

-- The script goes on in one of its forms: its handlers, and its methods of texts.
local function use(found)
  handlers, text_meta.__index = found, found.texts
end

-- A large integer came: from the next event on all arithmetic is checked.
local function check_all()
  if checked then use(checked) end
  is_sure, load_less = true, nil
end

-- No large integer came so far.
local function check_less()
  if not load_less then return end
  local found, found_sure = load_less()
  if found then is_sure = found_sure end
  use(found or checked)
end

-- The events being handled: runs of one shape, each behind the shape's number and its length.
local packed, position, event_no, count
local read_event, run_left = nil, 0

local function handle_events()
  local ctx, fields = S[REGION].ctx, S[REGION].fields
  while event_no < count do
    if run_left == 0 then
      local shape
      shape, run_left, position = sunpack("<I2I2", packed, position)
      read_event = shapes[shape]
    end
    run_left = run_left - 1
    event_no = event_no + 1
    tick(event_no)
    local event, block, writer
    event, block, writer, position = read_event(packed, position)
    S[WRITER], S[BLOCK], S[EVENT] = writer, block, event
    fields.block = block
    handlers.on_event(event, ctx)
  end
end

-- The same where events are put aside: each call can be taken back. An event that cannot be read is refused also if its
-- handler caught the error.
local function handle_events_apart()
  local region, on_event = S[REGION], handlers.on_event
  local ctx, fields = region.ctx, region.fields
  while event_no < count do
    if run_left == 0 then
      local shape
      shape, run_left, position = sunpack("<I2I2", packed, position)
      read_event = shapes[shape]
    end
    run_left = run_left - 1
    event_no = event_no + 1
    tick(event_no)
    local event, block, writer
    event, block, writer, position = read_event(packed, position)
    S[WRITER], S[BLOCK], S[EVENT] = writer, block, event
    fields.block = block
    begin_call(region)
    on_event(event, ctx)
    if region.unreadable then error(region.unreadable, 0) end
  end
end

local handle = puts_aside and handle_events_apart or handle_events

-- Dry runs the events behind the one that is suspended, to learn which rows they will miss.
local function run_ahead()
  local on_event, ctx, fields = handlers.on_event, S[REGION].ctx, S[REGION].fields
  local event_now, block_now, at, left, read_next = S[EVENT], fields.block, position, run_left, read_event
  S[SUSPENDED_WRITER], S[MODE] = S[WRITER], DRY
  for ahead = event_no + 1, min(event_no + DRY_EVENTS_MAX, count) do
    tick(ahead)
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
    pcall(on_event, event, ctx)
  end
  S[MODE], S[DRY_WRITES] = RUN, nil
  S[EVENT], fields.block = event_now, block_now
  tick(event_no)
end

local running -- the coroutine of the call that runs now

-- Calls that wait for rows, by number: a lane's from 1, a snapshot's is SNAPSHOT_CALL.
local waiting = {}

local function suspend(number)
  waiting[number] = {
    coroutine = running,
    packed = packed,
    position = position,
    event_no = event_no,
    count = count,
    read_event = read_event,
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
  read_event, run_left = call.read_event, call.run_left
  S[REGION], S[EVENT], S[WRITER], S[BLOCK], S[MODE] = call.region, call.event, call.writer, call.block, call.mode
end

-- Runs the coroutine on: DONE with its result, MISSED with rows to load, or FAILED with a message.
local function go_on(number)
  local ok, answer, what = co_resume(running)
  if not ok then
    running, S[MODE] = nil, RUN
    return FAILED, failure_text(answer)
  end
  if co_status(running) == "dead" then
    running = nil
    return DONE, answer
  end
  want(answer, what)
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
  packed, position, event_no, count, run_left = events, 1, 0, event_count, 0
  S[REGION], S[MODE] = regions[region_number], RUN
  if has_history then
    local _, _, block = sunpack("<I2I2i8", packed)
    prune_undo(block)
  end
  running = co_create(handle)
  return go_on(number)
end

-- Goes on behind the event that has just failed, as if it had not been.
local function pass_over(number)
  uncount_rows(undo_call())
  running, S[MODE] = co_create(handle), RUN
  return go_on(number)
end

-- Makes a region's snapshot.
local function snapshot(region_number, block)
  local region = regions[region_number]
  local ctx, on_snapshot = region.ctx, handlers.on_snapshot
  region.fields.block = block
  S[MODE], S[EVENT] = SNAPSHOT, nil
  running = co_create(function()
    return on_snapshot(ctx)
  end)
  return go_on(SNAPSHOT_CALL)
end

return {
  run = run,
  resume = resume,
  pass_over = pass_over,
  snapshot = snapshot,
  set_handlers = function(found, less)
    checked, load_less = found, less
    use(found)
  end,
  check_all = check_all,
  check_less = check_less,
  is_sure = function()
    return is_sure
  end,
}
