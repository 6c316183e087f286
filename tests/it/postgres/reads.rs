//! Reads from Postgres: what is not asked for, what is asked for together, and connections that break under them.

use std::time::Duration;

use forebay::config::BatchConfig;
use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Pipeline};

use super::{PIPELINE, SCRIPT, on_postgres};
use crate::support::postgres_proxy::{Fault, Proxy};
use crate::support::postgres_server::{self, Server};
use crate::support::project::Project;

crate::both_stores! {
    /// Many regions, each with a few rows that are not in memory: they are not asked for one by one.
    fn the_rows_that_many_regions_miss_come_together() {
        let script = "function on_event(e, ctx) local t = ctx.thing:get('x') or { n = 0 } t.n = t.n + 1 ctx.thing:set('x', t)
          local o = ctx.thing:get(e.other) or { n = 0 } o.n = o.n + 1 ctx.thing:set(e.other, o) end";
        let lines: String = (0..1200).map(|n| format!("{{\"block\":{n},\"region\":\"r{}\",\"other\":\"o{}\"}}\n", n % 300, n % 7)).collect();
        let project = Project::with(PIPELINE, script, &lines);
        project.forebay(&["run", "pipeline.toml", "--until", "599"]).ok();
        let report = project.run_json();
        let loads = report["loads"].as_u64().expect("rows were loaded");
        assert!(loads < 60, "{loads} loads for 300 regions");
        let database = if project.url().is_some() { "" } else { "things.db" };
        assert_eq!(project.query(database, "SELECT sum(n), count(*) FROM thing WHERE id = 'x'"), [["1200", "300"]]);
        assert_eq!(project.query(database, "SELECT sum(n) FROM thing WHERE id <> 'x'"), [["1200"]]);
    }
}

crate::both_stores! {
    /// Snapshots of many regions count what is committed and what is not, with and without conditions.
    fn counts_of_many_regions_are_those_of_each() {
        let pipeline = format!("{PIPELINE}indexes = [\"n\"]\n").replace("[handlers]\nscript = \"handlers.lua\"\n", "");
        let pipeline = format!("{pipeline}[handlers]\nscript = \"handlers.lua\"\n[snapshots]\nevery = \"end\"\n");
        let script = "function on_event(e, ctx)
          if e.gone then ctx.thing:delete(e.id) else ctx.thing:set(e.id, { n = e.n }) end
        end
        function on_snapshot(ctx)
          local more = ctx.thing:count({ where = { { 'n', '>', 40 } } })
          return { region = ctx.region, all = ctx.thing:count(), more = more, same = ctx.thing:count({ where = { { 'n', '=', 7 } } }) }
        end";
        let mut dice = crate::support::dice::Dice(11);
        let line = |n: u64| {
            let (region, id, value, gone) = (dice.below(150), dice.below(12), dice.below(60), dice.below(4) == 0);
            format!("{{\"block\":{n},\"region\":\"r{region}\",\"id\":\"i{id}\",\"n\":{value},\"gone\":{gone}}}\n")
        };
        let project = Project::with(&pipeline, script, &(0..4000).map(line).collect::<String>());
        let database = if project.url().is_some() { "" } else { "things.db" };
        for until in ["1500", "3000", "4000"] {
            project.forebay(&["run", "pipeline.toml", "--until", until]).ok();
            let sql = "SELECT region, count(*), sum(CASE WHEN n > 40 THEN 1 ELSE 0 END), sum(CASE WHEN n = 7 THEN 1 ELSE 0 END)
              FROM thing GROUP BY region";
            let mut counted = project.query(database, sql);
            let docs = project.forebay(&["latest", "--config", "pipeline.toml"]).ok().json_lines();
            let mut told: Vec<Vec<String>> = docs.iter().map(|doc| {
                let region = doc["region"].as_str().expect("a region").to_owned();
                [region].into_iter().chain(["all", "more", "same"].map(|key| doc[key].to_string())).collect()
            }).filter(|row: &Vec<String>| row[1] != "0").collect();
            told.sort();
            counted.sort();
            assert_eq!(told, counted, "until {until}");
        }
    }
}

/// The snapshots of a batch, with what they count, take as many round trips whatever the number of regions.
#[test]
fn snapshots_that_count_take_as_many_round_trips_for_many_regions() {
    let script = "function on_event(e, ctx) ctx.thing:set(e.id, { n = ctx.block }) end
      function on_snapshot(ctx) return { rows = ctx.thing:count() } end";
    let pipeline = format!("{PIPELINE}[snapshots]\nevery = \"end\"\n");
    let trips = |regions: usize| {
        let line =
            |n: usize| format!("{{\"block\":{},\"region\":\"r{}\",\"id\":\"i{n}\"}}\n", n / regions, n % regions);
        let project = Project::with(&pipeline, script, &(0..2 * regions).map(line).collect::<String>());
        let proxy = Proxy::start(Server::shared().port);
        let database = Server::shared().make_database();
        let url = format!("postgres://forebay@127.0.0.1:{}/{database}?sslmode=disable", proxy.port);
        let run = |until: &str| {
            project.forebay(&["run", "pipeline.toml", "--json", "--store", &url, "--until", until]).ok().json()
        };
        run("0");
        let begun = proxy.steps();
        let report = run("1");
        let sql = "SELECT count(*), count(DISTINCT region) FROM thing";
        let rows = postgres_server::query(&mut Server::shared().client(&database), "things", sql);
        assert_eq!(rows, [[(2 * regions).to_string(), regions.to_string()]]);
        assert_eq!(report["snapshots"]["stored"], regions);
        (report["loads"].as_u64().expect("counts were asked for"), proxy.steps() - begun)
    };
    let ((few_loads, few), (many_loads, many)) = (trips(200), trips(2000));
    assert_eq!(few_loads, many_loads, "a question an engine");
    assert!(many <= few + 8, "{few} round trips for 200 regions, {many} for 2,000");
}

