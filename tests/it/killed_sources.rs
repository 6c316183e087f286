//! Runs over each kind of source that are killed again and again: the end is that of a run that nobody disturbed.

use std::time::Duration;

use crate::both_stores;
use crate::support::project::Project;

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

/// Numbers that look as if drawn by chance.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

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
    let project = Project::with(&pipeline, SCRIPT, "");
    let events = || (1..=BLOCKS).flat_map(|block| (1..=A_BLOCK).map(move |place| (block, place)));
    let json = |(block, n): (i64, i64)| {
        let position = (block - 1) * A_BLOCK + n;
        format!("{{\"block\":{block},\"n\":{n},\"at\":{position},\"k\":\"{}\",\"region\":\"r\"}}\n", block % 50)
    };
    let lines: Vec<String> = events().map(json).collect();
    std::fs::create_dir(project.path("in")).expect("a folder");
    let half = lines.len() / 2;
    project.write("in/a.ndjson", lines[..half].concat());
    project.write("in/b.ndjson", lines[half..].concat() + &format!("{{\"block\":{BLOCKS}}}\n"));
    project.write("log", lines.concat());
    let record = |(block, n): (i64, i64)| format!("{block},{n},\"{}\",\"r\"\n", block % 50);
    project.write("log.csv", "block,n,k,region\n".to_owned() + &events().map(record).collect::<String>());
    // It gives so many events at a time, and fails unless they are the last ones.
    let program = "tail -n \"+$((${1:-0} + 1))\" log | head -n \"$2\"; [ \"$((${1:-0} + $2))\" -ge 4500 ]";
    project.write("program.sh", program);
    project
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

/// Kills runs at moments of chance, then lets one come to its end.
fn survives(name: &str, source: &str, more: &[&str]) {
    let kills = std::env::var("FOREBAY_SOAK").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let project = project(source);
    let args = [&["run", "pipeline.toml"], more].concat();
    let mut dice = Dice(name.len() as u64);
    for _ in 0..kills {
        let mut child = project.command(&args).spawn().expect("the binary starts");
        std::thread::park_timeout(Duration::from_millis(10 + dice.below(120)));
        child.kill().expect("it is there");
        child.wait().expect("it ends");
    }
    project.forebay(&args).ok();
    assert_eq!(seen(&project), expected(), "{name}");
    let outcome = project.forebay(&args).ok();
    assert!(!outcome.stderr().contains("WARN") || name.contains("program"), "{name} {outcome}");
    assert_eq!(seen(&project), expected(), "{name}, once more");
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
        SOURCES.iter().for_each(|(name, source, more)| survives(name, source, more));
    }
}
