//! Arguments as typed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use forebay::address::{AddressForm, one_of};
use forebay::publish::TargetUrl;
use forebay::source::Format;
use forebay::store::StoreUrl;

/// Index a stream of events into SQL tables, with a snapshot per region.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, max_term_width = 100, infer_long_args = false)]
#[command(after_help = super::exit::Code::help())]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Global {
    /// Print nothing but errors and results
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
    /// Print more of what happens; twice for all of it
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// How messages are written to stderr
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
    /// Whether to use colours
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(super) color: Color,
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// Whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Index from the checkpoint to the end of the source
    Run(Run),
    /// Bring the state back to what it was as of a block, and its snapshots with it
    Rollback(Rollback),
    /// Publish ready JSON documents to Redis, one for each region
    Publish(Publish),
    /// Run a program that computes a document for each region, under a lock, and publish what it writes
    Seed(Seed),
    /// Check configuration, handlers and the first events of the source; write nothing
    Check(Check),
    /// Look at servers, source and settings for what stands in the way of a run; change nothing
    Doctor(Doctor),
    /// Make a folder with a working pipeline to start from
    Init(Init),
    /// Show the newest snapshot of each region
    Latest(Latest),
    /// Show a region's snapshots, newest first
    History(History),
    /// Show the snapshot of an id
    Show(Show),
    /// Show checkpoint, lag and snapshots; exit 0 if all is well, 1 if something is stale, missing or another store's
    Status(Status),
    /// Show the events that were put aside, and what was wrong with them
    Quarantine(Quarantine),
    /// Print shell completions
    Completions(Completions),
    /// Write the man pages
    Man(Man),
}

/// `forebay run`
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// The pipeline file
    pub(super) pipeline: PathBuf,
    /// Read from here instead: a file, a folder, a pattern, or - for standard input
    #[arg(long, value_name = "PATH")]
    pub(super) source: Option<String>,
    /// How the source is read instead: ndjson, csv or json
    #[arg(long, value_name = "FORMAT", value_parser = Format::from_name)]
    pub(super) format: Option<Format>,
    #[arg(long, value_name = "URL", help = format!("Store here instead: {} [env: DATABASE_URL]", stores(full)))]
    pub(super) store: Option<String>,
    #[arg(long, value_name = "URL", help = format!(
        "Publish snapshots here too: {} [env: REDIS_URL, in place of the pipeline file's]", targets(brief)
    ))]
    pub(super) snapshots: Option<String>,
    /// Replace what another store has published there under this pipeline's name
    #[arg(long)]
    pub(super) take_over: bool,
    /// Stop after this block
    #[arg(long, value_name = "BLOCK", allow_negative_numbers = true)]
    pub(super) until: Option<i64>,
    /// Go on when the source is at its end: wait for more of its files
    #[arg(long)]
    pub(super) follow: bool,
    /// Index anew beside the present tables, which readers go on to use until the new ones take their place
    #[arg(long)]
    pub(super) fresh: bool,
    /// With --fresh: give up what was begun beside, and remove it
    #[arg(long, requires = "fresh", conflicts_with_all = ["follow", "until", "timeline", "trace"])]
    pub(super) abort: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Draw what each stage did and when, as SVG
    #[arg(long, value_name = "FILE")]
    pub(super) timeline: Option<PathBuf>,
    /// Write the same in the trace format of Chrome, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Option<PathBuf>,
    /// Commit each batch before the next is handled: to see what hiding commits saves
    #[arg(long)]
    pub(super) serial: bool,
    /// Run this command, by sh -c, for each region that was published: one at a time, with FOREBAY_REGION and others in its
    /// environment
    #[arg(long, value_name = "COMMAND")]
    pub(super) on_publish: Option<String>,
    /// How long one --on-publish command may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, requires = "on_publish")]
    pub(super) on_publish_timeout: Duration,
    #[cfg(feature = "serve")]
    #[command(flatten)]
    pub(super) server: Server,
    /// How long what is in flight may take after a stop
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(super) drain_timeout: Duration,
}

/// Where a run or a seeder is watched.
#[cfg(feature = "serve")]
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// Be watched here, over HTTP: probes, metrics, status and a page; HOST:PORT, such as 127.0.0.1:9464
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Option<String>,
    /// Whoever asks must have the token in this file: needed where other machines reach the address
    #[arg(long, value_name = "FILE", requires = "listen", conflicts_with = "listen_open")]
    pub(super) listen_token_file: Option<PathBuf>,
    /// Whoever reaches the address may ask
    #[arg(long, requires = "listen")]
    pub(super) listen_open: bool,
    /// For how long something may not have been well until /health says so
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration, requires = "listen")]
    pub(super) stall: Duration,
}

/// Where a pipeline's data are, for commands about a pipeline that has run.
#[derive(Debug, clap::Args)]
pub(super) struct Servers {
    #[arg(long, value_name = "URL", help = other_store())]
    pub(super) store: Option<String>,
    /// Where snapshots are published, if it is not where the pipeline file says
    /// [env: REDIS_URL, in place of the pipeline file's]
    #[arg(long, value_name = "URL")]
    pub(super) snapshots: Option<String>,
}

