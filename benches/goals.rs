//! What is asked of forebay's speed, and whether it holds, as one table of Markdown: `make bench`, or `BENCH=quick make
//! bench` for fewer and shorter runs. `BENCH=tiny` only shows that all of it works. Words behind `cargo bench --bench goals --` choose parts: chain, peers, resumed,
//! regions, counts, wide, long, batches, overlap.
//!
//! All ways of a part run turn by turn, whole processes; medians are compared. Each result must be the one that
//! `peers/state.py` computes from the same events.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

mod jobs;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use forebay::timeline::grouped;
use jobs::{Events, Handlers, Job, Keeps, Place, Stores, Took, peer, timed};
use table::{Row, Table, median};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// MiB that a run may take beyond `batch.memory`.
const BEYOND_BUDGET_MIB: f64 = 40.0;
const DEFAULT_BUDGET_MIB: f64 = 512.0;

use Handlers::{Lua, Rust};
use Stores::{Postgres, Sqlite};

/// What does a job.
#[derive(Clone, Copy)]
enum Runner {
    Forebay(Job),
    /// The loop in Python over sqlite3.
    Python,
    /// DuckDB on one thread.
    Duck,
}

/// One way to do a job.
#[derive(Clone)]
struct Way {
    name: String,
    runner: Runner,
    keeps: Keeps,
    stores: Stores,
    events: Events,
    /// Parts of the events that are committed before; the next one is measured.
    before: usize,
    /// Whether those are left out in place of being committed.
    is_fresh: bool,
}

impl Way {
    fn new(job: Job, stores: Stores, events: Events) -> Self {
        let name = format!("{}, {}", job.name(), stores.name());
        Self { name, runner: Runner::Forebay(job), keeps: job.keeps, stores, events, before: 0, is_fresh: false }
    }

    fn peer(runner: Runner, name: &str, keeps: Keeps, events: Events) -> Self {
        let what = if keeps == Keeps::Rows { "+ row" } else { "balances" };
        let name = format!("{name}, {what}");
        Self { name, runner, keeps, stores: Sqlite, events, before: 0, is_fresh: false }
    }

    fn named(self, name: String) -> Self {
        Self { name, ..self }
    }
}

/// What came of the runs of a way.
struct Measured {
    name: String,
    events: f64,
    took: Vec<Took>,
    /// Round trips to the database of a batch.
    steps: f64,
}

impl Measured {
    fn seconds(&self) -> f64 {
        median(self.took.iter().map(|took| took.seconds).collect())
    }

    fn rate(&self) -> f64 {
        self.events / self.seconds()
    }

    fn memory_mib(&self) -> f64 {
        median(self.took.iter().map(|took| took.memory_mib).collect())
    }

    fn efficiency(&self) -> f64 {
        median(self.took.iter().map(|took| took.report["overlap"]["efficiency"].as_f64().unwrap_or(0.0)).collect())
    }

    fn processors(&self) -> f64 {
        median(self.took.iter().map(|took| took.processors).collect())
    }
}

/// What is asked for.
#[derive(Clone, Copy)]
enum Asked {
    AtLeast(f64),
    AtMost(f64),
}

struct Goal {
    what: String,
    asked: Asked,
    measured: f64,
    unit: &'static str,
}

impl Goal {
    fn holds(&self) -> bool {
        match self.asked {
            Asked::AtLeast(least) => self.measured >= least,
            Asked::AtMost(most) => self.measured <= most,
        }
    }
}

/// All that is measured.
struct Bench {
    place: Place,
    is_quick: bool,
    /// All sizes are divided by that.
    divisor: u64,
    has_duck: bool,
    table: Table,
    goals: Vec<Goal>,
    measured: Vec<(&'static str, Vec<Measured>)>,
    /// For each run without a server, how many processors other programs used meanwhile.
    others: Vec<f64>,
}

impl Bench {
    fn repeats(&self, full: usize) -> usize {
        if self.is_quick || self.divisor > 1 { 1 } else { full }
    }

    /// So many events or regions, or fewer.
    fn size(&self, full: u64) -> u64 {
        full / self.divisor
    }