/// A handler that moves numbers between rows of its region.
struct Moves;

forebay::entity! {
    struct Thing in "thing" {
        n: i64,
    }
}

#[derive(serde::Deserialize)]
struct Move {
    from: i64,
    to: i64,
}

impl Handler for Moves {
    type Event<'e> = Move;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Thing::table()]
    }

    fn on_event(&self, event: Move, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        for (id, amount) in [(event.from, -1), (event.to, 1)] {
            let id = format!("id{id}");
            let n = ctx.get::<Thing>(&id)?.map_or(0, |thing| thing.n);
            ctx.set(&id, Thing { n: n + amount })?;
        }
        Ok(())
    }
}

/// What fits in memory is never asked for, however far the database is.
#[test]
fn a_distant_database_is_not_read_when_its_tables_fit_in_memory() {
    let proxy = Proxy::start(Server::shared().port);
    proxy.set_latency(Duration::from_millis(20));
    let database = Server::shared().make_database();
    let url = format!("postgres://forebay@127.0.0.1:{}/{database}?sslmode=disable", proxy.port);
    let project = Project::new();
    let lines: String = (0..20_000)
        .map(|n| {
            format!(
                "{{\"block\":{},\"region\":\"r{}\",\"from\":{},\"to\":{}}}\n",
                n / 10,
                n % 3,
                n * 7 % 3001,
                n * 11 % 3001
            )
        })
        .collect();
    project.write("events.ndjson", lines);
    let batch = BatchConfig::default().with_events(1000).expect("events");
    let pipeline = Pipeline::new("far", Moves).expect("pipeline").store_url(&url).expect("store").batch(batch);
    let report = pipeline.source_path(&project.path("events.ndjson").to_string_lossy()).run().expect("it succeeds");
    assert_eq!((report.loads, report.times.preload), (0, Duration::ZERO));
    assert_eq!((report.events, proxy.connections()), (20_000, 1), "and nothing was connected to read");
}

/// Calls that are tried ahead all want the same table counted: it is asked for once, and from then on kept right.
#[test]
fn a_table_that_many_calls_count_is_counted_once() {
    struct Counts;
    impl Handler for Counts {
        type Event<'e> = Move;
        fn entities(&self) -> Vec<EntityTable> {
            vec![Thing::table()]
        }
        fn on_event(&self, event: Move, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
            let n = ctx.count::<Thing>()?;
            ctx.set(&format!("id{}", event.from), Thing { n: i64::try_from(n)? })
        }
    }
    let line = |n: i64| format!("{{\"block\":{n},\"region\":\"r\",\"from\":{n},\"to\":0}}\n");
    let project = on_postgres(PIPELINE, SCRIPT, &(0..3000).map(line).collect::<String>());
    let run = |until: i64| {
        let pipeline =
            Pipeline::new("things", Counts).expect("pipeline").store_url(&project.url().expect("url")).expect("store");
        pipeline.source_path(&project.path("events.ndjson").to_string_lossy()).until(until).run().expect("it succeeds")
    };
    run(1999);
    // Its count, and once a round which of the ids that are written are in it, until a scan has found all that there are.
    let loads = run(2999).loads;
    assert!((1..=6).contains(&loads), "{loads} loads");
    assert_eq!(project.query("", "SELECT count(*), max(n) FROM thing"), [["3000", "2999"]]);
}

/// Reads meet the same faults as commits.
#[test]
fn a_connection_that_breaks_under_a_read_costs_nothing_but_time() {
    let lines: String = (0..900)
        .map(|n| {
            format!(
                "{{\"block\":{},\"region\":\"r{}\",\"from\":{},\"to\":{}}}\n",
                n / 3,
                n % 5,
                n * 7 % 211,
                n * 11 % 211
            )
        })
        .collect();
    let project = Project::new();
    project.write("events.ndjson", lines);
    let run = |url: &str, until: i64| {
        let pipeline = Pipeline::new("far", Moves).expect("pipeline").store_url(url).expect("store");
        let pipeline = pipeline.source_path(&project.path("events.ndjson").to_string_lossy());
        pipeline.until(until).run().expect("it succeeds")
    };
    let server = Server::shared();
    let state = |database: &str| {
        postgres_server::query(&mut server.client(database), "far", "SELECT * FROM thing ORDER BY region, id")
    };
    let plain = server.make_database();
    run(&server.url(&plain), i64::MAX);
    let expected = state(&plain);
    for step in 1..=30 {
        let database = server.make_database();
        run(&server.url(&database), 150);
        let proxy = Proxy::start(server.port);
        let fault = if step % 2 == 0 { Fault::CutBefore } else { Fault::CutAfter };
        proxy.break_at(step, fault);
        let url = format!("postgres://forebay@127.0.0.1:{}/{database}?sslmode=disable", proxy.port);
        let report = run(&url, i64::MAX);
        assert!(report.loads > 0, "rows were read back");
        assert_eq!(state(&database), expected, "step {step}");
        assert!(step > 12 || !proxy.is_armed(), "step {step} was not reached");
    }
}
