//! A Redis Cluster: regions over its servers, slots that move, a server that dies.

use crate::support::project::Project;
use crate::support::publishing::{pairs, statuses};
use crate::support::redis_server::{Redis, RedisCluster};

fn docs(regions: usize, value: u64) -> String {
    (0..regions).map(|at| format!("{{\"region\":\"r{at}\",\"v\":{value}}}\n")).collect()
}

fn args<'a>(url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["publish", "-", "--pipeline", "p", "--snapshots", url, "--json"], more].concat()
}

fn latest(cluster: &RedisCluster, region: &str) -> String {
    let id: String = cluster.ask(&["GET", &format!("forebay:{{p:{region}}}:latest")]);
    cluster.ask(&["GET", &format!("forebay:{{p:{region}}}:doc:{id}")])
}

#[test]
fn regions_spread_and_slots_that_moved_are_followed() {
    let cluster = RedisCluster::start(&[]);
    let project = Project::new();
    let (regions, _) = statuses(&project.forebay_with_input(&args(&cluster.url(), &[]), &docs(30, 1)).ok());
    assert!(regions.iter().all(|(_, status)| status == "published"), "{regions:?}");
    let owners: Vec<usize> = (0..30).map(|at| cluster.owner(&format!("forebay:{{p:r{at}}}:latest"))).collect();
    assert!((0..3).all(|node| owners.contains(&node)), "{owners:?}");
    // A server that knows the old owners answers first.
    let slot: usize = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", "forebay:{p:r0}:latest"]);
    let (from, to) = (owners[0], (owners[0] + 1) % 3);
    cluster.begin_move(slot, from, to);
    cluster.end_move(slot, from, to);
    let (regions, _) = statuses(&project.forebay_with_input(&args(&cluster.url(), &[]), &docs(30, 2)).ok());
    assert!(regions.iter().all(|(_, status)| status == "published"), "{regions:?}");
    assert_eq!(latest(&cluster, "r0"), "{\"region\":\"r0\",\"v\":2}");
}

#[test]
fn a_slot_moves_while_it_is_published_to() {
    let cluster = RedisCluster::start(&[]);
    let project = Project::new();
    let url = cluster.url();
    project.forebay_with_input(&args(&url, &[]), &docs(3, 1)).ok();
    let key = "forebay:{p:r0}:latest";
    let slot: usize = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", key]);
    let from = cluster.owner(key);
    let to = (from + 1) % 3;
    cluster.begin_move(slot, from, to);
    // Some of its keys are there, some are not yet made: the server says TRYAGAIN until the slot has moved.
    let outcome = project.forebay_with_input(&args(&url, &["--timeout", "300ms"]), &docs(3, 2)).ends_with(3);
    let (regions, _) = statuses(&outcome);
    assert_eq!(regions[0].1, "failed", "{outcome}");
    assert_eq!(regions[1..], pairs(&[("r1", "published"), ("r2", "published")]));
    assert!(outcome.stdout().contains("TRYAGAIN"), "{outcome}");
    // A region that is new in a moving slot is asked for at the slot's new place.
    let waiting = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| project.forebay_with_input(&args(&url, &["--timeout", "5s"]), &docs(3, 3)));
        cluster.end_move(slot, from, to);
        publishing.join().expect("publishing")
    });
    let (regions, _) = statuses(&waiting.ok());
    assert!(regions.iter().all(|(_, status)| status == "published"), "{regions:?}");
    assert_eq!(latest(&cluster, "r0"), "{\"region\":\"r0\",\"v\":3}");
}

#[test]
fn a_new_region_in_a_moving_slot_goes_to_its_new_place() {
    let cluster = RedisCluster::start(&[]);
    let project = Project::new();
    let key = "forebay:{p:r0}:latest";
    let slot: usize = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", key]);
    let from = cluster.owner(key);
    let to = (from + 1) % 3;
    cluster.begin_move(slot, from, to);
    let outcome = project.forebay_with_input(&args(&cluster.url(), &["--timeout", "300ms"]), &docs(1, 1));
    let (regions, _) = statuses(&outcome);
    // Several keys that are not there cannot be asked for at a place that a slot is moving to; a single one could.
    assert!(["published", "failed"].contains(&regions[0].1.as_str()), "{outcome}");
    cluster.end_move(slot, from, to);
    let (regions, _) = statuses(&project.forebay_with_input(&args(&cluster.url(), &[]), &docs(1, 1)).ok());
    assert_ne!(regions[0].1, "failed");
    assert_eq!(latest(&cluster, "r0"), "{\"region\":\"r0\",\"v\":1}");
}

#[test]
fn a_server_that_dies_fails_its_regions_alone() {
    let mut cluster = RedisCluster::start(&["--cluster-require-full-coverage", "no"]);
    let project = Project::new();
    let url = cluster.url();
    project.forebay_with_input(&args(&url, &[]), &docs(12, 1)).ok();
    let owners: Vec<usize> = (0..12).map(|at| cluster.owner(&format!("forebay:{{p:r{at}}}:latest"))).collect();
    // Also the one that is asked first.
    cluster.nodes[0].kill();
    let outcome = project.forebay_with_input(&args(&url, &["--timeout", "200ms"]), &docs(12, 2)).ends_with(3);
    let (regions, _) = statuses(&outcome);
    for ((region, status), owner) in regions.iter().zip(owners) {
        assert_eq!(status, if owner == 0 { "failed" } else { "published" }, "{region}\n{outcome}");
    }
}

#[test]
fn keys_that_would_be_apart_are_refused() {
    let project = Project::new();
    project.write("handlers.lua", "function on_event() end function on_snapshot() return {} end");
    let file = |url: &str| {
        format!(
            "name = \"p\"\n[handlers]\nscript = \"handlers.lua\"\n[snapshots]\nurl = \"{url}\"\nkeys = {{ latest = \"snapshot:<region>:latest\" }}\n"
        )
    };
    project.write("pipeline.toml", file("redis+cluster://h"));
    project.forebay(&["check", "pipeline.toml"]).fails(2, &["pipeline.toml:6:8:", "one slot", "keys: seq", "braces"]);
    project.write("pipeline.toml", file("redis://h"));
    let args = ["run", "pipeline.toml", "--source", "-", "--snapshots", "redis+cluster://h"];
    project.forebay(&args).fails(2, &["keys: seq", "one slot"]);
    let args = ["publish", "-", "--config", "pipeline.toml", "--snapshots", "redis+cluster://h"];
    project.forebay(&args).fails(2, &["keys: seq", "one slot"]);
}

#[test]
fn a_cluster_is_not_taken_for_a_server_nor_the_other_way_round() {
    let cluster = RedisCluster::start(&[]);
    let project = Project::new();
    let one = cluster.nodes[0].url();
    let outcome = project.forebay_with_input(&args(&one, &[]), &docs(12, 1)).ends_with(3);
    assert!(outcome.stdout().contains("expected redis+cluster://"), "{outcome}");
    let single = Redis::start(&[]);
    let url = single.url().replace("redis://", "redis+cluster://");
    let outcome = project.forebay_with_input(&args(&url, &[]), &docs(1, 1)).ends_with(3);
    assert!(outcome.stdout().contains("it is no cluster, expected redis://"), "{outcome}");
}
