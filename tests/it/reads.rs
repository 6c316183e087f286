//! Reads by column against every state of a commit: before it, while it stands still, after it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use forebay::config::BatchConfig;
use forebay::query::Comparison;
use forebay::source::{Next, Source, SourceError, SourceEvent};
use forebay::store::batch::{Checkpoint, RegionTouch, SealedBatch};
use forebay::store::{
    self, Committed, OpenReader, RegionIds, RegionLimit, RegionQuery, RowEncoder, RowReader, Store, StoreError,
    StorePlan, StoreUrl,
};
use forebay::{
    Context, EntityNo, EntityRow, EntityTable, Find, Handler, HandlerError, Numeric, Pipeline, Schema, Timestamp,
};

use crate::support::project::{Project, Stores};

const WAIT: Duration = Duration::from_secs(60);

forebay::entity! {
    struct Thing in "thing" {
        v: Option<i64>,
        n: Option<Numeric>,
        t: Option<Timestamp>,
        s: Option<String>,
        b: Option<bool>,
        d: Option<f64>,
        y: Option<Vec<u8>>,
    }
    index v, n, t, s, b, d, y
}

fn thing(v: i64) -> Thing {
    // Numbers, times and texts whose texts order otherwise than they do.
    let micros = v.rem_euclid(7) * 500_000 + v * 86_400_000_000 * 400;
    Thing {
        v: Some(v),
        n: Some(if v % 2 == 0 {
            Numeric::from(i128::from(v) * 37)
        } else {
            format!("{v}.5").parse().expect("a number")
        }),
        t: Timestamp::from_micros(micros),
        s: Some(["ab", "a", "Z", "é", "b"][v.rem_euclid(5) as usize].to_owned()),
        b: Some(v % 3 == 0),
        d: Some(v as f64 / 8.0),
        y: Some(vec![(v.rem_euclid(251)) as u8, 0, 255]),
    }
}

#[derive(serde::Deserialize)]
struct Step {
    op: String,
    #[serde(default)]
    v: i64,
}

struct Reads {
    seen: Mutex<Sender<(i64, Vec<String>)>>,
}

impl Handler for Reads {
    type Event<'e> = Step;
    fn entities(&self) -> Vec<EntityTable> {
        vec![Thing::table()]
    }
    fn on_event(&self, step: Step, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let id = format!("k{:05}", step.v);
        match step.op.as_str() {
            "set" => ctx.set(&id, thing(step.v)),
            // The row moves out of what is looked for, or into it.
            "move" => ctx.set(&id, thing(step.v + 100_000)),
            "delete" => ctx.delete::<Thing>(&id),
            _ => {
                let small = Find::all().filter("v", Comparison::Less, 20_i64).ascending("v").limit(5);
                let large = Find::all().filter("v", Comparison::AtLeast, 50_000_i64).descending("v").limit(3);
                let mut ids: Vec<String> = ctx.find::<Thing>(&small)?.into_iter().map(|(id, _)| id).collect();
                ids.extend(ctx.find::<Thing>(&large)?.into_iter().map(|(id, _)| id));
                ids.push(ctx.count_where::<Thing>(&small)?.to_string());
                ids.push(ctx.count::<Thing>()?.to_string());
                let _ = self.seen.lock().expect("seen").send((ctx.block(), ids));
                Ok(())
            }
        }
    }
}

struct Steps(std::vec::IntoIter<(i64, String)>);

impl Source for Steps {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        let Some((block, json)) = self.0.next() else { return Ok(Next::End) };
        (event.block, event.json) = (block, json);
        event.region.replace_range(.., "r");
        Ok(Next::Event)
    }
}

/// Where a commit stands still.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Parked {
    Before,
    After,
    /// Between the question of a reader and the use of its answer: the commit goes on as soon as one has asked.
    WhileRead,
}

/// A store whose first commit stands still until it is told to go on.
struct Parking {
    inner: Box<dyn Store>,
    parked: Parked,
    begun: Sender<()>,
    go_on: Receiver<()>,
    has_parked: bool,
    readers: Arc<dyn OpenReader>,
}

impl Parking {
    fn park(&mut self) -> Result<(), StoreError> {
        self.begun.send(()).map_err(StoreError::other)?;
        self.go_on.recv_timeout(WAIT).map_err(StoreError::other)
    }
}

