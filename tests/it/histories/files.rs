//! Histories of a folder of files that changes between runs.
//!
//! A run that ends well has handled every event that the folder holds, by the rule of `late`, once; or it has warned. A
//! run that refuses has left whole blocks of what is right, and refuses nothing that it could handle. What it refused is
//! taken back, and it must go on.

/// What files hold, and how they lie on disk.
mod folder;
/// What a run may come to.
mod judge;
/// What is left out of it.
mod parts;
/// What happens to the folder.
mod steps;
/// The library's own file source, and what it warns of.
mod watched;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::config::{BatchConfig, ErrorsConfig};
use forebay::source::{End, Late};
use forebay::store::{self, StorePlan, StoreUrl};
use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Pipeline, Report, Schema};
use proptest::test_runner::TestCaseError;

use self::folder::{Disk, Folder, Hashes, Line};
use self::judge::{Asked, Ledger, Stored, View, find, stored_of};
use self::parts::Part;
use self::steps::{FilesPlan, Scope, Step, World, files_plan};
use self::watched::{Said, Watched, listen};
use super::live_many;
use super::place::{Failing, Place};
use crate::support::folder_in_memory;
use crate::support::postgres_server::Server;

const SQLITE_CASES: u32 = 200;
const POSTGRES_CASES: u32 = 10;

forebay::entity! {
    /// When a line was handled: how many of its region came before it.
    pub struct Seen in "seen" {
        at: i64,
    }
}

#[derive(serde::Deserialize)]
struct Event {
    n: u64,
    #[serde(default)]
    fails: bool,
}

struct Log;

impl Handler for Log {
    type Event<'e> = Event;
    fn entities(&self) -> Vec<EntityTable> {
        vec![Seen::table()]
    }
    fn on_event(&self, event: Event, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let at = ctx.get::<Seen>("count")?.map_or(0, |seen| seen.at);
        ctx.set("count", Seen { at: at + 1 })?;
        ctx.set(&event.n.to_string(), Seen { at })?;
        if event.fails { Err(HandlerError::new("it was to fail")) } else { Ok(()) }
    }
}

/// What a run came to.
struct Ended {
    report: Result<Report, String>,
    is_store: bool,
    said: Vec<String>,
    bytes: u64,
}

struct Life<'a> {
    plan: &'a FilesPlan,
    place: &'a Place,
    path: &'a Path,
    disk: Disk,
    world: World,
    ledger: Ledger,
    /// The folder as of each step since the last run that ended well, that one first.
    earlier: Vec<Folder>,
    /// What happened, for people.
    story: Vec<String>,
}

