-- Names that are wrong end the start of a VM.
local harness = ...
local fails, equal = harness.fails, harness.equal
local tests = {}

function tests.a_list_wants_all_its_names_and_no_other()
  local inner = harness.open({ last = "layout" })
  local function values()
    local all = {}
    for _, name in ipairs(inner.layout.lists.run_state) do
      all[name] = '"' .. name .. '"'
    end
    return all
  end
  local list = inner.constructor("run_state", "", values())()
  equal(list[MODE], "MODE")
  equal(list[SUSPENDED_WRITER], "SUSPENDED_WRITER")
  local lacking = values()
  lacking.BLOCK = nil
  fails("run_state: nothing is said of BLOCK", inner.constructor, "run_state", "", lacking)
  local odd = values()
  odd.BLOKC = "1"
  fails("run_state: there is no BLOKC", inner.constructor, "run_state", "", odd)
end

function tests.entries_that_are_nil_at_first_are_kept_room_for()
  local _, state = harness.open()
  state[INDEXES], state[FOUND] = "indexes", "found"
  equal(state[FOUND], "found")
  equal(state[COUNTS], false)
  equal(#state, #harness.open({ last = "layout" }).layout.lists.table_state)
end

function tests.a_name_that_no_piece_gives_is_an_error()
  local inner, host = harness.open({ last = "layout" })
  fails("inner: there is no slow_gte", function()
    return inner.slow_gte
  end)
  fails("host: there is no tikc", function()
    return host.tikc
  end)
end

function tests.a_template_wants_a_value_for_each_name()
  local template = harness.open({ last = "layout" }).template
  equal(template("state[$YOUNG] = $value")({ value = "{}" }), "state[" .. YOUNG .. "] = {}")
  equal(template("$a$a$b")({ a = 1, b = 2 }), "112")
  fails("$valeu: there is no value", template("$valeu"), { value = 1 })
  fails("$YUONG: there is no such constant", template, "state[$YUONG]")
end

function tests.a_message_names_the_line_that_is_to_blame()
  local inner = harness.open({ last = "layout" })
  fails("handlers.lua:7: 5 % of it", inner.raise, "5 % of it")
  fails("handlers.lua:7: 5 of 6", inner.raise, "%d of %d", 5, 6)
end

function tests.a_column_type_that_kinds_does_not_know_is_an_error()
  local types = { table.unpack(harness.host().column_types) }
  types[#types + 1] = "uuid"
  fails("kinds.lua does not know the column type uuid", harness.open, { host = { column_types = types } })
  local odd = { name = "odd", columns = { { name = "it", type = "uuid", indexed = false } } }
  fails("kinds.lua does not know the column type uuid", harness.open, { kinds = { odd } })
end

return tests
