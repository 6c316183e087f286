//! The tables in Postgres: their types and keys, what people may add to them, and what is refused.

use super::{PIPELINE, SCRIPT, count, events, on_postgres};
use crate::support::project::Project;

#[test]
fn tables_are_typed_and_keyed_as_people_expect() {
    let pipeline = PIPELINE.replace("{ n = \"bigint\", note = \"text\" }", "{ a = \"text\", b = \"boolean\", c = \"bigint\", d = \"double\", e = \"numeric\", f = \"timestamptz\", g = \"jsonb\", h = \"bytes\" }\nindexes = [\"a\", \"e\"]");
    let project = on_postgres(&pipeline, "function on_event() end", &events(1..=1));
    project.forebay(&["run", "pipeline.toml"]).ok();
    let columns = project.query(
        "",
        "SELECT column_name::text, data_type::text FROM information_schema.columns
         WHERE table_schema = 'things' AND table_name = 'thing' ORDER BY ordinal_position",
    );
    let expected = [
        ["region", "text"],
        ["id", "text"],
        ["a", "text"],
        ["b", "boolean"],
        ["c", "bigint"],
        ["d", "double precision"],
        ["e", "numeric"],
        ["f", "timestamp with time zone"],
        ["g", "jsonb"],
        ["h", "bytea"],
    ];
    assert_eq!(columns, expected);
    let indexes =
        project.query("", "SELECT indexname::text, indexdef FROM pg_indexes WHERE tablename = 'thing' ORDER BY 1");
    assert_eq!(indexes.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["thing.a", "thing.e", "thing_pkey"]);
    assert!(indexes[2][1].ends_with("(region, id)"), "{indexes:?}");
    assert!(indexes[0][1].contains("COLLATE \"C\""), "{indexes:?}");
}

#[test]
fn names_that_postgres_keeps_for_itself_are_refused_before_anything_is_made() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    for (from, to, says) in [
        ("\"things\"", "\"forebay\"", "pipeline name \"forebay\""),
        ("\"things\"", "\"pg_things\"", "pipeline name \"pg_things\""),
        ("note =", "xmin =", "column \"xmin\": every table of Postgres has it"),
    ] {
        project.write("other.toml", PIPELINE.replace(from, to));
        project.forebay(&["run", "other.toml"]).fails(2, &[says, "choose another"]);
    }
    assert_eq!(
        project.query("", "SELECT count(*) FROM pg_namespace WHERE nspname IN ('forebay', 'pg_things', 'things')"),
        [["0"]]
    );
}

#[test]
fn reading_before_the_first_run_is_no_failure_of_the_database() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    project.forebay(&["latest", "--config", "pipeline.toml"]).fails(1, &["knows no pipeline things"]);
    let status = project.forebay(&["status", "pipeline.toml"]);
    status.fails(1, &["pipeline things has not committed anything yet"]);
    project.run_json();
    project.forebay(&["status", "pipeline.toml"]).ok();
    assert_eq!(project.forebay(&["latest", "--config", "pipeline.toml"]).ok().stdout(), "{\"rows\":3}\n");
}