/// `forebay rollback`
#[derive(Debug, clap::Args)]
pub(super) struct Rollback {
    /// The pipeline file
    pub(super) pipeline: PathBuf,
    /// The block as of which the state is to be; it need not be one of the data
    #[arg(long, value_name = "BLOCK", allow_negative_numbers = true)]
    pub(super) to: i64,
    #[command(flatten)]
    pub(super) servers: Servers,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// `forebay publish`
#[derive(Debug, clap::Args)]
pub(super) struct Publish {
    /// Documents: a file, or - for standard input; one JSON object a line, or a JSON array
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(super) docs: Option<String>,
    /// Publish the newest snapshot of every region from the pipeline's store
    #[arg(long, requires = "config")]
    pub(super) all: bool,
    /// The store, if it is not the pipeline file's [env: DATABASE_URL]
    #[arg(long, value_name = "URL")]
    pub(super) store: Option<String>,
    #[command(flatten)]
    pub(super) how: Publishing,
    /// Regions that must be there: exit 3 if one is missing
    #[arg(long, value_name = "REGIONS", value_delimiter = ',')]
    pub(super) expect: Vec<String>,
    /// Publishing nothing was meant: exit 0, not 3, if there is no document
    #[arg(long)]
    pub(super) allow_empty: bool,
    /// With --all: replace what another store has published there under this name
    #[arg(long, requires = "all")]
    pub(super) take_over: bool,
    /// How long connecting may take, and how long Redis may be silent [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) timeout: Option<Duration>,
    /// Print one JSON object for each region, and one in the end
    #[arg(long)]
    pub(super) json: bool,
}

/// `forebay seed`
#[derive(Debug, clap::Args)]
pub(super) struct Seed {
    /// The program that gets the newest documents on its standard input and writes new ones to its standard output: one
    /// JSON object a line, or a JSON array
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
    #[command(flatten)]
    pub(super) how: Publishing,
    /// How long the lock lasts if nobody renews it [default: 15m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) lock: Option<Duration>,
    /// Exit 75, not 0, if another one has the lock
    #[arg(long)]
    pub(super) lock_fail: bool,
    /// How long the command may take [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) timeout: Option<Duration>,
    /// Do it again and again, so long after the last time began, over connections that stay
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "dry_run")]
    pub(super) every: Option<Duration>,
    #[cfg(feature = "serve")]
    #[command(flatten)]
    pub(super) server: Server,
    /// Run the command and show what would change; take no lock and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Regions that must be there: exit 3 if one is missing
    #[arg(long, value_name = "REGIONS", value_delimiter = ',')]
    pub(super) expect: Vec<String>,
    /// How long connecting may take, and how long Redis may be silent [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) redis_timeout: Option<Duration>,
    /// Print one JSON object for each region, and one in the end
    #[arg(long)]
    pub(super) json: bool,
}

/// Where and how documents are published.
#[derive(Debug, clap::Args)]
pub(super) struct Publishing {
    /// The pipeline's name, which the keys carry [default: default]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub(super) pipeline: Option<String>,
    #[arg(long, value_name = "URL", help = format!("Where to publish: {} [env: REDIS_URL]", targets(brief)))]
    pub(super) snapshots: Option<String>,
    /// Take name, place, keys and times from this file: name and [snapshots] are enough
    #[arg(long, value_name = "FILE.toml")]
    pub(super) config: Option<PathBuf>,
    /// The name of a key in Redis, such as latest=snapshot:<region>:latest; may be given several times
    #[arg(long, value_name = "NAME=TEMPLATE")]
    pub(super) key: Vec<String>,
    /// A field of the health key, such as fetchedAt=@now_ms; may be given several times
    #[arg(long, value_name = "FIELD=VALUE")]
    pub(super) health: Vec<String>,
    /// A field of the documents that stands in the summary too, such as regime=meta.regime; may be given several times
    #[arg(long, value_name = "NAME=FIELD")]
    pub(super) summary_field: Vec<String>,
    /// The field that holds a document's region [default: region]
    #[arg(long, value_name = "FIELD")]
    pub(super) region_field: Option<String>,
    /// The field that holds its id [default: none, <region>.<seq>.<hash>]
    #[arg(long, value_name = "FIELD")]
    pub(super) id_field: Option<String>,
    /// The field that holds its time: RFC 3339, or milliseconds or seconds since 1970 [default: none, now]
    #[arg(long, value_name = "FIELD")]
    pub(super) time_field: Option<String>,
    /// How long a document is kept [default: 90d]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) ttl: Option<Duration>,
    /// How long the same content counts as a duplicate; 0s for never [default: 15m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) dedup: Option<Duration>,
    /// Fields that do not count as a change
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    pub(super) dedup_ignore: Option<Vec<String>>,
    /// The only fields that count as a change
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    pub(super) dedup_by: Option<Vec<String>>,
    /// With --dedup-by: a document of another such span of time is no duplicate
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) dedup_bucket: Option<Duration>,
    /// Connections to Redis at most [default: 8]
    #[arg(long, value_name = "N")]
    pub(super) pool: Option<std::num::NonZero<usize>>,
    /// Run this command, by sh -c, for each region that was published, with FOREBAY_REGION and others in its environment
    #[arg(long, value_name = "COMMAND")]
    pub(super) on_publish: Option<String>,
    /// How long one --on-publish command may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, requires = "on_publish")]
    pub(super) on_publish_timeout: Duration,
}

