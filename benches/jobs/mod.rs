//! The jobs that benches measure: handlers in Lua and in Rust over a chain of transfers, and wide rows; where their events,
//! stores and results are; and whether a result is right.

#![allow(dead_code, reason = "each bench uses a part")]

#[path = "../../examples/erc20/chain.rs"]
pub mod chain;
#[path = "../../examples/erc20/handlers.rs"]
mod handlers;
#[path = "../../tests/it/support/postgres_proxy.rs"]
pub mod proxy;
#[path = "../../tests/it/support/postgres_server.rs"]
pub mod server;

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use chain::{Chain, address};
use forebay::Pipeline;
use forebay::config::BatchConfig;
use forebay::source::Fields;
use handlers::Erc20;
use serde_json::{Value as Json, json};
use server::Server;

/// Set in a process that runs Rust handlers.
const CHILD: &str = "FOREBAY_BENCH_CHILD";

/// Columns of rows that are wide: as many numbers as texts of 42 bytes.
const WIDE_TEXT: &str = "0x5aeda56215b167893e80b4fe645ba6d5bab767de";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handlers {
    Lua,
    Rust,
}

/// What handlers keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeps {
    /// The balance of each account.
    Balances,
    /// That, and a row for each transfer.
    Rows,
    /// A row of so many columns, which each event reads and writes again. In Lua only.
    Updates(usize),
    /// A row of so many columns for each event. In Lua only.
    Inserts(usize),
}

/// Handlers, and how they are run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Job {
    pub handlers: Handlers,
    pub keeps: Keeps,
    /// `batch.events`, if it is not the default.
    pub batch_events: Option<u64>,
    /// MiB of `batch.memory`, if it is not the default.
    pub memory_mib: Option<u64>,
    /// Whether each batch commits before the next one is handled.
    pub is_serial: bool,
}

impl Job {
    pub const fn new(handlers: Handlers, keeps: Keeps) -> Self {
        Self { handlers, keeps, batch_events: None, memory_mib: None, is_serial: false }
    }

    pub fn name(&self) -> String {
        let handlers = if self.handlers == Handlers::Lua { "Lua" } else { "Rust" };
        match self.keeps {
            Keeps::Balances => format!("{handlers} balances"),
            Keeps::Rows => format!("{handlers} + row"),
            Keeps::Updates(columns) => format!("{handlers}, {columns} columns, update"),
            Keeps::Inserts(columns) => format!("{handlers}, {columns} columns, insert"),
        }
    }

    /// The name of the pipeline: its schema in Postgres.
    fn pipeline(&self) -> &'static str {
        match (self.handlers, self.keeps) {
            (Handlers::Rust, _) => "erc20",
            (Handlers::Lua, Keeps::Balances) => "balances",
            (Handlers::Lua, Keeps::Rows) => "transfers",
            (Handlers::Lua, Keeps::Updates(_) | Keeps::Inserts(_)) => "wide",
        }
    }

    /// What `peers/state.py` calls it.
    fn kind(&self) -> String {
        match self.keeps {
            Keeps::Balances => "balances".into(),
            Keeps::Rows => "rows".into(),
            Keeps::Updates(columns) | Keeps::Inserts(columns) => format!("wide{columns}"),
        }
    }

    /// For each table the columns that tell its state.
    fn state(&self) -> Vec<(&'static str, Vec<String>)> {
        let columns = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let account = ("account", columns(&["region", "id", "balance"]));
        match self.keeps {
            Keeps::Balances => vec![account],
            Keeps::Rows => {
                vec![account, ("transfer", columns(&["region", "id", "from_account", "to_account", "value"]))]
            }
            Keeps::Updates(all) | Keeps::Inserts(all) => {
                let numbers: Vec<String> = (1..=all / 2).map(|at| format!("n{at}")).collect();
                let mut columns: Vec<String> = columns(&["region", "id"]);
                columns.extend([numbers.join(" + "), format!("s{}", all / 2)]);
                vec![("wide", columns)]
            }
        }
    }

    /// A program and its arguments.
    fn command(&self, place: &Place, source: &str, store: &str) -> (PathBuf, Vec<OsString>) {
        match self.handlers {
            Handlers::Lua => {
                let file = place.pipeline_file(self);
                let mut arguments: Vec<OsString> = ["run".into(), file.into()].into();
                arguments.extend(["--json", "--store", store, "--source", source].map(OsString::from));
                if self.is_serial {
                    arguments.push("--serial".into());
                }
                (env!("CARGO_BIN_EXE_forebay").into(), arguments)
            }
            Handlers::Rust => {
                let plan = json!({
                    "source": source, "store": store, "rows": self.keeps == Keeps::Rows, "serial": self.is_serial,
                    "events": self.batch_events, "memory_mib": self.memory_mib,
                });
                (std::env::current_exe().unwrap(), vec![plan.to_string().into()])
            }
        }
    }
}