/// Rules of the database that the pipeline file does not know.
#[test]
fn a_row_that_the_database_refuses_is_named_with_its_event() {
    // Few rows go as arrays, many by COPY.
    for (rows, rule) in [
        (50, "ALTER TABLE things.thing ADD CONSTRAINT small CHECK (n <> 37)"),
        (3000, "ALTER TABLE things.thing ADD CONSTRAINT small CHECK (n <> 2037)"),
        (3000, "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.n = 2037 THEN RAISE EXCEPTION 'small is not for me'; END IF; RETURN NEW; END $$;
                CREATE CONSTRAINT TRIGGER small AFTER INSERT ON things.thing DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION no()"),
    ] {
        let project = on_postgres(&format!("{PIPELINE}[batch]\nevents = 5000\n"), SCRIPT, &events(1..=rows));
        project.forebay(&["run", "pipeline.toml", "--until", "10"]).ok();
        project.execute("", rule);
        let bad = if rows == 50 { 37 } else { 2037 };
        let says = [
            "was not committed",
            &format!("refused the row \"{bad}\" of thing in region \"r\""),
            "small",
            &format!("events.ndjson:{bad} wrote it"),
        ];
        project.forebay(&["run", "pipeline.toml"]).fails(1, &says);
        assert_eq!(count(&project), "10", "nothing of the batch is there");
        project.execute("", "DROP TRIGGER IF EXISTS small ON things.thing; ALTER TABLE things.thing DROP CONSTRAINT IF EXISTS small");
        project.forebay(&["run", "pipeline.toml"]).ok();
        assert_eq!(count(&project), rows.to_string());
    }
}

/// People change tables. What would be written or read wrongly is refused before anything is.
#[test]
fn a_table_that_others_have_changed_is_refused_with_what_changed() {
    for (change, back, says) in [
        (
            "ALTER TABLE things.thing ALTER n TYPE double precision",
            "ALTER TABLE things.thing ALTER n TYPE bigint",
            "thing.n was altered from bigint to double precision",
        ),
        (
            "ALTER TABLE things.thing RENAME note TO notes",
            "ALTER TABLE things.thing RENAME notes TO note",
            "column thing.note was removed from the table",
        ),
        (
            "ALTER TABLE things.thing DROP CONSTRAINT thing_pkey",
            "ALTER TABLE things.thing ADD PRIMARY KEY (region, id)",
            "the primary key (region, id) of thing was removed",
        ),
        (
            "ALTER TABLE things.thing RENAME TO other",
            "ALTER TABLE things.other RENAME TO thing",
            "table things.thing was removed",
        ),
    ] {
        let project = on_postgres(PIPELINE, SCRIPT, &events(1..=5));
        project.forebay(&["run", "pipeline.toml", "--until", "3"]).ok();
        project.execute("", change);
        project.forebay(&["run", "pipeline.toml"]).fails(2, &[says]);
        project.execute("", back);
        project.forebay(&["run", "pipeline.toml"]).ok();
        assert_eq!(count(&project), "5");
    }
}

/// A column of the user's own is left alone, however many rows a batch has.
#[test]
fn a_column_of_the_users_own_is_left_alone() {
    let project = on_postgres(&format!("{PIPELINE}[batch]\nevents = 5000\n"), SCRIPT, &events(1..=3000));
    project.forebay(&["run", "pipeline.toml", "--until", "10"]).ok();
    project.execute("", "ALTER TABLE things.thing ADD mine text NOT NULL DEFAULT 'x', ADD number bigserial");
    // The rows are not known to be new any more: they go by way of staging.
    project.write("handlers.lua", "function on_event(e, ctx) for i = 1, 400 do ctx.thing:get('none' .. i) end ctx.thing:set(tostring(ctx.block % 2500), { n = ctx.block }) end");
    project.forebay(&["run", "pipeline.toml"]).ok();
    assert_eq!(
        project.query("", "SELECT count(*), count(DISTINCT number), min(mine) FROM thing"),
        [["2500", "2500", "x"]]
    );
}

/// An index that the pipeline file has gained is made on the table that is there.
#[test]
fn an_index_is_added_to_a_table_that_is_there() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=5));
    project.run_json();
    project.write("pipeline.toml", PIPELINE.replace("[handlers]", "indexes = [\"note\"]\n[handlers]"));
    project.forebay(&["run", "pipeline.toml"]).ok();
    let indexes =
        project.query("", "SELECT indexname::text FROM pg_indexes WHERE tablename = 'thing' ORDER BY indexname");
    assert_eq!(indexes, [["thing.note"], ["thing_pkey"]]);
}