impl Life<'_> {
    fn run_over(&mut self, asked: Asked) -> Ended {
        self.disk.write(&self.world.folder, self.plan.form, self.path);
        let (said, read) = (Said::default(), Arc::<AtomicU64>::default());
        let report = self.run_pipeline(asked, &said, &read);
        listen(&Arc::new(Mutex::new(Vec::new())));
        let said = std::mem::take(&mut *said.lock().expect("what was said"));
        let is_store = report.as_ref().is_err_and(|(_, is_store)| *is_store);
        let report = report.map_err(|(error, _)| error);
        let shown = match &report {
            Ok(report) => format!("{} events, {} late", report.events, report.late_skipped),
            Err(error) => error.clone(),
        };
        self.story.push(format!("  run {asked:?} over {}", self.world.folder.shown(self.plan.form)));
        self.story.push(format!("    -> {shown}"));
        self.story.extend(said.iter().map(|said| format!("    warned: {said}")));
        Ended { report, is_store, said, bytes: read.load(Ordering::Relaxed) }
    }

    fn run_pipeline(&self, asked: Asked, said: &Said, read: &Arc<AtomicU64>) -> Result<Report, (String, bool)> {
        let source = Watched::open(self.path, &self.world.folder, self.plan.form, said, read);
        let source = source.map_err(|error| (error.to_string(), false))?;
        let mut pipeline = self.pipeline(asked.fails).source(source);
        if let Some(until) = asked.until {
            pipeline = pipeline.until(until);
        }
        pipeline.run().map_err(|error| {
            let is_store = matches!(error.kind(), forebay::ErrorKind::Store);
            (error.to_string(), is_store)
        })
    }

    fn pipeline(&self, fails: Option<(u8, bool)>) -> Pipeline {
        let plan = self.plan;
        let batch = BatchConfig::default().with_events(plan.batch_events);
        let memory_bytes = if plan.evicts { 1 } else { 64 << 20 };
        let batch = batch.and_then(|batch| batch.with_memory_bytes(memory_bytes)).expect("a batch");
        let schema = Arc::new(Schema::new([Seen::table().entity]).expect("a schema"));
        let store = StorePlan::new("hist", schema).expect("a plan");
        let store = store.with_ttl(Duration::from_secs(86_400)).expect("a plan");
        let url = StoreUrl::parse(&self.place.url, Path::new("")).expect("an address");
        let inner = store::open(&url, store).expect("the store");
        let pipeline = Pipeline::new("hist", Log).expect("a pipeline").store(Failing::new(inner, fails, 0));
        let pipeline = pipeline.batch(batch).rollback_depth(plan.depth).errors(ErrorsConfig::quarantine(1_000_000));
        pipeline.late(plan.late).end(plan.end)
    }

    /// Rolls back by hand, where that can be done.
    fn roll_back(&mut self, back: u8) -> Result<(), TestCaseError> {
        let Some(to) = self.ledger.block_before(self.plan, back) else { return Ok(()) };
        self.story.push(format!("  rollback to {to}"));
        if let Err(error) = self.pipeline(None).rollback(to) {
            return Err(self.fault(&format!("a rollback failed: {error}")));
        }
        let (stored, bad) = self.stored();
        let is_known = bad.is_subset(&self.ledger.bad);
        self.ledger.go_back(to, bad);
        self.world.committed = self.ledger.tip().unwrap_or(0);
        if !is_known || stored != stored_of(&self.ledger.lines, &self.ledger.bad) {
            return Err(self.fault(&format!("a rollback has left {stored:?}")));
        }
        Ok(())
    }

    /// What the store holds, and of that the lines that are no events.
    fn stored(&self) -> (Stored, BTreeSet<u64>) {
        let (mut stored, mut bad) = (Stored::default(), BTreeSet::new());
        for row in self.place.query("SELECT region, id FROM seen WHERE id <> 'count' ORDER BY region, at") {
            stored.regions.entry(row[0].clone()).or_default().push(row[1].parse().expect("a number"));
        }
        for row in self.place.query("SELECT event FROM forebay_quarantine") {
            let digits = row[0].trim_start_matches(|c: char| !c.is_ascii_digit());
            let digits = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            let n = digits.parse().expect("a number");
            *stored.aside.entry(n).or_default() += 1;
            if row[0].starts_with("{bad") {
                bad.insert(n);
            }
        }
        let events = self.place.query("SELECT events FROM forebay_pipelines");
        stored.events = events.first().map_or(0, |row| row[0].parse().expect("a number"));
        (stored, bad)
    }

    /// Runs, and judges what it came to; whether it ended well.
    fn run(&mut self, asked: Asked) -> Result<bool, TestCaseError> {
        let before = self.ledger.clone();
        let folder = self.world.folder.clone();
        let ended = self.run_over(asked);
        let view = View::new(self.plan, &before, &folder, asked);
        let (stored, bad) = self.stored();
        let has_failed = ended.is_store && asked.fails.is_some();
        let orders = if ended.report.is_ok() { view.ends(!ended.said.is_empty()) } else { view.parts() };
        let Some(lines) = find(&orders, &stored, &bad, ended.report.is_ok()) else {
            let expected: Vec<Vec<u64>> =
                orders.iter().map(|order| order.iter().map(|line| line.n).collect()).collect();
            return Err(self.fault(&format!("the store holds {stored:?}, and one of these was expected: {expected:?}")));
        };
        let lines = lines.to_vec();
        match &ended.report {
            Ok(report) => self.judge_end(asked, &view, &ended, report, &lines, &bad)?,
            Err(error) if !has_failed => self.judge_refusal(&view, error)?,
            Err(_) => {}
        }
        let is_told = ended.report.is_ok() || !ended.said.is_empty();
        let told = if is_told { view.lost.clone() } else { before.told.clone() };
        (self.ledger.lines, self.ledger.bad) = (lines, bad);
        self.world.committed = self.ledger.tip().unwrap_or(0);
        let floor = self.ledger.tip().map(|tip| tip - self.plan.depth.cast_signed());
        self.ledger.floor = self.ledger.floor.max(floor);
        self.ledger.told = told;
        self.ledger.has_waited |= view.waits();
        // Of a run that failed some files may be committed.
        self.ledger.told_late.extend(view.late.iter().map(|line| line.n));
        let is_well = ended.report.is_ok();
        if is_well {
            self.ledger.settle(self.plan, &folder, asked.until);
            let is_settled = view.is_settled(&self.ledger);
            if asked.until.is_none() {
                self.run_again(is_settled)?;
            }
        }
        Ok(is_well)
    }

    fn judge_end(
        &self,
        asked: Asked,
        view: &View<'_>,
        ended: &Ended,
        report: &Report,
        lines: &[Line],
        bad: &BTreeSet<u64>,
    ) -> Result<(), TestCaseError> {
        // A replay knows second deliveries, and says so.
        if self.world.folder.has_copies() && (self.plan.late != Late::Replay || ended.said.is_empty()) {
            return Err(self.fault("a copy was not refused"));
        }
        let is_told = !ended.said.is_empty() && view.has_gone() && !Part::LateAndGone.is_lived();
        // Of a source that is cut off only so much can be compared.
        let is_told = is_told || !ended.said.is_empty() && !view.lost.is_empty();
        let is_told = is_told || asked.until.is_some() && !Part::Until.is_lived();
        if self.plan.late == Late::Error && !view.late.is_empty() && !is_told {
            return Err(self.fault("a late line was not refused"));
        }
        if let Some(why) = view.must_warn(lines, bad).filter(|_| ended.said.is_empty()) {
            return Err(self.fault(&format!("it did not warn: {why}")));
        }
        if view.must_be_silent() && !ended.said.is_empty() {
            return Err(self.fault("there was nothing to warn of"));
        }
        if let Some((new, all)) = view.late_counts() {
            let told = report.late_skipped;
            let is_exact = Part::LateCounts.is_lived() || new == 0 && all == 0;
            if told < new.min(if is_exact { u64::MAX } else { 1 }) || told > all && is_exact {
                return Err(self.fault(&format!("{new} lines came too late and {all} before, and it told of {told}")));
            }
        }
        Ok(())
    }

    fn judge_refusal(&self, view: &View<'_>, error: &str) -> Result<(), TestCaseError> {
        if view.may_refuse().is_none() {
            return Err(self.fault("it refused what it had to handle"));
        }
        let plan = self.plan;
        let is_plain = plan.end == End::Complete && plan.late != Late::Replay && !plan.reuses_inodes;
        let is_plain = is_plain && plan.form.hashes == Hashes::None;
        let checks_names = is_plain || Part::Names.is_lived();
        let Some(good) = self.earlier.first().filter(|_| checks_names) else { return Ok(()) };
        let changed = self.world.folder.changed_since(good);
        let names = self.world.folder.files.iter().map(folder::Held::name);
        let named: Vec<String> = names.filter(|name| error.contains(&format!("{name}:"))).collect();
        if !named.is_empty() && !changed.is_empty() && !named.iter().any(|name| changed.contains(name)) {
            return Err(self.fault("it names a file that has not changed"));
        }
        Ok(())
    }

    /// A restart over the same files changes nothing, and reads nothing if all is settled.
    fn run_again(&mut self, is_settled: bool) -> Result<(), TestCaseError> {
        let before = self.stored();
        let mut again = self.run_over(Asked::default());
        // What a replay has read in another order the next run reads once more.
        if again.report.is_ok() && again.bytes > 0 && self.plan.late == Late::Replay {
            again = self.run_over(Asked::default());
        }
        if again.report.is_ok() && again.said.is_empty() {
            let view = View::new(self.plan, &self.ledger, &self.world.folder, Asked::default());
            let why = view.must_warn(&self.ledger.lines, &self.ledger.bad);
            let is_late = self.plan.late == Late::Error && !view.late.is_empty();
            let why = why.or(is_late.then_some("a late line"));
            if let Some(why) = why {
                return Err(self.fault(&format!("a restart over the same files is silent: {why}")));
            }
        }
        if self.plan.end == End::Complete && is_settled {
            if again.report.is_err() {
                return Err(self.fault("a restart over the same files failed"));
            }
            if self.stored() != before {
                return Err(self.fault("a restart over the same files changed something"));
            }
            if !again.said.is_empty() {
                return Err(self.fault("a restart over the same files had something to tell"));
            }
            if again.bytes > 0 {
                return Err(self.fault("a restart over the same files read some of them"));
            }
        }
        Ok(())
    }

    fn fault(&self, what: &str) -> TestCaseError {
        TestCaseError::fail(format!("{what}\n{}", self.story.join("\n")))
    }

    /// Takes back what was refused, step by step, until a run goes on; false if what is left cannot be taken back.
    fn take_back(&mut self) -> Result<bool, TestCaseError> {
        while let Some(folder) = self.earlier.pop() {
            let is_last = self.earlier.is_empty();
            self.story.push("taken back".to_owned());
            self.world.go_back(self.plan, folder);
            if View::new(self.plan, &self.ledger, &self.world.folder, Asked::default()).is_left_out() {
                return Ok(false);
            }
            if !self.world.folder.files.is_empty() && self.run(Asked::default())? {
                return Ok(true);
            }
            if is_last {
                return Ok(false);
            }
        }
        Ok(false)
    }
}

