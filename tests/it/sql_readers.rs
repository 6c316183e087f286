//! People who read the tables with SQL: a file that is whole when a run has ended, columns in the order of the pipeline
//! file, comments.

use std::time::{Duration, Instant};

use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Pipeline};
use rusqlite::Connection;

use crate::support::project::{Project, query};

const PIPELINE: &str = r#"name = "shop"
[source]
path = "events.ndjson"
[entities.product]
columns = { sold = "bigint", revenue = "numeric", last_at = "timestamptz", ok = "boolean" }
indexes = ["sold"]
[handlers]
script = "handlers.lua"
[rollback]
depth = 100
[store]
url = "sqlite:shop.db"
[snapshots]
every = "end"
"#;

const SCRIPT: &str = "function on_event(e, ctx)
  ctx.product:add(tostring(ctx.block % 50), { sold = 1, revenue = numeric('0.10') })
end
function on_snapshot(ctx) return { products = ctx.product:count() } end";

fn events(blocks: std::ops::RangeInclusive<i64>) -> String {
    blocks.map(|block| format!("{{\"block\":{block},\"region\":\"r\"}}\n")).collect()
}

const STATE: &str = "SELECT (SELECT block FROM forebay_pipelines), (SELECT sum(sold) FROM product), (SELECT max(block) FROM forebay_snapshots)";

/// Another program that has read, and stays connected.
fn reader(project: &Project) -> Connection {
    let reader = Connection::open(project.path("shop.db")).expect("the database");
    read(&reader);
    reader
}

fn read(reader: &Connection) -> i64 {
    reader.query_row("SELECT sum(sold) FROM product", [], |row| row.get(0)).expect("rows")
}

/// What a copy of the one file holds: block, sum, block of the snapshot.
fn copied(project: &Project) -> Vec<String> {
    std::fs::copy(project.path("shop.db"), project.path("copy.db")).expect("a copy");
    let state = query(&project.path("copy.db"), STATE).remove(0);
    std::fs::remove_file(project.path("copy.db")).expect("it goes");
    state
}

#[test]
fn a_copy_of_the_file_alone_is_whole_while_a_reader_is_connected() {
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    project.run_json();
    let reader = reader(&project);
    project.write("events.ndjson", events(1..=200));
    let run = project.forebay(&["run", "pipeline.toml"]).ok();
    assert!(!run.stderr().contains("shop.db-wal"), "{run}");
    assert_eq!(copied(&project), ["200", "200", "200"]);
    let back = project.forebay(&["rollback", "pipeline.toml", "--to", "150"]).ok();
    assert!(!back.stderr().contains("shop.db-wal"), "{back}");
    assert_eq!(copied(&project), ["150", "150", "200"], "the snapshot as of 150 has a number above that as of 200");
    // Also behind a run that fails.
    project.write("events.ndjson", events(1..=170) + "nonsense\n");
    project.forebay(&["run", "pipeline.toml"]).fails(2, &["events.ndjson:171"]);
    assert_eq!(copied(&project)[..2], ["169", "169"]);
    assert_eq!(read(&reader), 169);
}

#[test]
fn a_reader_in_a_transaction_holds_no_run_up_and_what_copies_need_is_told() {
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    project.run_json();
    let reader = reader(&project);
    reader.execute_batch("BEGIN").expect("a transaction");
    assert_eq!(read(&reader), 3);
    project.write("events.ndjson", events(1..=200));
    let begun = Instant::now();
    let run = project.forebay(&["run", "pipeline.toml"]).ok();
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let told: Vec<String> = run.stderr().lines().filter(|line| line.contains("-wal")).map(str::to_owned).collect();
    assert_eq!(told.len(), 1, "{run}");
    assert!(told[0].contains("INFO") && told[0].contains("shop.db-wal, because other programs are reading"), "{run}");
    assert_eq!(read(&reader), 3, "it sees what it has begun with");
    // What was told is true: with the log a copy is whole.
    for ending in ["", "-wal"] {
        let copy = project.path(&format!("both.db{ending}"));
        std::fs::copy(project.path(&format!("shop.db{ending}")), copy).expect("a copy");
    }
    assert_eq!(query(&project.path("both.db"), STATE), [["200", "200", "200"]]);
    reader.execute_batch("COMMIT").expect("its end");
    let run = project.forebay(&["run", "pipeline.toml"]).ok();
    assert!(!run.stderr().contains("-wal"), "{run}");
    assert_eq!(copied(&project), ["200", "200", "200"]);
    assert_eq!(read(&reader), 200);
}

/// The columns of a table as a person finds them.
fn columns(project: &Project) -> Vec<String> {
    let sql = match project.url() {
        None => "SELECT name FROM pragma_table_info('product') ORDER BY cid",
        Some(_) => {
            "SELECT column_name::text FROM information_schema.columns WHERE table_name = 'product' ORDER BY ordinal_position"
        }
    };
    project.query("shop.db", sql).into_iter().flatten().collect()
}

fn rows(project: &Project) -> Vec<String> {
    let rows = project.query("shop.db", "SELECT id, sold, revenue FROM product ORDER BY id LIMIT 2");
    rows.into_iter().map(|row| row.join(" ")).collect()
}

