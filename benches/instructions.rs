//! How many instructions each kind of event costs, counted by callgrind, against `benches/instructions.json`: a slow-down
//! shows where times would not. What counts is the difference between two runs, one of which has more events, so that the
//! start of a process is left out.
//!
//! `make instructions`. Needs valgrind. `FOREBAY_BLESS=1 make instructions` writes the numbers down;
//! `make instructions ROWS=…` counts the rows whose names hold that; `FOREBAY_REPEAT=3` shows how far counts
//! of the same row lie apart.
//!
//! Each batch commits before the next one is handled (`--serial`), so that no count depends on which thread is faster.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

mod jobs;
mod table;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;

use jobs::{Events, Handlers, Job, Keeps, Place, Stores};
use serde_json::{Value as Json, json};
use table::{Row, Table};

/// How much more than written down an event may cost.
const SLACK: f64 = 0.03;

/// Threads wait for each other now and then: a count that is too large is taken again so many times, and the least counts.
const TRIES: usize = 3;

/// What is counted.
#[derive(Clone, Copy)]
struct Counted {
    job: Job,
    stores: Stores,
    /// The events of the two runs.
    events: [Events; 2],
    /// Whether the first half of them is committed before.
    is_resumed: bool,
    name: &'static str,
}

const BALANCES: Keeps = Keeps::Balances;
const ROWS: Keeps = Keeps::Rows;

const fn counted(name: &'static str, handlers: Handlers, keeps: Keeps, stores: Stores, events: [Events; 2]) -> Counted {
    let job = Job { is_serial: true, ..Job::new(handlers, keeps) };
    Counted { job, stores, events, is_resumed: false, name }
}

const fn chain(transfers: u64, parts: u64) -> Events {
    Events::Chain { transfers, accounts: 200, tokens: 1, parts }
}

const fn regions(transfers: u64, parts: u64) -> Events {
    Events::Turns { transfers, tokens: transfers / parts, parts }
}

const fn wide(events: u64, rows: u64) -> Events {
    Events::Wide { events, rows }
}

fn rows() -> Vec<Counted> {
    use Handlers::{Lua, Rust};
    use Stores::{Postgres, Sqlite};
    let short = [chain(800, 1), chain(2400, 1)];
    let resumed = |counted| Counted { is_resumed: true, ..counted };
    let batches_of_ten = |counted: Counted| Counted { job: Job { batch_events: Some(10), ..counted.job }, ..counted };
    vec![
        counted("Lua balances, SQLite", Lua, BALANCES, Sqlite, short),
        counted("Lua balances, Postgres", Lua, BALANCES, Postgres, short),
        counted("Lua + row, SQLite", Lua, ROWS, Sqlite, short),
        counted("Lua + row, Postgres", Lua, ROWS, Postgres, short),
        counted("Rust balances, SQLite", Rust, BALANCES, Sqlite, short),
        counted("Rust balances, Postgres", Rust, BALANCES, Postgres, short),
        counted("Rust + row, SQLite", Rust, ROWS, Sqlite, short),
        counted("Rust + row, Postgres", Rust, ROWS, Postgres, short),
        resumed(counted("Lua + row, SQLite, resumed", Lua, ROWS, Sqlite, [chain(1600, 2), chain(4800, 2)])),
        resumed(counted("Rust + row, SQLite, resumed", Rust, ROWS, Sqlite, [chain(1600, 2), chain(4800, 2)])),
        counted("Lua balances, a region an event, SQLite", Lua, BALANCES, Sqlite, [regions(250, 1), regions(750, 1)]),
        resumed(counted(
            "Lua balances, a region an event, Postgres, resumed",
            Lua,
            BALANCES,
            Postgres,
            [regions(500, 2), regions(1500, 2)],
        )),
        counted("Lua, 64 columns, update, SQLite", Lua, Keeps::Updates(64), Sqlite, [wide(250, 50), wide(750, 50)]),
        counted("Lua, 64 columns, insert, SQLite", Lua, Keeps::Inserts(64), Sqlite, [wide(250, 250), wide(750, 750)]),
        counted("Lua balances, events of 3 KB, SQLite", Lua, BALANCES, Sqlite, LONG),
        counted("Rust balances, events of 3 KB, SQLite", Rust, BALANCES, Sqlite, LONG),
        batches_of_ten(counted("Lua balances, batches of 10, SQLite", Lua, BALANCES, Sqlite, short)),
    ]
}

const LONG: [Events; 2] = [Events::Long { transfers: 300 }, Events::Long { transfers: 900 }];