/// Runs Rust handlers, if this process was started for that.
pub fn is_child() -> bool {
    if std::env::var_os(CHILD).is_none() {
        return false;
    }
    let plan: Json = serde_json::from_str(&std::env::args().nth(1).unwrap()).unwrap();
    let text = |key: &str| plan[key].as_str().unwrap();
    let fields = Fields::default().with_region("token").unwrap().with_seq("log_index").unwrap();
    let mut batch = BatchConfig::default();
    if let Some(events) = plan["events"].as_u64() {
        batch = batch.with_events(events).unwrap();
    }
    if let Some(mib) = plan["memory_mib"].as_u64() {
        batch = batch.with_memory_bytes(mib << 20).unwrap();
    }
    let pipeline = Pipeline::new("erc20", Erc20 { keeps_transfers: plan["rows"] == true }).unwrap();
    let pipeline = pipeline.source_path(text("source")).fields(fields).store_url(text("store")).unwrap();
    let report = pipeline.batch(batch).serial(plan["serial"] == true).run().unwrap();
    let overlap = json!({ "efficiency": report.efficiency() });
    let report = json!({
        "events": report.events, "batches": report.batches, "loads": report.loads, "overlap": overlap,
        "memory_peak_bytes": report.memory_peak_bytes,
    });
    println!("{report}");
    true
}

/// Where a job stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stores {
    Sqlite,
    Postgres,
    /// A Postgres so many milliseconds away.
    Distant(u64),
}

impl Stores {
    pub fn name(self) -> String {
        match self {
            Self::Sqlite => "SQLite".into(),
            Self::Postgres => "Postgres".into(),
            Self::Distant(millis) => format!("Postgres {millis} ms away"),
        }
    }
}

/// A store that was made for one run.
pub struct Made {
    pub url: String,
    what: What,
}

enum What {
    File(PathBuf),
    Database(String, Option<proxy::Proxy>),
}

impl Made {
    /// Round trips to the database so far, where they are counted.
    pub fn steps(&self) -> u64 {
        match &self.what {
            What::Database(_, Some(proxy)) => proxy.steps(),
            _ => 0,
        }
    }

    /// The file of SQLite.
    pub fn file(&self) -> &Path {
        match &self.what {
            What::File(file) => file,
            What::Database(..) => Path::new(""),
        }
    }
}

/// What a process took.
#[derive(Debug, Clone, Default)]
pub struct Took {
    pub seconds: f64,
    /// Seconds of processors, of the process alone.
    pub processors: f64,
    pub memory_mib: f64,
    pub report: Json,
}