    fn goal(&mut self, what: impl Into<String>, asked: Asked, measured: f64, unit: &'static str) {
        let (what, limit) = (
            what.into(),
            match asked {
                Asked::AtLeast(limit) | Asked::AtMost(limit) => limit,
            },
        );
        self.table.note(Row::new(&what, measured, unit).against("asked for", limit));
        self.goals.push(Goal { what, asked, measured, unit });
    }

    fn rate_goal(&mut self, measured: &Measured, least: f64) {
        self.goal(&measured.name, Asked::AtLeast(least), measured.rate(), "events/s");
    }

    fn memory_goal(&mut self, measured: &Measured, budget_mib: f64) {
        let what = format!("{}, memory at most", measured.name);
        self.goal(what, Asked::AtMost(budget_mib + BEYOND_BUDGET_MIB), measured.memory_mib(), "MiB");
    }

    /// Runs all ways, turn by turn.
    fn alternate(&mut self, ways: &[Way], repeats: usize) -> Vec<Measured> {
        let measured = |way: &Way| {
            let events = way.events.count() as f64 / way.events.parts() as f64;
            Measured { name: way.name.clone(), events, took: Vec::new(), steps: 0.0 }
        };
        let mut all: Vec<Measured> = ways.iter().map(measured).collect();
        for turn in 1..=repeats {
            for (way, measured) in ways.iter().zip(&mut all) {
                let (took, steps) = self.run(way);
                eprintln!("{}, {turn} of {repeats}: {:.3} s, {:.0} MiB", way.name, took.seconds, took.memory_mib);
                measured.steps = steps;
                measured.took.push(took);
            }
        }
        all
    }

    /// Runs a way once, and compares its result.
    fn run(&mut self, way: &Way) -> (Took, f64) {
        let place = &self.place;
        let files = place.events(&way.events);
        let made = place.store(way.stores);
        let (before, now) = (&files[..way.before], &files[way.before]);
        let mut taken = vec![now.clone()];
        // A folder whose later parts have not come yet.
        let source = match &way.runner {
            Runner::Forebay(job) if way.before > 0 => {
                let source = Folder::new(place);
                if !way.is_fresh {
                    before.iter().for_each(|file| source.put(file));
                    place.run(job, &[], &source.dir, &made);
                    taken = files[..=way.before].to_vec();
                }
                source.put(now);
                source.dir
            }
            _ => now.clone(),
        };
        place.settle();
        let (steps_before, busy) = (made.steps(), busy_processors());
        let took = match &way.runner {
            Runner::Forebay(job) => place.run(job, &[], &source, &made),
            Runner::Python => timed(peer_command("loop.py", now).arg(made.file()).args(rows(way.keeps))),
            Runner::Duck => timed(peer_command("duck.py", now).arg(made.file()).args(rows(way.keeps))),
        };
        if way.stores == Sqlite {
            self.others.push((busy_processors() - busy - took.processors).max(0.0) / took.seconds);
        }
        let batches = took.report["batches"].as_f64().unwrap_or(1.0).max(1.0);
        let steps = (made.steps() - steps_before) as f64 / batches;
        match &way.runner {
            Runner::Forebay(job) => place.check(job, &taken, &made),
            Runner::Python => place.check(&Job::new(Lua, way.keeps), &taken, &made),
            Runner::Duck => {
                let mut command = peer_command("duck.py", Path::new("state"));
                let output = command.arg(made.file()).args(rows(way.keeps)).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                assert_eq!(String::from_utf8_lossy(&output.stdout), place.state(&kind(way.keeps), &taken), "DuckDB");
            }
        }
        place.discard(made);
        (took, steps)
    }
}

/// A folder that gets parts of the events, one after the other.
struct Folder {
    dir: PathBuf,
}

impl Folder {
    fn new(place: &Place) -> Self {
        let dir = place.dir.path().join(format!("parts-{}", place.number()));
        std::fs::create_dir(&dir).unwrap();
        Self { dir }
    }

    fn put(&self, file: &Path) {
        // Another name of the same file would be left out.
        std::fs::copy(file, self.dir.join(file.file_name().unwrap())).unwrap();
    }
}

fn kind(keeps: Keeps) -> String {
    if keeps == Keeps::Rows { "rows".into() } else { "balances".into() }
}

fn rows(keeps: Keeps) -> &'static [&'static str] {
    if keeps == Keeps::Rows { &["rows"] } else { &[] }
}