fn live(plan: &FilesPlan, place: &Place) -> Result<(), TestCaseError> {
    let dir = folder_in_memory();
    let mut life = Life {
        plan,
        place,
        path: dir.path(),
        disk: Disk::default(),
        world: World::default(),
        ledger: Ledger::default(),
        earlier: Vec::new(),
        story: Vec::new(),
    };
    for step in plan.steps.iter().chain([&Step::Run(None)]) {
        let asked = match step {
            Step::Run(back) => {
                let last = life.world.folder.lines().map(|line| line.block).max();
                let until = back.zip(last).map(|(back, last)| last - i64::from(back));
                Asked { until: until.filter(|until| life.ledger.tip().is_none_or(|tip| *until >= tip)), fails: None }
            }
            Step::Fail(at, is_after) => Asked { until: None, fails: Some((*at, *is_after)) },
            Step::Back(back) => {
                life.roll_back(*back)?;
                continue;
            }
            other => {
                let before = life.world.folder.clone();
                if life.world.apply(plan, other).is_some() {
                    life.story.push(format!("{other:?}"));
                    life.earlier.push(before);
                } else {
                    life.world.folder = before;
                }
                if !life.world.folder.has_copies() {
                    continue;
                }
                Asked::default()
            }
        };
        if life.world.folder.files.is_empty() {
            continue;
        }
        if View::new(plan, &life.ledger, &life.world.folder, asked).is_left_out() {
            return Ok(());
        }
        let mut is_well = life.run(asked)?;
        if !is_well && asked.fails.is_some() {
            if View::new(plan, &life.ledger, &life.world.folder, Asked::default()).is_left_out() {
                return Ok(());
            }
            is_well = life.run(Asked::default())?;
        }
        if !is_well && !life.take_back()? {
            return Ok(());
        }
        if life.world.folder.has_copies()
            && let Some(before) = life.earlier.pop()
        {
            life.world.go_back(plan, before);
        }
        // Nobody has seen yet what lies behind the last block wanted.
        if asked.until.is_none() {
            life.earlier.clear();
        }
    }
    Ok(())
}