/// Where events lie, and stores are made.
pub struct Place {
    pub dir: tempfile::TempDir,
    server: OnceCell<Server>,
    made: RefCell<u32>,
    /// The states that must come of events, as they were computed.
    states: RefCell<HashMap<String, String>>,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { dir, server: OnceCell::new(), made: RefCell::new(0), states: RefCell::default() }
    }

    /// A private server with the defaults of PostgreSQL.
    pub fn server(&self) -> &Server {
        self.server.get_or_init(|| Server::start("-c fsync=on -c full_page_writes=on -c shared_buffers=128MB"))
    }

    /// A number that nothing has yet.
    pub fn number(&self) -> u32 {
        *self.made.borrow_mut() += 1;
        *self.made.borrow()
    }

    pub fn store(&self, stores: Stores) -> Made {
        let file = self.dir.path().join(format!("{}.db", self.number()));
        let server = || self.server();
        match stores {
            Stores::Sqlite => Made { url: format!("sqlite:{}", file.display()), what: What::File(file) },
            Stores::Postgres => {
                let database = server().make_database();
                Made { url: server().url(&database), what: What::Database(database, None) }
            }
            Stores::Distant(millis) => {
                let database = server().make_database();
                let proxy = proxy::Proxy::start(server().port);
                proxy.set_latency(Duration::from_millis(millis));
                let url = format!("postgres://forebay@127.0.0.1:{}/{database}?sslmode=disable", proxy.port);
                Made { url, what: What::Database(database, Some(proxy)) }
            }
        }
    }

    /// Lets a store go.
    pub fn discard(&self, made: Made) {
        match made.what {
            What::File(file) => {
                for ending in ["", "-wal", "-shm", ".lock"] {
                    let _ = std::fs::remove_file(format!("{}{ending}", file.display()));
                }
            }
            What::Database(database, _) => {
                self.server().execute("postgres", &format!("DROP DATABASE \"{database}\" WITH (FORCE)"));
            }
        }
    }

    /// What is written before is on the disk, so that no run pays for another one.
    pub fn settle(&self) {
        let _ = Command::new("sync").status();
        if let Some(server) = self.server.get() {
            server.execute("postgres", "CHECKPOINT");
        }
    }

    /// Events, if they are not there yet: a folder with one file for each part.
    pub fn events(&self, events: &Events) -> Vec<PathBuf> {
        let name = format!("{events:?}").replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let dir = self.dir.path().join(name);
        let files: Vec<PathBuf> = (0..events.parts()).map(|part| dir.join(format!("{part}.ndjson"))).collect();
        if !dir.exists() {
            std::fs::create_dir(&dir).unwrap();
            for (part, file) in files.iter().enumerate() {
                let mut out = BufWriter::new(File::create(file).unwrap());
                events.write(part as u64, &mut out).unwrap();
                out.flush().unwrap();
            }
        }
        files
    }

    fn pipeline_file(&self, job: &Job) -> PathBuf {
        let number = self.number();
        let file = self.dir.path().join(format!("{number}.toml"));
        let here = format!("{}/examples/erc20", env!("CARGO_MANIFEST_DIR"));
        let mut text = match job.keeps {
            Keeps::Balances | Keeps::Rows => {
                let text = std::fs::read_to_string(format!("{here}/{}.toml", job.pipeline())).unwrap();
                text.replace("script = \"", &format!("script = \"{here}/"))
            }
            Keeps::Updates(columns) | Keeps::Inserts(columns) => {
                let script = format!("{number}.lua");
                std::fs::write(self.dir.path().join(&script), wide_script(job.keeps)).unwrap();
                wide_pipeline(columns, &script)
            }
        };
        text.push_str("\n[batch]\n");
        if let Some(events) = job.batch_events {
            writeln!(text, "events = {events}").unwrap();
        }
        if let Some(mib) = job.memory_mib {
            writeln!(text, "memory = \"{mib}MiB\"").unwrap();
        }
        std::fs::write(&file, text).unwrap();
        file
    }

    /// Runs a job as a process of its own, under a `wrapper` if there is one.
    pub fn run(&self, job: &Job, wrapper: &[OsString], source: &Path, made: &Made) -> Took {
        let (program, arguments) = job.command(self, source.to_str().unwrap(), &made.url);
        let mut all: Vec<OsString> = wrapper.to_vec();
        all.push(program.into());
        all.extend(arguments);
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).env(CHILD, "yes").env_remove("DATABASE_URL").env_remove("REDIS_URL");
        timed(&mut command)
    }

    /// Compares what is stored with what `peers/state.py` makes of the same events.
    pub fn check(&self, job: &Job, files: &[PathBuf], made: &Made) {
        let found = match &made.what {
            What::File(file) => {
                let query = |(table, columns): (&str, Vec<String>)| {
                    format!("SELECT {} FROM {table} ORDER BY region, id", columns.join(", ")).into()
                };
                let queries = job.state().into_iter().map(query);
                state_of([OsString::from("sqlite"), file.into()].into_iter().chain(queries))
            }
            What::Database(database, _) => {
                let mut client = self.server().client(database);
                let digests = job.state().into_iter().map(|(table, columns)| {
                    let row = format!("concat_ws('|', {})", columns.join(", "));
                    let order = "region COLLATE \"C\", id COLLATE \"C\"";
                    let sql = format!(
                        "SELECT md5(string_agg({row}, chr(10) ORDER BY {order})) FROM \"{}\".{table}",
                        job.pipeline()
                    );
                    client.query_one(&sql, &[]).unwrap().get::<_, String>(0) + "\n"
                });
                digests.collect()
            }
        };
        assert_eq!(found, self.state(&job.kind(), files), "{} into {} is wrong", job.name(), made.url);
    }

    /// The state that must come of events: the MD5 of each table.
    pub fn state(&self, kind: &str, files: &[PathBuf]) -> String {
        let key = format!("{kind} {files:?}");
        if let Some(known) = self.states.borrow().get(&key) {
            return known.clone();
        }
        let state = state_of(["events".into(), kind.into()].into_iter().chain(files.iter().map(OsString::from)));
        self.states.borrow_mut().insert(key, state.clone());
        state
    }
}

/// Runs a command to its end.
pub fn timed(command: &mut Command) -> Took {
    let before = processors_of_children();
    let begun = Instant::now();
    let output = command.output().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let report: Json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let memory_mib = report["memory_peak_bytes"].as_f64().unwrap_or(0.0) / f64::from(1 << 20);
    Took { seconds, processors: processors_of_children() - before, memory_mib, report }
}

/// Seconds of processors that children have used that have ended, to a hundredth.
fn processors_of_children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |at: usize| behind_name.split_whitespace().nth(at).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    (ticks(13) + ticks(14)) / 100.0
}

/// Where a program of `peers/` is.
pub fn peer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(name)
}