impl Store for Parking {
    fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        self.inner.checkpoint()
    }
    fn pending_regions(&mut self) -> Result<Vec<RegionTouch>, StoreError> {
        self.inner.pending_regions()
    }
    fn empty_entities(&mut self) -> Result<Vec<bool>, StoreError> {
        self.inner.empty_entities()
    }
    fn commit(&mut self, batch: &Arc<SealedBatch>) -> Result<Committed, StoreError> {
        let parks = !std::mem::replace(&mut self.has_parked, true);
        if parks && self.parked != Parked::After {
            self.park()?;
        }
        let committed = self.inner.commit(batch)?;
        if parks && self.parked == Parked::After {
            self.park()?;
        }
        Ok(committed)
    }
    fn encoder(&self) -> Option<Arc<dyn RowEncoder>> {
        self.inner.encoder()
    }
    fn readers(&self) -> Arc<dyn OpenReader> {
        Arc::clone(&self.readers)
    }
}

/// Readers that let the parked commit go on once they have asked, and give their answer after it.
struct Interposed {
    inner: Arc<dyn OpenReader>,
    go_on: Option<Sender<()>>,
}

impl OpenReader for Interposed {
    fn open(&self) -> Result<Box<dyn RowReader>, StoreError> {
        Ok(Box::new(InterposedReader { inner: self.inner.open()?, go_on: self.go_on.clone() }))
    }
}

struct InterposedReader {
    inner: Box<dyn RowReader>,
    go_on: Option<Sender<()>>,
}