/// A program of `peers/`, which begins with that argument.
fn peer_command(name: &str, first: &Path) -> Command {
    let mut command = Command::new("python3");
    command.arg(peer(name)).arg(first).env("PYTHONPATH", duck_folder());
    command
}

fn duck_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/duckdb")
}

/// Whether DuckDB is there: pip puts it into a folder of `target/`.
fn has_duck() -> bool {
    let import = || {
        let mut python = Command::new("python3");
        python
            .args(["-c", "import duckdb"])
            .env("PYTHONPATH", duck_folder())
            .output()
            .is_ok_and(|out| out.status.success())
    };
    if import() {
        return true;
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
        .arg(duck_folder())
        .arg("duckdb");
    let _ = pip.output();
    import()
}

/// Seconds that all processors have been busy since the machine started.
fn busy_processors() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let numbers =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).map(|text| text.parse().unwrap_or(0.0));
    let numbers: Vec<f64> = numbers.collect();
    let idle: f64 = numbers.iter().skip(3).take(2).sum();
    // Guests are counted in user too.
    (numbers.iter().take(8).sum::<f64>() - idle) / 100.0
}

/// The chain of 200,000 transfers.
fn chain(bench: &mut Bench) {
    let least = [
        (Lua, Keeps::Balances, 600_000.0, 480_000.0),
        (Lua, Keeps::Rows, 300_000.0, 230_000.0),
        (Rust, Keeps::Balances, 1_600_000.0, 1_000_000.0),
        (Rust, Keeps::Rows, 500_000.0, 320_000.0),
    ];
    let each = least.iter().flat_map(|(handlers, keeps, sqlite, postgres)| {
        let job = Job::new(*handlers, *keeps);
        [(job, Sqlite, *sqlite), (job, Postgres, *postgres)]
    });
    let each: Vec<(Job, Stores, f64)> = each.collect();
    let ways: Vec<Way> =
        each.iter().map(|(job, stores, _)| Way::new(*job, *stores, Events::chain(bench.size(200_000)))).collect();
    let measured = bench.alternate(&ways, bench.repeats(5));
    for (measured, (_, _, least)) in measured.iter().zip(&each) {
        bench.rate_goal(measured, *least);
    }
    bench.measured.push(("a chain of transfers", measured));
}

/// A million transfers, beside what one would take instead.
fn peers(bench: &mut Bench) {
    let events = Events::chain(bench.size(if bench.is_quick { 200_000 } else { 1_000_000 }));
    let keeps = [Keeps::Balances, Keeps::Rows];
    let mut ways: Vec<Way> = Vec::new();
    ways.extend(keeps.map(|keeps| Way::peer(Runner::Python, "Python and sqlite3", keeps, events)));
    ways.extend(keeps.map(|keeps| Way::new(Job::new(Lua, keeps), Sqlite, events)));
    ways.extend(keeps.map(|keeps| Way::new(Job::new(Rust, keeps), Sqlite, events)));
    if bench.has_duck {
        ways.extend(keeps.map(|keeps| Way::peer(Runner::Duck, "DuckDB, one thread", keeps, events)));
    }
    let measured = bench.alternate(&ways, bench.repeats(3));
    let ratio = |peer: usize, own: usize| measured[peer].seconds() / measured[own].seconds();
    for (what, least, peer, own) in [("Lua balances", 4.0, 0, 2), ("Lua + row", 4.0, 1, 3)] {
        bench.goal(format!("{what}, times as fast as the loop in Python"), Asked::AtLeast(least), ratio(peer, own), "");
    }
    if bench.has_duck {
        for (what, least, peer, own) in [("Rust balances", 1.3, 6, 4), ("Rust + row", 0.8, 7, 5)] {
            bench.goal(format!("{what}, times as fast as DuckDB"), Asked::AtLeast(least), ratio(peer, own), "");
        }
    }
    bench
        .measured
        .push((if bench.is_quick { "200,000 transfers, SQLite" } else { "1,000,000 transfers, SQLite" }, measured));
}