crate::both_stores! {
    fn columns_stand_in_the_order_of_the_pipeline_file_and_later_ones_at_the_end() {
        let project = Project::with(PIPELINE, SCRIPT, &events(1..=100));
        let check = project.forebay(&["check", "pipeline.toml"]).ok();
        assert!(check.stdout().contains("product (sold bigint, revenue numeric, last_at timestamptz, ok boolean)"), "{check}");
        project.run_json();
        let first = ["region", "id", "sold", "revenue", "last_at", "ok"];
        assert_eq!(columns(&project), first);
        // Of the tables of a file, and of columns with tables of their own, the order is that of the file too.
        let later = "ok = \"boolean\" }\n".replace(" }", "\n");
        assert!(PIPELINE.contains("ok = \"boolean\" }"));
        let longer = PIPELINE
            .replace("columns = { sold = \"bigint\", revenue = \"numeric\", last_at = \"timestamptz\", ok = \"boolean\" }\n", "")
            .replace(
                "indexes = [\"sold\"]\n",
                &format!("indexes = [\"sold\"]\n[entities.product.columns]\nzone = \"text\"\n{later}alpha.type = \"bytes\"\nsold = \"bigint\"\nrevenue = {{ type = \"numeric\" }}\nlast_at = \"timestamptz\"\n"),
            );
        project.write("pipeline.toml", longer);
        project.write("events.ndjson", events(1..=150));
        project.run_json();
        assert_eq!(columns(&project), [&first[..], &["zone", "alpha"]].concat());
        assert_eq!(rows(&project), ["0 3 0.3", "1 3 0.3"]);
        // Back over rows that were packed before the table had the new columns.
        project.forebay(&["rollback", "pipeline.toml", "--to", "60"]).ok();
        assert_eq!(rows(&project), ["0 1 0.1", "1 2 0.2"]);
        assert_eq!(project.run_json()["events"], 90);
        assert_eq!(rows(&project), ["0 3 0.3", "1 3 0.3"]);
    }

    fn another_order_in_the_file_is_no_change() {
        let project = Project::with(PIPELINE, SCRIPT, &events(1..=100));
        project.run_json();
        project.write("pipeline.toml", PIPELINE.replace("sold = \"bigint\", revenue = \"numeric\"", "revenue = \"numeric\", sold = \"bigint\""));
        project.write("events.ndjson", events(1..=150));
        assert_eq!(project.run_json()["events"], 50);
        assert_eq!(columns(&project), ["region", "id", "sold", "revenue", "last_at", "ok"]);
        assert_eq!(rows(&project), ["0 3 0.3", "1 3 0.3"]);
    }

    fn columns_of_a_table_in_rust_stand_in_the_order_of_its_fields() {
        let project = Project::with("name = \"shop\"\n", "", &events(1..=3));
        let pipeline = Pipeline::new("shop", Products).expect("a pipeline").source_path(&project.path("events.ndjson").to_string_lossy());
        pipeline.store_url(&project.store("shop.db")).expect("a store").run().expect("a run");
        assert_eq!(columns(&project), ["region", "id", "sold", "name", "exact"]);
        assert_eq!(project.query("shop.db", "SELECT name, sold FROM product"), [["tea", "3"]]);
    }
}

forebay::entity! {
    struct Product in "product" {
        sold: i64,
        name: String,
        exact: Option<bool>,
    }
}

struct Products;

#[derive(serde::Deserialize)]
struct Sale {
    block: i64,
}

impl Handler for Products {
    type Event<'e> = Sale;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Product::table().with_comment("One row a product.").with_column_comment("sold", "pieces */ sold")]
    }

    fn on_event(&self, sale: Sale, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        ctx.set("tea", Product { sold: sale.block, name: "tea".into(), exact: None })
    }
}

/// Comments in the text of a table end where they should, whatever they hold, and SQLite can go on changing the table.
#[test]
fn comments_stand_in_the_text_of_a_sqlite_table() {
    let said = r#"it's \"all\" -- of /* it **// \\ or *//* ü\n); DROP TABLE product; --"#;
    let pipeline = PIPELINE
        .replace("sold = \"bigint\"", &format!("sold = {{ type = \"bigint\", comment = \"pieces sold; {said}\" }}"))
        .replace("ok = \"boolean\"", &format!("ok = {{ type = \"boolean\", comment = \"{said}\" }}"))
        .replace("indexes = ", &format!("comment = \"One row a product. {said}\"\nindexes = "));
    let project = Project::with(&pipeline, SCRIPT, &events(1..=100));
    project.run_json();
    let text = || {
        let sql = "SELECT sql FROM sqlite_schema WHERE name = 'product'";
        query(&project.path("shop.db"), sql).remove(0).remove(0)
    };
    let made = text();
    for part in
        ["(/* One row a product. it's", "\"sold\" INTEGER /* pieces sold; it's \"all\" -- of /* it **", "ü ); DROP"]
    {
        assert!(made.contains(part), "{part:?} in {made}");
    }
    assert_eq!(made.matches("*/").count(), 3, "{made}");
    let column = |name: &str| format!("ok = \"boolean\", {name} = {{ type = \"text\", comment = \"{said}\" }}");
    for (name, block) in [("one", 110), ("two", 120)] {
        let before = std::fs::read_to_string(project.path("pipeline.toml")).expect("the file");
        let (head, rest) = before.split_once(" }\ncomment").expect("the columns");
        let added = column(name);
        let added = added.trim_start_matches("ok = \"boolean\"");
        project.write("pipeline.toml", format!("{head}{added} }}\ncomment{rest}"));
        project.write("events.ndjson", events(1..=block));
        assert_eq!(project.run_json()["events"], 10);
    }
    assert_eq!(columns(&project), ["region", "id", "sold", "revenue", "last_at", "ok", "one", "two"]);
    assert_eq!(text().matches("*/").count(), 5, "{}", text());
    let sql = "ALTER TABLE product RENAME COLUMN two TO three; ALTER TABLE product DROP COLUMN one; VACUUM;";
    project.execute("shop.db", sql);
    assert_eq!(columns(&project), ["region", "id", "sold", "revenue", "last_at", "ok", "three"]);
    assert_eq!(query(&project.path("shop.db"), "PRAGMA integrity_check"), [["ok"]]);
}