impl Counted {
    /// Instructions of one event more.
    fn count(&self, place: &Place) -> f64 {
        let [few, many] = self.events.map(|events| (self.events_counted(events), self.instructions(place, events)));
        ((many.1 - few.1) / (many.0 - few.0)).round()
    }

    fn events_counted(&self, events: Events) -> f64 {
        events.count() as f64 / if self.is_resumed { 2.0 } else { 1.0 }
    }

    /// Instructions of a whole process. Its result is compared.
    fn instructions(&self, place: &Place, events: Events) -> f64 {
        let files = place.events(&events);
        let made = place.store(self.stores);
        let mut source = files[0].clone();
        if self.is_resumed {
            place.run(&self.job, &[], &files[0], &made);
            source = files[0].parent().unwrap().into();
        }
        let out = place.dir.path().join(format!("{}.callgrind", place.number()));
        place.run(&self.job, &wrapper(&out), &source, &made);
        place.check(&self.job, &files, &made);
        place.discard(made);
        let text = std::fs::read_to_string(&out).unwrap();
        std::fs::remove_file(out).unwrap();
        text.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap().trim().parse().unwrap()
    }
}

/// What makes the count of a process the same everywhere: no code that only some processors have, two processors, memory
/// that is given back at no time of its own. valgrind shows no processor that can do more than AVX2.
fn wrapper(out: &Path) -> Vec<OsString> {
    let tunables = "GLIBC_TUNABLES=glibc.cpu.x86_non_temporal_threshold=0xc0000:glibc.cpu.x86_rep_movsb_threshold=0x800:\
                    glibc.malloc.arena_max=2:glibc.malloc.trim_threshold=0x40000000:glibc.malloc.mmap_threshold=0x40000000";
    let allocator = "MALLOC_CONF=narenas:2,dirty_decay_ms:-1,muzzy_decay_ms:-1";
    let mut words: Vec<OsString> = ["env", tunables, allocator].map(OsString::from).into();
    words.extend(["taskset", "-c", &two_processors(), "valgrind", "--tool=callgrind", "--quiet"].map(OsString::from));
    words.push(format!("--callgrind-out-file={}", out.display()).into());
    words
}

/// The first two of the processors that this process may use.
fn two_processors() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
    let ranges = list.split(',').map(|range| range.split_once('-').unwrap_or((range, range)));
    let each = ranges.flat_map(|(first, last)| first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap());
    each.take(2).map(|at| at.to_string()).collect::<Vec<_>>().join(",")
}

/// The first line that a program says of itself.
fn version(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("none").trim().to_owned()
}

/// What the numbers depend on besides the source. Where it differs from what they were written down with, they only warn.
fn made_with() -> BTreeMap<String, String> {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has_avx2 =
        flags.lines().any(|line| line.starts_with("flags") && line.split_whitespace().any(|flag| flag == "avx2"));
    let processors = two_processors().split(',').count();
    let mut overrides: Vec<String> = std::env::vars()
        .filter(|(name, _)| name.starts_with("CARGO_PROFILE_") || name == "RUSTFLAGS")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    overrides.sort();
    let folder = Path::new(env!("CARGO_BIN_EXE_forebay")).parent().and_then(Path::file_name);
    let profile = folder.unwrap_or_default().to_string_lossy().into_owned();
    let allocator = if cfg!(feature = "jemalloc") { "jemalloc" } else { "that of the system" };
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown");
    [
        ("rustc", version("rustc", "-V")),
        ("cc", version("cc", "--version")),
        ("valgrind", version("valgrind", "--version")),
        ("system", system.trim_matches('"').to_owned()),
        (
            "processors",
            format!("{processors} of {}{}", std::env::consts::ARCH, if has_avx2 { " with AVX2" } else { "" }),
        ),
        ("profile", std::iter::once(profile).chain(overrides).collect::<Vec<_>>().join(" ")),
        ("allocator", allocator.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn numbers_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json")
}

fn recorded() -> Json {
    let text = std::fs::read_to_string(numbers_file()).ok();
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// A row, the number that is written down, and the least that was counted.
struct Found {
    row: Counted,
    before: Option<f64>,
    counts: Vec<f64>,
}

impl Found {
    fn least(&self) -> f64 {
        self.counts.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Prints it, as soon as it is known.
    fn tell(&self, repeats: usize) {
        let against = self.before.map(|before| ("written down", before));
        table::print_row(self.row.name, self.least(), "an event", against);
        if repeats > 1 {
            let most = self.counts.iter().copied().fold(0.0, f64::max);
            println!("  {repeats} counts lie {:.2} % apart", (most / self.least() - 1.0) * 100.0);
        }
    }

    /// The share by which it costs more than is written down.
    fn more(&self) -> f64 {
        self.before.map_or(0.0, |before| self.least() / before - 1.0)
    }
}

/// Counts all rows, two at a time: valgrind runs one thread of a process at a time.
fn count_all(place: impl Fn() -> Place + Sync, rows: Vec<Counted>, recorded: &Json, repeats: usize) -> Vec<Found> {
    let (waiting, found) = (Mutex::new(VecDeque::from(rows)), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let place = place();
                loop {
                    let Some(row) = waiting.lock().unwrap().pop_front() else { return };
                    let before = recorded["instructions"][row.name].as_f64();
                    let mut one = Found { row, before, counts: Vec::new() };
                    while one.counts.len() < repeats || (one.more() > SLACK && one.counts.len() < TRIES) {
                        one.counts.push(row.count(&place));
                    }
                    one.tell(repeats);
                    found.lock().unwrap().push(one);
                }
            });
        }
    });
    found.into_inner().unwrap()
}