/// The second half of a chain, over the tables of the first half and over empty ones.
fn resumed(bench: &mut Bench) {
    let transfers = bench.size(if bench.is_quick { 200_000 } else { 400_000 });
    let events = Events::Chain { transfers, accounts: 10_000, tokens: 1, parts: 2 };
    let mut ways = Vec::new();
    for (handlers, stores) in [(Lua, Sqlite), (Lua, Postgres), (Rust, Sqlite), (Rust, Postgres)] {
        let way = Way { before: 1, ..Way::new(Job::new(handlers, Keeps::Rows), stores, events) };
        let (fresh, resumed) = (format!("{}, fresh", way.name), format!("{}, resumed", way.name));
        ways.push(Way { is_fresh: true, ..way.clone().named(fresh) });
        ways.push(way.named(resumed));
    }
    let measured = bench.alternate(&ways, bench.repeats(3));
    for pair in measured.chunks(2) {
        let [fresh, resumed] = pair else { continue };
        let time = fresh.seconds() / resumed.seconds();
        bench.goal(format!("{}: speed, against fresh", resumed.name), Asked::AtLeast(0.95), time, "");
        let memory = resumed.memory_mib() / fresh.memory_mib();
        bench.goal(format!("{}: memory, against fresh", resumed.name), Asked::AtMost(1.15), memory, "");
    }
    bench.measured.push(("the second half of a chain", measured));
}

/// Many regions.
fn regions(bench: &mut Bench) {
    let tokens = bench.size(100_000);
    let events = |transfers| Events::Chain { transfers, accounts: 2, tokens, parts: 1 };
    let mut ways = vec![Way::new(Job::new(Lua, Keeps::Balances), Sqlite, events(bench.size(200_000)))];
    if !bench.is_quick {
        ways.push(Way::new(Job::new(Lua, Keeps::Balances), Sqlite, events(1_000_000)));
        let job = Job { memory_mib: Some(256), ..Job::new(Lua, Keeps::Balances) };
        let many = bench.size(1_000_000);
        ways.push(Way::new(job, Sqlite, Events::Turns { transfers: many, tokens: many, parts: 1 }));
    }
    let names =
        ["100,000 regions, 200,000 events", "100,000 regions, 1,000,000 events", "1,000,000 regions in 256 MiB"];
    let ways: Vec<Way> =
        ways.into_iter().zip(names).map(|(way, name)| way.named(format!("{name}, Lua, SQLite"))).collect();
    let measured = bench.alternate(&ways, bench.repeats(3));
    let bounds = [(150_000.0, DEFAULT_BUDGET_MIB), (150_000.0, DEFAULT_BUDGET_MIB), (50_000.0, 256.0)];
    for (measured, (least, budget)) in measured.iter().zip(bounds) {
        bench.rate_goal(measured, least);
        bench.memory_goal(measured, budget);
    }
    bench.measured.push(("many regions", measured));
}

/// Snapshots with counts, over a database far away.
fn counts(bench: &mut Bench) {
    let way = |regions: u64| {
        let events = Events::Turns { transfers: 2 * regions, tokens: regions, parts: 2 };
        let way = Way::new(Job::new(Lua, Keeps::Balances), Stores::Distant(20), events);
        Way { before: 1, ..way.named(format!("{} regions that count, Postgres 20 ms away, resumed", grouped(regions))) }
    };
    let ways = [way(bench.size(1000)), way(bench.size(10_000))];
    let measured = bench.alternate(&ways, 1);
    let what = "10,000 regions that count: round trips a batch, against 1,000 regions";
    bench.goal(what, Asked::AtMost(1.25), measured[1].steps / measured[0].steps, "");
    bench.measured.push(("snapshots with counts", measured));
}

/// Rows of many columns.
fn wide(bench: &mut Bench) {
    let events = bench.size(if bench.is_quick { 50_000 } else { 200_000 });
    let mut ways = Vec::new();
    for columns in [64, 150] {
        let update = Job::new(Lua, Keeps::Updates(columns));
        ways.push(Way::new(update, Sqlite, Events::Wide { events, rows: 10_000 }));
        ways.push(Way::new(Job::new(Lua, Keeps::Inserts(columns)), Sqlite, Events::Wide { events, rows: events }));
    }
    let measured = bench.alternate(&ways, bench.repeats(3));
    bench.rate_goal(&measured[0], 200_000.0);
    bench.rate_goal(&measured[1], 100_000.0);
    for one in &measured {
        bench.memory_goal(one, DEFAULT_BUDGET_MIB);
    }
    bench.measured.push(("wide rows", measured));
}

