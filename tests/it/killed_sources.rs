//! Runs over each kind of source that are killed again and again: the end is that of a run that nobody disturbed.

use std::time::Duration;

use crate::both_stores;
use crate::support::dice::Dice;
use crate::support::project::Project;
use crate::support::redis_server::Redis;

/// Kills of each source, unless `FOREBAY_SOAK` says how many.
const KILLS: u32 = 12;

const SCRIPT: &str = r#"
function on_event(event, ctx)
  ctx.seen:add(event.k, { events = 1, places = event.n })
end
"#;

/// Blocks of events, and events of each.
const BLOCKS: i64 = 1500;
const A_BLOCK: i64 = 3;

/// A pipeline that counts the events of a source.
fn project(source: &str) -> Project {
    let pipeline = format!(
        r#"
name = "count"
[source]
{source}
[source.fields]
n = "bigint"
[entities.seen]
columns = {{ events = "bigint", places = "bigint" }}
[handlers]
script = "handlers.lua"
[batch]
events = 20
[store]
url = "sqlite:count.db"
"#
    );
    Project::with(&pipeline, SCRIPT, "")
}

/// All events as JSON, in order.
pub fn events() -> Vec<String> {
    let places = (1..=BLOCKS).flat_map(|block| (1..=A_BLOCK).map(move |place| (block, place)));
    let json = |(block, n): (i64, i64)| {
        let position = (block - 1) * A_BLOCK + n;
        format!("{{\"block\":{block},\"n\":{n},\"at\":{position},\"k\":\"{}\",\"region\":\"r\"}}", block % 50)
    };
    places.map(json).collect()
}

/// A line that says that the last block is whole.
pub fn heartbeat() -> String {
    format!("{{\"block\":{BLOCKS}}}")
}

/// Writes the events as files of all kinds.
fn write_files(project: &Project) {
    let lines: Vec<String> = events().into_iter().map(|event| event + "\n").collect();
    std::fs::create_dir(project.path("in")).expect("a folder");
    let half = lines.len() / 2;
    project.write("in/a.ndjson", lines[..half].concat());
    project.write("in/b.ndjson", lines[half..].concat() + &heartbeat() + "\n");
    project.write("log", lines.concat());
    let record = |(block, n): (i64, i64)| format!("{block},{n},\"{}\",\"r\"\n", block % 50);
    let records = (1..=BLOCKS).flat_map(|block| (1..=A_BLOCK).map(move |n| record((block, n))));
    project.write("log.csv", "block,n,k,region\n".to_owned() + &records.collect::<String>());
    // It gives so many events at a time, and fails unless they are the last ones.
    let program = "tail -n \"+$((${1:-0} + 1))\" log | head -n \"$2\"; [ \"$((${1:-0} + $2))\" -ge 4500 ]";
    project.write("program.sh", program);
}

fn seen(project: &Project) -> Vec<Vec<String>> {
    project.query("count.db", "SELECT id, events, places FROM seen ORDER BY CAST(id AS INTEGER)")
}

/// What everything comes to.
fn expected() -> Vec<Vec<String>> {
    let blocks = BLOCKS / 50;
    let row = |k: i64| {
        vec![k.to_string(), (blocks * A_BLOCK).to_string(), (blocks * A_BLOCK * (A_BLOCK + 1) / 2).to_string()]
    };
    (0..50).map(row).collect()
}

fn kills() -> u32 {
    std::env::var("FOREBAY_SOAK").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS)
}

/// Kills runs over a source at moments of chance, then lets one come to its end. `before` prepares each run: it is given
/// dice, and whether that is the last one.
pub fn survives(name: &str, project: &Project, more: &[&str], mut before: impl FnMut(&mut Dice, bool)) {
    let args = [&["run", "pipeline.toml"], more].concat();
    let mut dice = Dice(name.len() as u64);
    for _ in 0..kills() {
        before(&mut dice, false);
        let mut child = project.command(&args).spawn().expect("the binary starts");
        std::thread::park_timeout(Duration::from_millis(10 + dice.below(120)));
        child.kill().expect("it is there");
        child.wait().expect("it ends");
    }
    before(&mut dice, true);
    project.forebay(&args).ok();
    assert_eq!(seen(project), expected(), "{name}");
    let outcome = project.forebay(&args).ok();
    assert!(!outcome.stderr().contains("WARN") || name.contains("program"), "{name} {outcome}");
    assert_eq!(seen(project), expected(), "{name}, once more");
}

/// A log that grows by so many events between kills: some are there at first, all are there in the end.
pub fn survives_growing(name: &str, source: &str, mut append: impl FnMut(&[String])) {
    let all: Vec<String> = events().into_iter().chain([heartbeat()]).collect();
    let project = project(source);
    let (mut rest, len_max) = (&all[..], 2 * all.len() as u64 / u64::from(kills()));
    survives(name, &project, &["--follow", "--until", "1500"], |dice, is_last| {
        let len = if is_last { rest.len() } else { (dice.below(len_max + 1) as usize).min(rest.len()) };
        let (some, left) = rest.split_at(len);
        append(some);
        rest = left;
    });
}

/// Each kind of source, with its keys and options.
const SOURCES: [(&str, &str, &[&str]); 5] = [
    ("files", "path = \"in\"", &[]),
    ("followed files", "path = \"in\"\nfollow = true", &["--until", "1500"]),
    ("csv", "path = \"log.csv\"\nformat = \"csv\"", &[]),
    (
        "program with positions",
        "command = [\"sh\", \"program.sh\", \"{position}\", \"900\"]\nposition = \"at\"\nrestart = \"1ms\"",
        &[],
    ),
    ("program", "command = [\"cat\", \"log\"]", &[]),
];

both_stores! {
    fn each_source_survives_kills() {
        for (name, source, more) in SOURCES {
            let project = project(source);
            write_files(&project);
            survives(name, &project, more, |_, _| {});
        }
    }

    fn a_redis_stream_survives_kills() {
        let server = Redis::start(&[]);
        let mut connection = server.connection();
        let (mut ids, mut id) = (Dice(7), (1_u64, 0_u64));
        let source = format!("redis = \"{}\"\nstream = \"events\"\nfield = \"data\"", server.url());
        survives_growing("redis stream", &source, |events| {
            let mut pipe = redis::pipe();
            for event in events {
                // Several have one time.
                id = if ids.below(3) == 0 { (id.0 + 1 + ids.below(50), 0) } else { (id.0, id.1 + 1 + ids.below(9)) };
                pipe.cmd("XADD").arg("events").arg(format!("{}-{}", id.0, id.1)).arg("data").arg(event).ignore();
            }
            if !events.is_empty() {
                pipe.query::<()>(&mut connection).expect("entries");
            }
        });
    }
}