impl RowReader for InterposedReader {
    fn rows(&mut self, entity: EntityNo, wanted: &[RegionIds<'_>], found: &mut [Vec<u8>]) -> Result<(), StoreError> {
        self.inner.rows(entity, wanted, found)
    }
    fn regions(
        &mut self,
        entity: EntityNo,
        regions: &[&str],
        limit: RegionLimit,
        found: &mut [Vec<u8>],
    ) -> Result<Vec<bool>, StoreError> {
        self.inner.regions(entity, regions, limit, found)
    }
    fn find(&mut self, entity: EntityNo, wanted: &[RegionQuery<'_>], found: &mut [Vec<u8>]) -> Result<(), StoreError> {
        self.inner.find(entity, wanted, found)?;
        if let Some(go_on) = self.go_on.take() {
            // The commit may have gone on already.
            let _ = go_on.try_send(());
        }
        Ok(())
    }
    fn count(&mut self, entity: EntityNo, wanted: RegionQuery<'_>, but: &[&str]) -> Result<u64, StoreError> {
        self.inner.count(entity, wanted, but)
    }
}

fn store(project: &Project) -> Box<dyn Store> {
    let schema = Arc::new(Schema::new([Thing::table().entity]).expect("a schema"));
    let plan = StorePlan::new("reads", schema).expect("a plan");
    let url = StoreUrl::parse(&project.store("r.db"), std::path::Path::new("")).expect("an address");
    store::open(&url, plan).expect("the store")
}

fn step(block: i64, op: &str, v: i64) -> (i64, String) {
    (block, format!("{{\"op\":\"{op}\",\"v\":{v}}}"))
}

fn run(store: Box<dyn Store>, steps: Vec<(i64, String)>, events: u64) -> Vec<(i64, Vec<String>)> {
    let (sender, seen) = bounded(10_000);
    let pipeline = Pipeline::new("reads", Reads { seen: Mutex::new(sender) }).expect("a pipeline");
    let batch = BatchConfig::default().with_events(events).expect("events");
    let pipeline = pipeline.store(Wrapped(store)).batch(batch).source(Steps(steps.into_iter()));
    pipeline.run().expect("a run");
    // A call may have been made more than once; the last one counts.
    let mut last = std::collections::BTreeMap::new();
    seen.try_iter().for_each(|(block, ids)| drop(last.insert(block, ids)));
    last.into_iter().collect()
}

struct Wrapped(Box<dyn Store>);

impl Store for Wrapped {
    fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        self.0.checkpoint()
    }
    fn pending_regions(&mut self) -> Result<Vec<RegionTouch>, StoreError> {
        self.0.pending_regions()
    }
    fn empty_entities(&mut self) -> Result<Vec<bool>, StoreError> {
        self.0.empty_entities()
    }
    fn commit(&mut self, batch: &Arc<SealedBatch>) -> Result<Committed, StoreError> {
        self.0.commit(batch)
    }
    fn encoder(&self) -> Option<Arc<dyn RowEncoder>> {
        self.0.encoder()
    }
    fn readers(&self) -> Arc<dyn OpenReader> {
        self.0.readers()
    }
}

/// More rows than are loaded whole, so that the store is asked.
fn many() -> Vec<(i64, String)> {
    (0..1500).map(|v| step(1, "set", v)).collect()
}

crate::both_stores! {
    /// Rows that staged writes moved out, moved in or deleted are right, wherever the commit stands.
    fn what_is_found_does_not_depend_on_where_a_commit_stands() {
        let steps: Vec<(i64, String)> = [
            step(2, "move", 0), step(2, "delete", 2), step(2, "set", 20_000),
            step(3, "find", 0),
            step(4, "move", 1), step(4, "set", 2), step(4, "delete", 3),
            step(5, "find", 0),
            step(6, "delete", 4), step(6, "set", 0),
            step(7, "find", 0),
            step(8, "find", 0),
        ].to_vec();
        let after = |first: &str, rest: &[&str]| [first.split(' ').collect(), rest.to_vec()].concat().into_iter().map(str::to_owned).collect::<Vec<String>>();
        let expected = vec![
            (3, after("k00001 k00003 k00004 k00005 k00006", &["k00000", "18", "1500"])),
            (5, after("k00002 k00004 k00005 k00006 k00007", &["k00001", "k00000", "17", "1500"])),
            (7, after("k00000 k00002 k00005 k00006 k00007", &["k00001", "17", "1499"])),
            (8, after("k00000 k00002 k00005 k00006 k00007", &["k00001", "17", "1499"])),
        ];
        for parked in [Parked::Before, Parked::After, Parked::WhileRead] {
            let project = Project::new();
            run(store(&project), many(), 10_000);
            let (begun_sender, begun) = bounded(1);
            let (go_on, go_on_receiver) = bounded::<()>(1);
            let inner = store(&project);
            let let_go = (parked == Parked::WhileRead).then(|| go_on.clone());
            let readers = Arc::new(Interposed { inner: inner.readers(), go_on: let_go });
            let store = Parking { inner, parked, begun: begun_sender, go_on: go_on_receiver, has_parked: false, readers };
            let (sender, seen) = bounded(10_000);
            let pipeline = Pipeline::new("reads", Reads { seen: Mutex::new(sender) }).expect("a pipeline");
            let batch = BatchConfig::default().with_events(1).expect("events");
            let pipeline = pipeline.store(store).batch(batch).late(forebay::source::Late::Skip).source(Steps([vec![step(1, "skip", 0)], steps.clone()].concat().into_iter()));
            let running = std::thread::spawn(move || pipeline.run());
            begun.recv_timeout(WAIT).expect("a commit begins");
            let mut last = std::collections::BTreeMap::new();
            // All of it is read while the first commit stands where it stands.
            while last.len() < 4 {
                let (block, ids) = seen.recv_timeout(WAIT).expect("a read");
                last.insert(block, ids);
            }
            let _ = go_on.try_send(());
            running.join().expect("the run").expect("it succeeds");
            seen.try_iter().for_each(|(block, ids)| drop(last.insert(block, ids)));
            assert_eq!(last.into_iter().collect::<Vec<_>>(), expected, "parked {parked:?}");
        }
    }

    /// Every type orders in the store as in memory.
    fn every_type_is_found_in_the_order_of_its_values() {
        struct Orders(Mutex<Vec<Vec<String>>>);
        impl Handler for &'static Orders {
            type Event<'e> = Step;
            fn entities(&self) -> Vec<EntityTable> {
                vec![Thing::table()]
            }
            fn on_event(&self, step: Step, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
                if step.op == "set" {
                    let mut row = thing(step.v);
                    if step.v % 11 == 0 {
                        row = Thing { v: None, n: None, t: None, s: None, b: None, d: None, y: None };
                    }
                    return ctx.set(&format!("k{:05}", step.v + 10_000), row);
                }
                let pivot = thing(7);
                let mut all = Vec::new();
                for comparison in Comparison::ALL {
                    for (column, find) in [
                        ("v", Find::all().filter("v", comparison, pivot.v.unwrap_or(0))),
                        ("n", Find::all().filter("n", comparison, pivot.n.clone().unwrap_or(Numeric::ZERO))),
                        ("t", Find::all().filter("t", comparison, pivot.t.unwrap_or_default())),
                        ("s", Find::all().filter("s", comparison, pivot.s.clone().unwrap_or_default())),
                        ("b", Find::all().filter("b", comparison, true)),
                        ("d", Find::all().filter("d", comparison, pivot.d.unwrap_or(0.0))),
                        ("y", Find::all().filter("y", comparison, pivot.y.clone().unwrap_or_default())),
                    ] {
                        for find in [find.clone().limit(30), find.clone().descending(column).limit(30), Find::all().ascending(column).limit(200), Find::all().descending("v").limit(160)] {
                            all.push(ctx.find::<Thing>(&find)?.into_iter().map(|(id, _)| id).collect::<Vec<_>>().join(" "));
                        }
                        all.push(ctx.count_where::<Thing>(&find)?.to_string());
                    }
                }
                *self.0.lock().expect("orders") = vec![all];
                Ok(())
            }
        }
        let mut answers = Vec::new();
        // In memory, where all of it is warm; and from the store, in a run of its own.
        for is_warm in [true, false] {
            let project = Project::new();
            let orders: &'static Orders = Box::leak(Box::new(Orders(Mutex::default())));
            let sets: Vec<_> = (-700..700).map(|v| step(1, "set", v)).collect();
            let find = vec![step(2, "find", 0)];
            let runs = if is_warm { vec![[sets, find].concat()] } else { vec![sets, find] };
            for steps in runs {
                let pipeline = Pipeline::new("reads", orders).expect("a pipeline").store(Wrapped(store(&project)));
                pipeline.source(Steps(steps.into_iter())).run().expect("a run");
            }
            answers.push(std::mem::take(&mut *orders.0.lock().expect("orders")));
        }
        assert!(answers[0][0].len() > 100 && answers[0] == answers[1]);
    }
}