/// Events of 3 KB, of which three fields are read.
fn long(bench: &mut Bench) {
    let events = Events::Long { transfers: bench.size(200_000) };
    let ways = [Lua, Rust].map(|handlers| Way::new(Job::new(handlers, Keeps::Balances), Sqlite, events));
    let measured =
        bench.alternate(&ways.map(|way| way.clone().named(format!("{}, events of 3 KB", way.name))), bench.repeats(3));
    for (measured, most) in measured.iter().zip([0.6, 0.35]) {
        bench.goal(&measured.name, Asked::AtMost(most), measured.seconds(), "s");
    }
    bench.measured.push(("events of 3 KB", measured));
}

/// Batches of few and of many events.
fn batches(bench: &mut Bench) {
    const SIZES: [u64; 6] = [10, 100, 1000, 9999, 10_000, 100_000];
    let series =
        [(Keeps::Balances, Sqlite), (Keeps::Balances, Postgres), (Keeps::Rows, Sqlite), (Keeps::Rows, Postgres)];
    let series = if bench.is_quick { &series[..1] } else { &series[..] };
    let events = Events::chain(bench.size(200_000));
    for (keeps, stores) in series {
        let way = |size| {
            let way = Way::new(Job { batch_events: Some(size), ..Job::new(Lua, *keeps) }, *stores, events);
            let name = format!("{}, batches of {}", way.name, grouped(size));
            way.named(name)
        };
        let measured = bench.alternate(&SIZES.map(way), bench.repeats(5));
        let (mut best, mut least) = (0.0_f64, f64::INFINITY);
        for one in &measured {
            best = best.max(one.rate());
            least = least.min(one.rate() / best);
        }
        let name = Way::new(Job::new(Lua, *keeps), *stores, events).name;
        bench.goal(format!("{name}: a larger batch against the best smaller one"), Asked::AtLeast(0.95), least, "");
        bench.measured.push(("batches of 10 to 100,000 events", measured));
    }
}

/// How much of a database that is away is hidden.
fn overlap(bench: &mut Bench) {
    let transfers = bench.size(if bench.is_quick { 400_000 } else { 2_000_000 });
    let job = Job::new(Lua, Keeps::Balances);
    let mut ways: Vec<Way> =
        [0, 1, 20].map(|millis| Way::new(job, Stores::Distant(millis), Events::chain(transfers))).into();
    let short = Job { batch_events: Some(1000), ..job };
    let short = Way::new(short, Stores::Distant(20), Events::chain(bench.size(200_000)));
    ways.push(short.named("Lua balances, Postgres 20 ms away, 200,000 events in batches of 1,000".into()));
    let measured = bench.alternate(&ways, bench.repeats(3));
    for (one, least) in measured.iter().zip([0.97, 0.97, 0.97, 0.92]) {
        bench.goal(format!("{}: efficiency of the overlap", one.name), Asked::AtLeast(least), one.efficiency(), "");
    }
    bench.measured.push(("a database that is away", measured));
}