fn live_on_sqlite(plan: &FilesPlan) -> Result<(), TestCaseError> {
    let dir = folder_in_memory();
    let file = dir.path().join("h.db");
    let url = format!("sqlite:{}", file.display());
    live(plan, &Place { url, file: Some(file.clone()), database: None, script: None })
}

const PLAIN: Scope = Scope { headless: false, no_region: false, hashes: false, losses: false, regroups: false };

#[test]
fn folders_on_sqlite() {
    live_many(&files_plan(PLAIN), SQLITE_CASES, 11, live_on_sqlite);
}

#[test]
fn folders_whose_lines_are_moved_or_lost() {
    live_many(&files_plan(Scope { losses: true, regroups: true, ..PLAIN }), SQLITE_CASES, 12, live_on_sqlite);
}

#[test]
fn folders_with_hashes() {
    live_many(&files_plan(Scope { hashes: true, ..PLAIN }), SQLITE_CASES, 13, live_on_sqlite);
}

#[test]
fn folders_with_events_that_cannot_be_read() {
    live_many(&files_plan(Scope { no_region: true, ..PLAIN }), SQLITE_CASES, 14, live_on_sqlite);
}

#[test]
fn folders_with_lines_that_are_no_events() {
    live_many(&files_plan(Scope { headless: true, no_region: true, ..PLAIN }), SQLITE_CASES, 15, live_on_sqlite);
}

#[test]
fn folders_on_postgres() {
    live_many(&files_plan(PLAIN), POSTGRES_CASES, 16, |plan| {
        let database = Server::shared().make_database();
        let url = Server::shared().url(&database);
        let result = live(plan, &Place { url, file: None, database: Some(database.clone()), script: None });
        Server::shared().execute("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
        result
    });
}
