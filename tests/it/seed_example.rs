//! `examples/seeder`: the example, run as it is written, and read as the readers of World Monitor read.

use serde_json::{Value as Json, json};

use crate::support::project::{Outcome, Project};
use crate::support::publishing::statuses;
use crate::support::redis_server::Redis;

const REGIONS: [&str; 8] =
    ["mena", "east-asia", "europe", "north-america", "south-asia", "latam", "sub-saharan-africa", "global"];

const HEALTH: &str = "seed-meta:intelligence:regional-snapshots";

/// A quarter of an hour, in milliseconds.
const SPAN: u64 = 900_000;

struct Job {
    project: Project,
    server: Redis,
}

impl Job {
    fn new() -> Self {
        let (project, server) = (Project::new(), Redis::start(&[]));
        for file in ["seed.toml", "compute.py", "inputs.ndjson"] {
            let from = format!("{}/examples/seeder/{file}", env!("CARGO_MANIFEST_DIR"));
            std::fs::copy(from, project.path(file)).expect("the example");
        }
        Self { project, server }
    }

    fn seed(&self, compute: &[&str]) -> Outcome {
        let url = self.server.url();
        let fixed = ["seed", "--config", "seed.toml", "--snapshots", &url, "--json", "--", "python3", "compute.py"];
        self.project.forebay(&[&fixed, compute].concat())
    }

    /// Seeds as of a time; the statuses of the regions.
    fn seed_at(&self, now: u64) -> Vec<String> {
        let (regions, _) = statuses(&self.seed(&["inputs.ndjson", &now.to_string()]).ok());
        assert_eq!(regions.iter().map(|(region, _)| region.as_str()).collect::<Vec<_>>(), REGIONS);
        regions.into_iter().map(|(_, status)| status).collect()
    }

    fn json(&self, key: &str) -> Json {
        serde_json::from_str(&self.server.ask::<String>(&["GET", key])).expect("JSON")
    }

    /// The newest document of a region: the id behind `latest`, the document behind the id.
    fn newest(&self, region: &str) -> Json {
        let id: String = self.server.ask(&["GET", &format!("intelligence:snapshot:v1:{region}:latest")]);
        self.json(&format!("intelligence:snapshot-by-id:v1:{id}"))
    }

    /// The ids of a region between two times.
    fn ids(&self, region: &str, from: u64, to: u64) -> Vec<String> {
        let index = format!("intelligence:snapshot-index:v1:{region}");
        self.server.ask(&["ZRANGEBYSCORE", &index, &from.to_string(), &to.to_string()])
    }
}

#[test]
fn world_monitors_readers_find_what_it_wrote() {
    let job = Job::new();
    let clock: u64 = job.server.ask::<(u64, u64)>(&["TIME"]).0 * 1000;
    let first = clock / SPAN * SPAN - 3 * SPAN;
    let _: String = job.server.ask(&["SET", "intelligence:snapshot:v1:mena:live", "cached"]);
    assert_eq!(job.seed_at(first), ["published"; 8]);
    for region in REGIONS {
        let document = job.newest(region);
        assert_eq!((&document["region_id"], &document["generated_at"]), (&json!(region), &json!(first)));
        assert_eq!(job.json(&format!("intelligence:snapshot:v1:{region}:{first}")), document);
        assert_eq!(job.ids(region, first, first), [document["meta"]["snapshot_id"].as_str().expect("an id")]);
        assert!(job.ids(region, 0, first - 1).is_empty());
    }
    assert_eq!(job.newest("mena")["regime"], json!({ "label": "escalation", "previous_label": "escalation" }));
    assert!(!job.server.ask::<bool>(&["EXISTS", "intelligence:snapshot:v1:mena:live"]));
    let health = job.json(HEALTH);
    assert!(health["fetchedAt"].as_u64().is_some_and(|at| at.abs_diff(clock) < 600_000), "{health}");
    assert_eq!(health["recordCount"], 8);
    let summary = job.json("intelligence:regional-snapshots:summary:v1");
    let mena = summary["regions"].as_array().expect("regions").iter().find(|one| one["region"] == "mena");
    let mena = mena.expect("mena");
    assert_eq!(
        [&mena["regime"], &mena["confidence"], &mena["trigger_reason"]],
        [&json!("escalation"), &json!(1.0), &json!("scheduled")]
    );
    // The same reason within the same quarter of an hour is no news, and no failure.
    let before: Vec<Json> = REGIONS.iter().map(|region| job.newest(region)).collect();
    assert_eq!(job.seed_at(first + SPAN - 1), ["duplicate"; 8]);
    assert_eq!(REGIONS.map(|region| job.newest(region)).as_slice(), before);
    assert_eq!(job.json(HEALTH)["recordCount"], 8);
    assert!(!job.server.ask::<bool>(&["EXISTS", "seed-lock:intelligence:regional-snapshots"]));
}

#[test]
fn another_reason_or_quarter_of_an_hour_is_news() {
    let job = Job::new();
    let clock: u64 = job.server.ask::<(u64, u64)>(&["TIME"]).0 * 1000;
    let first = clock / SPAN * SPAN - 3 * SPAN;
    job.seed_at(first);
    let inputs = std::fs::read_to_string(job.project.path("inputs.ndjson")).expect("the inputs");
    job.project.write("inputs.ndjson", inputs.replace("\"conflict\":0.9", "\"conflict\":0.1"));
    let statuses = job.seed_at(first + 1000);
    assert_eq!((statuses[0].as_str(), &statuses[1..]), ("published", ["duplicate"; 7].map(String::from).as_slice()));
    let mena = job.newest("mena");
    assert_eq!(mena["meta"]["trigger_reason"], "regime_shift");
    assert_eq!(mena["regime"], json!({ "label": "tension", "previous_label": "escalation" }));
    assert_eq!(job.ids("mena", first, first + SPAN).len(), 2);
    assert_eq!(job.seed_at(first + SPAN), ["published"; 8]);
    assert_eq!(job.newest("mena")["meta"]["trigger_reason"], "scheduled");
}

#[test]
fn a_command_that_fails_leaves_its_readers_what_they_had() {
    let job = Job::new();
    let clock: u64 = job.server.ask::<(u64, u64)>(&["TIME"]).0 * 1000;
    job.seed_at(clock - 3 * SPAN);
    let before: Vec<Json> = REGIONS.iter().map(|region| job.newest(region)).collect();
    let health = job.json(HEALTH);
    job.seed(&["none.ndjson"]).fails(1, &["exit code 1", "nothing was published", "8 regions lives on"]);
    assert_eq!(REGIONS.map(|region| job.newest(region)).as_slice(), before);
    // A health check that looks at the time alone sees when it last went well.
    let after = job.json(HEALTH);
    assert_eq!([&after["fetchedAt"], &after["recordCount"]], [&health["fetchedAt"], &json!(0)]);
    assert!(job.server.ask::<i64>(&["TTL", "intelligence:snapshot:v1:mena:latest"]) > 89 * 86_400);
}