type Part = (&'static str, fn(&mut Bench));

const PARTS: [Part; 9] = [
    ("chain", chain),
    ("peers", peers),
    ("resumed", resumed),
    ("regions", regions),
    ("counts", counts),
    ("wide", wide),
    ("long", long),
    ("batches", batches),
    ("overlap", overlap),
];

fn main() {
    if jobs::is_child() {
        return;
    }
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if let Some(unknown) = chosen.iter().find(|word| PARTS.iter().all(|(name, _)| name != word)) {
        panic!("there is no part {unknown}");
    }
    let how = std::env::var("BENCH").unwrap_or_default();
    assert!(["", "quick", "tiny"].contains(&how.as_str()), "BENCH is quick, tiny or nothing, not {how}");
    let mut bench = Bench {
        place: Place::new(),
        is_quick: how == "quick",
        divisor: if how == "tiny" { 20 } else { 1 },
        has_duck: has_duck(),
        table: Table::silent("goals"),
        goals: Vec::new(),
        measured: Vec::new(),
        others: Vec::new(),
    };
    for (name, part) in PARTS {
        if chosen.is_empty() || chosen.iter().any(|word| word == name) {
            part(&mut bench);
        }
    }
    bench.print(&how, &chosen);
    bench.table.save();
}

impl Bench {
    /// Prints all of it as Markdown.
    fn print(&self, how: &str, chosen: &[String]) {
        println!("{}", self.circumstances(how, chosen));
        if !self.has_duck {
            println!("\nDuckDB is left out: pip could not put it into target/duckdb.");
        }
        println!("\n| | asked | measured | holds |\n|---|---|---|---|");
        for goal in &self.goals {
            let (sign, limit) = match goal.asked {
                Asked::AtLeast(limit) => ("≥", limit),
                Asked::AtMost(limit) => ("≤", limit),
            };
            let (unit, holds) = (goal.unit, if goal.holds() { "yes" } else { "**no**" });
            println!(
                "| {} | {sign} {} {unit} | {} {unit} | {holds} |",
                goal.what,
                number(limit),
                number(goal.measured)
            );
        }
        for (title, all) in &self.measured {
            println!(
                "\n{title}:\n\n| | events | seconds | events/s | against the first | processors, s | memory, MiB | round trips a batch |"
            );
            println!("|---|---|---|---|---|---|---|---|");
            for one in all {
                let spread = one.took.iter().map(|took| took.seconds);
                let (least, most) = (spread.clone().fold(f64::INFINITY, f64::min), spread.fold(0.0, f64::max));
                let against = one.rate() / all[0].rate();
                let memory = if one.memory_mib() > 0.0 { number(one.memory_mib().round()) } else { String::new() };
                let steps = if one.steps > 0.0 { format!("{:.1}", one.steps) } else { String::new() };
                println!(
                    "| {} | {} | {:.3} ({least:.3} to {most:.3}) | {} | {against:.2} | {:.2} | {memory} | {steps} |",
                    one.name,
                    grouped(one.events as u64),
                    one.seconds(),
                    grouped(one.rate() as u64),
                    one.processors(),
                );
            }
        }
    }

    /// When, where and how it was measured.
    fn circumstances(&self, how: &str, chosen: &[String]) -> String {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
            line.split(':').nth(1).unwrap_or_default().trim().to_owned()
        };
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).env("PYTHONPATH", duck_folder()).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
        };
        let today = forebay::Timestamp::now().to_string();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let gib = field(&read("/proc/meminfo"), "MemTotal").split(' ').next().and_then(|kib| kib.parse::<f64>().ok());
        let duck = if self.has_duck {
            said("python3", &["-c", "import duckdb; print(', DuckDB', duckdb.__version__)"])
        } else {
            String::new()
        };
        let server = self.place.server().client("postgres");
        let postgres: String = { server }.query_one("SHOW server_version", &[]).unwrap().get(0);
        let others = if self.others.is_empty() { 0.0 } else { median(self.others.clone()) };
        let command = if chosen.is_empty() {
            "make bench".to_owned()
        } else {
            format!("cargo bench --bench goals -- {}", chosen.join(" "))
        };
        format!(
            "`{}{command}`, {}, {cores} processors ({}), {:.0} GiB, Linux {}; {} at {}; {}, PostgreSQL {postgres}, {}{duck}.\n\
             Other programs used {others:.2} processors meanwhile (median). Whole processes, medians, turn by turn; each result is checked.",
            if how.is_empty() { String::new() } else { format!("BENCH={how} ") },
            &today[..10],
            field(&read("/proc/cpuinfo"), "model name"),
            gib.unwrap_or(0.0) / f64::from(1 << 20),
            read("/proc/sys/kernel/osrelease").trim(),
            said(env!("CARGO_BIN_EXE_forebay"), &["--version"]),
            said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]),
            said("rustc", &["-V"]),
            said("python3", &["-V"]),
        )
    }
}

/// As many digits as say something.
fn number(value: f64) -> String {
    if value >= 1000.0 {
        grouped(value as u64)
    } else {
        format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').into()
    }
}