fn main() -> ExitCode {
    if jobs::is_child() {
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("instructions: valgrind is not there; `tests/setup.sh instructions` installs it on Debian");
        return ExitCode::FAILURE;
    }
    let begun = std::time::Instant::now();
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_chosen = |row: &Counted| chosen.is_empty() || chosen.iter().any(|word| row.name.contains(word));
    let order: Vec<Counted> = rows().into_iter().filter(is_chosen).collect();
    let repeats = std::env::var("FOREBAY_REPEAT").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let recorded = recorded();
    table::print_head("instructions");
    let mut found = count_all(Place::new, order.clone(), &recorded, repeats);
    found.sort_by_key(|one| order.iter().position(|row| row.name == one.row.name));
    let mut table = Table::silent("instructions");
    for one in &found {
        let row = Row::new(format!("{}, instructions", one.row.name), one.least(), "an event");
        table.note(match one.before {
            Some(before) => row.against("written down", before),
            None => row,
        });
    }
    table.save();
    println!("counted in {:.0} s", begun.elapsed().as_secs_f64());
    if std::env::var_os("FOREBAY_BLESS").is_some() {
        write_down(&found, recorded);
        return ExitCode::SUCCESS;
    }
    judge(&found, &recorded)
}

/// Puts the numbers in the place of those that are written down.
fn write_down(found: &[Found], recorded: Json) {
    let mut all = if recorded["made with"] == json!(made_with()) { recorded } else { json!({}) };
    all["made with"] = json!(made_with());
    for one in found {
        all["instructions"][one.row.name] = json!(one.least());
    }
    std::fs::write(numbers_file(), format!("{all:#}\n")).unwrap();
    println!("written to {}", numbers_file().display());
}

/// Fails where an event costs more than is written down.
fn judge(found: &[Found], recorded: &Json) -> ExitCode {
    let renew = "FOREBAY_BLESS=1 make instructions";
    let (mut slower, mut is_stale) = (0, false);
    for one in found {
        let percent = one.more() * 100.0;
        match one.before {
            None => {
                eprintln!("instructions: {} is not written down; `{renew}` does that", one.row.name);
                is_stale = true;
            }
            Some(before) if one.more() > SLACK => {
                let (name, least) = (one.row.name, one.least());
                eprintln!(
                    "instructions: {name} costs {percent:.1} % more: {least} an event, {before} are written down"
                );
                slower += 1;
            }
            Some(_) if one.more() < -SLACK => {
                eprintln!("instructions: {} costs {:.1} % less; `{renew}` keeps the gain", one.row.name, -percent);
            }
            Some(_) => {}
        }
    }
    let here = made_with();
    let differs: Vec<String> = here
        .iter()
        .filter(|(name, value)| recorded["made with"][name.as_str()].as_str() != Some(value))
        .map(|(name, value)| format!("{name}: {value}, not {}", recorded["made with"][name.as_str()]))
        .collect();
    if !differs.is_empty() {
        eprintln!(
            "instructions: the numbers were made with something else, so they are no judge here: {}",
            differs.join("; ")
        );
        return ExitCode::SUCCESS;
    }
    match (slower, is_stale) {
        (0, false) => ExitCode::SUCCESS,
        (0, true) => ExitCode::FAILURE,
        _ => {
            eprintln!(
                "instructions: what costs more on purpose is written down by `{renew}`, with the reason in the commit"
            );
            ExitCode::FAILURE
        }
    }
}