/// `forebay check`
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The pipeline file
    pub(super) pipeline: PathBuf,
    /// Read from here instead: a file, a folder, a pattern, or - for standard input
    #[arg(long, value_name = "PATH")]
    pub(super) source: Option<String>,
    /// How the source is read instead: ndjson, csv or json
    #[arg(long, value_name = "FORMAT", value_parser = Format::from_name)]
    pub(super) format: Option<Format>,
}

/// `forebay doctor`
#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// The pipeline file, or one for those who only publish [default: none, the servers alone]
    pub(super) pipeline: Option<PathBuf>,
    #[command(flatten)]
    pub(super) servers: Servers,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// `forebay init`
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// The folder to make
    pub(super) dir: PathBuf,
}

/// Which snapshots to read.
#[derive(Debug, clap::Args)]
pub(super) struct SnapshotPlace {
    /// The pipeline's name; may be left out if the store holds only one
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub(super) pipeline: Option<String>,
    #[arg(long, value_name = "URL", help = format!(
        "Where the snapshots are: {} [env: REDIS_URL, DATABASE_URL]",
        one_of(TargetUrl::FORMS.iter().chain(&StoreUrl::FORMS).map(full))
    ))]
    pub(super) snapshots: Option<String>,
    /// Take name and place from this pipeline file
    #[arg(long, value_name = "PIPELINE.toml")]
    pub(super) config: Option<PathBuf>,
}

/// How to print snapshots.
#[derive(Debug, clap::Args)]
pub(super) struct Form {
    /// Print region, id, seq, block and time around each document
    #[arg(long)]
    pub(super) meta: bool,
    /// Print a table, also where stdout is not a terminal
    #[arg(long, conflicts_with = "json")]
    pub(super) table: bool,
    /// Print one JSON document a line, also on a terminal
    #[arg(long)]
    pub(super) json: bool,
}

/// `forebay latest`
#[derive(Debug, clap::Args)]
pub(super) struct Latest {
    /// The regions; all if none is given
    pub(super) regions: Vec<String>,
    #[command(flatten)]
    pub(super) place: SnapshotPlace,
    #[command(flatten)]
    pub(super) form: Form,
    /// Print one JSON object a region, in the order given, with region and doc; doc is null if it has none, and that is no
    /// error
    #[arg(long, conflicts_with_all = ["meta", "table", "json"])]
    pub(super) stream: bool,
}

/// `forebay history`
#[derive(Debug, clap::Args)]
pub(super) struct History {
    /// The region
    pub(super) region: String,
    /// How many at most
    #[arg(long, value_name = "N", default_value = "20")]
    pub(super) limit: std::num::NonZero<usize>,
    /// No older than this: a time (RFC 3339), or a duration ago such as 2h
    #[arg(long, value_name = "T")]
    pub(super) since: Option<String>,
    #[command(flatten)]
    pub(super) place: SnapshotPlace,
    #[command(flatten)]
    pub(super) form: Form,
}

/// `forebay show`
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// The snapshot's id
    pub(super) id: String,
    #[command(flatten)]
    pub(super) place: SnapshotPlace,
    #[command(flatten)]
    pub(super) form: Form,
}

/// `forebay status`
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// The pipeline file
    pub(super) pipeline: PathBuf,
    #[command(flatten)]
    pub(super) servers: Servers,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// `forebay quarantine`
#[derive(Debug, clap::Args)]
pub(super) struct Quarantine {
    /// The pipeline file
    pub(super) pipeline: PathBuf,
    #[arg(long, value_name = "URL", help = other_store())]
    pub(super) store: Option<String>,
    /// Print one JSON object a line, with the whole events
    #[arg(long)]
    pub(super) json: bool,
}

/// `forebay completions`
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell
    pub(super) shell: clap_complete::Shell,
}

/// `forebay man`
#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// The folder to write them to, one a command; it is made
    pub(super) dir: PathBuf,
}

fn full(form: &AddressForm) -> &'static str {
    form.full
}

fn brief(form: &AddressForm) -> &'static str {
    form.brief
}

/// The addresses that a store may have.
fn stores(form: fn(&AddressForm) -> &'static str) -> String {
    one_of(StoreUrl::FORMS.iter().map(form))
}

/// The addresses that snapshots may be published to.
fn targets(form: fn(&AddressForm) -> &'static str) -> String {
    one_of(TargetUrl::FORMS.iter().map(form))
}

fn other_store() -> String {
    format!("The store, if it is not the pipeline file's: {} [env: DATABASE_URL]", stores(brief))
}

fn duration(text: &str) -> Result<Duration, String> {
    forebay::config::parse_duration(text)
}