crate::both_stores! {
    /// Each value is written by one run, and compared by the next, which has to read it back.
    fn values_of_every_type_come_back_as_they_were() {
        let pipeline = PIPELINE.replace("{ n = \"bigint\", note = \"text\" }", "{ a = \"text\", b = \"boolean\", c = \"bigint\", d = \"double\", e = \"numeric\", f = \"timestamptz\", g = \"jsonb\", h = \"bytes\" }");
        let script = r#"
        local rows = {
          full = { a = "é\n\t\\\"'", b = true, c = math.maxinteger, d = 0.1, e = numeric("-123456789012345678901234567890.000000000000000001"),
                   f = "2018-01-31T01:49:59.650Z", g = { x = 1e16, y = { 1.0, 2, false }, z = "\u{1F600}" }, h = "\0\255\1" },
          least = { a = "", b = false, c = math.mininteger, d = -1.7976931348623157e308, e = numeric("0.00000000000000000000000000000000000000012"),
                    f = "-004712-01-01T00:00:00Z", g = {}, h = "" },
          most = { a = ("x"):rep(100000), b = true, c = 0, d = 5e-324, e = numeric("115792089237316195423570985008687907853269984665640564039457584007913129639935"),
                   f = "9999-12-31T23:59:59.999999Z", g = "text", h = ("\0"):rep(5000) },
          round = { c = 10000, d = 1 / 0, e = numeric("100000000000000000000000000000000000000"), f = "2000-01-01T00:00:00Z", g = 12345678901234567 },
          small = { c = -1, d = 0.0, e = numeric("-0.5"), f = "1999-12-31T23:59:59.999999Z", g = 1.5e-9 },
          zero = { e = numeric(0) },
          none = {},
        }
        local function text(value)
          if type(value) ~= "table" then return math.type(value) and (math.type(value) .. string.format("%q", value)) or type(value) .. tostring(value) end
          local ok, number = pcall(function() return tostring(value + numeric(0)) end)
          if ok then return number end
          local parts = {}
          for key, item in pairs(value) do parts[#parts + 1] = tostring(key) .. "=" .. text(item) end
          return "{" .. table.concat(parts, ",") .. "}"
        end
        function on_event(event, ctx)
          for id, row in pairs(rows) do
            if event.block == 1 then ctx.thing:set(id, row)
            else
              local found = ctx.thing:get(id)
              for column, value in pairs(row) do
                if text(found[column]) ~= text(value) then error(id .. "." .. column .. ": " .. text(found[column]):sub(1, 200) .. " is not " .. text(value):sub(1, 200)) end
              end
              for column in pairs(found) do assert(row[column] ~= nil, id .. "." .. column .. " was null") end
            end
          end
        end"#;
        let project = Project::with(&pipeline, script, &events(1..=2));
        project.forebay(&["run", "pipeline.toml", "--until", "1"]).ok();
        project.forebay(&["run", "pipeline.toml"]).ok();
    }

    fn names_that_sql_knows_are_names() {
        let pipeline = "name = \"select\"\n[source]\npath = \"events.ndjson\"\n[entities.order]\ncolumns = { user = \"bigint\", table = \"text\" }\nindexes = [\"user\"]\n[entities.end]\ncolumns = {}\n[handlers]\nscript = \"handlers.lua\"\n";
        let script = "function on_event(e, ctx) ctx.order:set(e.id, { user = ctx.block, table = e.id }) ctx['end']:set(ctx.block, {}) if ctx.block > 2 then ctx['end']:delete(1) end end";
        let line = |block: i64| format!("{{\"block\":{block},\"region\":\"a';--\\\"\",\"id\":\"x'); DROP TABLE \\\"order\\\"; -- \\\\\"}}\n");
        let project = Project::with(pipeline, script, &(1..=3).map(line).collect::<String>());
        project.forebay(&["run", "pipeline.toml", "--until", "1"]).ok();
        project.forebay(&["run", "pipeline.toml"]).ok();
        let database = if project.url().is_some() { "" } else { "select.db" };
        assert_eq!(
            project.query(database, "SELECT region, id, \"user\", \"table\" FROM \"order\""),
            [["a';--\"", "x'); DROP TABLE \"order\"; -- \\", "3", "x'); DROP TABLE \"order\"; -- \\"]]
        );
        assert_eq!(project.query(database, "SELECT id FROM \"end\" ORDER BY id"), [["2"], ["3"]]);
    }
}

const COUNTED: &str = r#"
name = "counted"
source.path = "events.ndjson"
batch.events = 500
handlers.script = "handlers.lua"
[entities.account]
columns = { n = "bigint" }
[entities.entry]
columns = { n = "bigint" }
[entities.tuned]
columns = { n = "bigint" }
"#;

const COUNTING: &str = r#"
function on_event(event, ctx)
  ctx.account:add(event.account, { n = 1 })
  ctx.entry:set(event.id, { n = event.block })
  ctx.tuned:set(event.id, { n = 1 })
end
"#;

/// Rows of accounts that change again and again, and rows that only come.
fn entries(blocks: std::ops::Range<i64>, events: i64) -> String {
    let line = |block: i64, at: i64| {
        let id = block * events + at;
        format!(r#"{{"block":{block},"region":"r","id":"{id}","account":"{}"}}"#, id * 7919 % 1000)
    };
    blocks.flat_map(|block| (0..events).map(move |at| line(block, at) + "\n")).collect()
}

/// The options of a table, and how many of its updates stayed in their page.
fn fill(project: &Project, table: &str) -> (Option<Vec<String>>, i64, i64) {
    let sql = format!(
        "SELECT c.reloptions, pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_hot_updated(c.oid)
         FROM pg_class c WHERE c.oid = 'counted.{table}'::regclass"
    );
    let row = project.client().query_one(&sql, &[]).expect("a table");
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn rows_that_change_have_room_in_their_pages_and_rows_that_only_come_have_none() {
    let project = on_postgres(COUNTED, COUNTING, &entries(1..9, 500));
    project.forebay(&["run", "pipeline.toml", "--serial"]).ok();
    assert_eq!(fill(&project, "account").0, roomy());
    assert_eq!(fill(&project, "entry").0, None);
    let (_, updates, hot) = fill(&project, "account");
    assert!(updates > 2000 && hot * 10 > updates * 9, "{hot} of {updates} updates stayed in their page");
}

#[test]
fn rows_that_only_come_in_small_runs_have_no_room_in_the_end() {
    let project = on_postgres(&COUNTED.replace("= 500", "= 5000"), COUNTING, &entries(1..3, 5000));
    project.forebay(&["run", "pipeline.toml", "--serial"]).ok();
    assert_eq!(fill(&project, "entry").0, roomy(), "two batches do not show it");
    let changed = project.client().batch_execute("ALTER TABLE counted.tuned SET (fillfactor = 90)");
    changed.expect("a table of ours");
    project.forebay(&["run", "pipeline.toml"]).ok();
    assert_eq!(fill(&project, "entry").0, None);
    assert_eq!(fill(&project, "account").0, roomy());
    assert_eq!(fill(&project, "tuned").0, Some(vec!["fillfactor=90".to_owned()]), "what an owner has set stays");
}

fn roomy() -> Option<Vec<String>> {
    Some(vec!["fillfactor=50".to_owned()])
}