/// The same finds again and again ask the store once.
#[test]
fn repeated_finds_do_not_ask_again() {
    crate::support::project::with_store(Stores::Sqlite, || {
        let project = Project::new();
        run(store(&project), many(), 10_000);
        let steps: Vec<_> =
            (2..600).flat_map(|n| [step(n, "find", 0), step(n, "move", n), step(n, "delete", n + 600)]).collect();
        let (sender, _seen) = bounded(100_000);
        let pipeline = Pipeline::new("reads", Reads { seen: Mutex::new(sender) }).expect("a pipeline");
        let report = pipeline.store(Wrapped(store(&project))).source(Steps(steps.into_iter())).run().expect("a run");
        // Each round loads the rows that its writes change; a find is asked again only when it has used up its rows.
        assert!(report.loads < 60, "{} loads for 1,196 finds", report.loads);
    });
}

/// A table to find rows in, and one for what was found.
const FINDS: &str = r#"
name = "p"
source.path = "events.ndjson"
handlers.script = "handlers.lua"
store.url = "sqlite:p.db"
[entities.t]
columns = { n = "bigint", s = "text" }
indexes = ["n"]
[entities.log]
columns = { x = "text" }
"#;

crate::both_stores! {
    /// All of a table may come while a find waits for its answer: for the rows that calls behind it read.
    fn a_find_that_waits_while_its_table_comes_whole_finds_each_row_once() {
        let script = "function on_event(e, ctx)
          if e.put then
            ctx.t:set(e.put, { n = e.n })
          elseif e.find then
            local ids = {}
            for i, row in ipairs(ctx.t:find{ where = {{ 'n', '=', e.find }}, limit = e.limit }) do ids[i] = row.id end
            ctx.log:set(e.id, { x = table.concat(ids, ' ') .. ' of ' .. ctx.t:count{ where = {{ 'n', '=', e.find }} } })
          else
            ctx.log:set(e.id, { x = tostring(ctx.t:get(e.get).n) })
          end
        end";
        let put = |i: u32| format!("{{\"block\":1,\"region\":\"a\",\"put\":\"f{i:05}\",\"n\":{}}}\n", i % 97);
        let get = |i: u32| format!("{{\"block\":2,\"region\":\"a\",\"id\":\"g{i:05}\",\"get\":\"f{i:05}\"}}\n");
        let find = |id: &str, limit: &str| {
            format!("{{\"block\":2,\"region\":\"a\",\"id\":\"{id}\",\"find\":9{limit}}}\n")
        };
        // Wherever the find stands in a chunk of calls.
        for before in [0, 447, 448, 449, 600] {
            let events: String = (0..1500)
                .map(put)
                .chain((0..before).map(get))
                .chain([find("all", ""), find("some", ",\"limit\":5")])
                .chain((before..1448).map(get))
                .collect();
            let project = Project::with(FINDS, script, &events);
            project.forebay(&["run", "pipeline.toml", "--until", "1"]).ok();
            project.forebay(&["run", "pipeline.toml"]).ok();
            let ids: Vec<String> = (0..1500).filter(|i| i % 97 == 9).map(|i| format!("f{i:05}")).collect();
            let (all, some) = (format!("{} of {}", ids.join(" "), ids.len()), format!("{} of {}", ids[..5].join(" "), ids.len()));
            let found = project.query("p.db", "SELECT x FROM log WHERE id IN ('all', 'some') ORDER BY id");
            assert_eq!(found, [[all], [some]], "behind {before} others");
        }
    }
}