fn state_of(arguments: impl Iterator<Item = OsString>) -> String {
    let output = Command::new("python3").arg(peer("state.py")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What events are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Events {
    /// A chain, in parts of as many transfers.
    Chain { transfers: u64, accounts: u64, tokens: u64, parts: u64 },
    /// A chain whose events have 100 fields more, 3 KB in all.
    Long { transfers: u64 },
    /// Transfers between two accounts of a token each, token after token.
    Turns { transfers: u64, tokens: u64, parts: u64 },
    /// What wide rows are made of: so many rows in turn.
    Wide { events: u64, rows: u64 },
}

impl Events {
    pub const fn chain(transfers: u64) -> Self {
        Self::Chain { transfers, accounts: 10_000, tokens: 1, parts: 1 }
    }

    /// All events.
    pub fn count(self) -> u64 {
        match self {
            Self::Chain { transfers, .. } | Self::Long { transfers } | Self::Turns { transfers, .. } => transfers,
            Self::Wide { events, .. } => events,
        }
    }

    pub fn parts(self) -> u64 {
        match self {
            Self::Chain { parts, .. } | Self::Turns { parts, .. } => parts,
            Self::Long { .. } | Self::Wide { .. } => 1,
        }
    }

    fn write(self, part: u64, out: &mut impl Write) -> std::io::Result<()> {
        let share = self.count() / self.parts();
        let range = part * share..(part + 1) * share;
        match self {
            Self::Chain { transfers, accounts, tokens, .. } => {
                let chain = Chain { transfers, accounts, tokens, ..Chain::default() };
                write_transfers(chain, range, "", None, out)
            }
            Self::Long { transfers } => {
                let more: String = (0..100).map(|at| format!(",\"field_{at:02}\":\"{:015}\"", at * 7)).collect();
                write_transfers(Chain { transfers, ..Chain::default() }, range, &more, None, out)
            }
            Self::Turns { transfers, tokens, .. } => {
                write_transfers(Chain { transfers, accounts: 2, ..Chain::default() }, range, "", Some(tokens), out)
            }
            Self::Wide { rows, .. } => range.into_iter().try_for_each(|number| {
                let (block, log_index) = (number / 10 + 1, number % 10);
                let id = address("row", number % rows);
                writeln!(
                    out,
                    "{{\"block\":{block},\"log_index\":{log_index},\"token\":\"t\",\"id\":\"{id}\",\"v\":{},\"s\":\"{WIDE_TEXT}\"}}",
                    number * 1_000_003
                )
            }),
        }
    }
}

/// Writes some transfers of a chain, with `more` fields. In `turns` transfer after transfer is of the next token.
fn write_transfers(
    chain: Chain,
    range: Range<u64>,
    more: &str,
    turns: Option<u64>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let skipped = usize::try_from(range.start).unwrap();
    for (number, transfer) in range.zip(chain.each().skip(skipped)) {
        let (block, log_index) = (number / chain.a_block + 1, number % chain.a_block);
        let token = address("token", turns.map_or(transfer.token, |turns| number % turns));
        let (from, to, value) = (address("account", transfer.from), address("account", transfer.to), transfer.value);
        writeln!(
            out,
            "{{\"block\":{block},\"log_index\":{log_index},\"token\":\"{token}\"{more},\"from\":\"{from}\",\"to\":\"{to}\",\"value\":\"{value}\"}}"
        )?;
    }
    Ok(())
}

fn wide_pipeline(columns: usize, script: &str) -> String {
    let columns: Vec<String> = (1..=columns / 2).map(|at| format!("n{at} = \"bigint\", s{at} = \"text\"")).collect();
    format!(
        "name = \"wide\"\n[source]\npath = \"-\"\nregion = \"token\"\nseq = \"log_index\"\n[entities.wide]\n\
         columns = {{ {} }}\n[handlers]\nscript = \"{script}\"\n[snapshots]\nevery = \"end\"\n",
        columns.join(", ")
    )
}

fn wide_script(keeps: Keeps) -> String {
    let (columns, begins) = match keeps {
        Keeps::Updates(columns) => (columns, "ctx.wide:get(event.id) or {}"),
        Keeps::Inserts(columns) => (columns, "{}"),
        Keeps::Balances | Keeps::Rows => (0, "{}"),
    };
    let half = columns / 2;
    format!(
        "local numbers, texts = {{}}, {{}}\n\
         for at = 1, {half} do numbers[at], texts[at] = 'n' .. at, 's' .. at end\n\
         function on_event(event, ctx)\n\
           local row, v, s = {begins}, event.v, event.s\n\
           for at = 1, {half} do row[numbers[at]], row[texts[at]] = v + at, s end\n\
           ctx.wide:set(event.id, row)\n\
         end\n\
         function on_snapshot(ctx) return {{ rows = ctx.wide:count() }} end\n"
    )
}