crate::both_stores! {
    /// The rows that come first in the store may all be gone here, or behind others: as many more are asked for as it takes.
    fn a_find_behind_rows_that_are_deleted_here_ends() {
        let script = "function on_event(e, ctx)
          if e.put then return ctx.t:set(e.put, { n = 1 }) end
          for i = 0, 39 do ctx.t:delete(string.format('f%05d', i)) end
          for i = 40, 79 do ctx.t:set(string.format('f%05d', i), { n = 2 }) end
          local first = ctx.t:find{ limit = 1 }[1].id
          ctx.log:set(e.id, { x = first .. ' ' .. ctx.t:find{ order = 'n', limit = 1 }[1].id })
        end
        function on_snapshot(ctx)
          return { first = ctx.t:find{ limit = 2 }[2].id }
        end";
        let put = |i: u32| format!("{{\"block\":1,\"region\":\"a\",\"put\":\"f{i:05}\"}}\n");
        let events = (0..2000).map(put).chain(["{\"block\":2,\"region\":\"a\",\"id\":\"found\"}\n".to_owned()]);
        let project = Project::with(FINDS, script, &events.collect::<String>());
        project.forebay(&["run", "pipeline.toml", "--until", "1"]).ok();
        project.forebay(&["run", "pipeline.toml"]).ok();
        assert_eq!(project.query("p.db", "SELECT x FROM log"), [["f00040 f00080"]]);
        let newest = "SELECT doc FROM forebay_snapshots ORDER BY seq DESC LIMIT 1";
        assert_eq!(project.query("p.db", newest), [["{\"first\":\"f00041\"}"]]);
    }
}

/// A `find` asks for more rows than it needs; only those that it needs must fit.
#[test]
fn a_find_that_fits_passes_though_what_it_asks_for_beside_does_not() {
    let script = "function on_event(e, ctx)
      if e.put then return ctx.t:set(e.put, { n = e.n, s = ('x'):rep(1000) }) end
      local rows = ctx.t:find{ order = '-n', limit = e.find }
      ctx.log:set(e.id, { x = #rows .. ' to ' .. rows[#rows].n })
    end";
    let pipeline = format!("{FINDS}[batch]\nmemory = \"16MiB\"\n");
    let put = |i: u32| format!("{{\"block\":1,\"region\":\"a\",\"put\":\"f{i}\",\"n\":{i}}}\n");
    let find =
        |block: u32, find: u32| format!("{{\"block\":{block},\"region\":\"a\",\"id\":\"b{block}\",\"find\":{find}}}\n");
    let events: String = (0..9000).map(put).chain([find(2, 2200), find(3, 8000)]).collect();
    let project = Project::with(&pipeline, script, &events);
    project.forebay(&["run", "pipeline.toml", "--until", "1"]).ok();
    project.forebay(&["run", "pipeline.toml", "--until", "2"]).ok();
    assert_eq!(project.query("p.db", "SELECT x FROM log"), [["2200 to 6800"]]);
    let refused = project.forebay(&["run", "pipeline.toml"]);
    refused.fails(1, &["a find in region \"a\"", "give it a limit"]);
}
