//! Each fault at each step of a publish: every region ends published exactly once or reported failed, and the next
//! attempt publishes what is left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::support::project::{Outcome, Project};
use crate::support::publishing::statuses;
use crate::support::redis_proxy::{Break, Wire};
use crate::support::redis_server::Redis;

const REGIONS: usize = 6;

fn docs(value: u64) -> String {
    (0..REGIONS).map(|at| format!("{{\"region\":\"r{at}\",\"v\":{value}}}\n")).collect()
}

/// Four regions over two connections and a summary that is written on the way: several steps of several regions.
fn publish(project: &Project, url: &str, value: u64) -> Outcome {
    let args = ["publish", "-", "--pipeline", "p", "--snapshots", url, "--json", "--pool", "2", "--timeout", "300ms"];
    project.forebay_with_input(&args, &docs(value))
}

/// How often each region was published with that content: the entries of its index.
fn entries(server: &Redis, region: usize, value: u64) -> usize {
    let ids: Vec<String> = server.ask(&["ZRANGE", &format!("forebay:{{p:r{region}}}:index"), "0", "-1"]);
    let docs = ids.iter().map(|id| server.ask::<String>(&["GET", &format!("forebay:{{p:r{region}}}:doc:{id}")]));
    docs.filter(|doc| doc.contains(&format!("\"v\":{value}}}"))).count()
}

fn newest(server: &Redis, region: usize) -> String {
    let id: Option<String> = server.ask(&["GET", &format!("forebay:{{p:r{region}}}:latest")]);
    let Some(id) = id else { return String::new() };
    server.ask(&["GET", &format!("forebay:{{p:r{region}}}:doc:{id}")])
}

/// Checks one publish of `value` that may have been disturbed, and the next.
fn check(name: &str, server: &Redis, project: &Project, outcome: Outcome, value: u64) {
    assert!(matches!(outcome.code(), Some(0 | 3)), "{name}\n{outcome}");
    let (regions, _) = statuses(&outcome);
    assert_eq!(regions.len(), REGIONS, "{name}\n{outcome}");
    let said: BTreeMap<String, String> = regions.into_iter().collect();
    assert_eq!(outcome.code() == Some(3), said.values().any(|status| status == "failed"), "{name}\n{outcome}");
    for at in 0..REGIONS {
        let status = &said[&format!("r{at}")];
        let count = entries(server, at, value);
        match status.as_str() {
            "published" => assert_eq!(count, 1, "{name}: r{at}\n{outcome}"),
            "failed" => assert!(count <= 1, "{name}: r{at}\n{outcome}"),
            other => panic!("{name}: r{at} is {other}\n{outcome}"),
        }
    }
    let again = publish(project, &server.url(), value).ok();
    for (at, (region, status)) in statuses(&again).0.iter().enumerate() {
        assert_eq!(newest(server, at), format!("{{\"region\":\"r{at}\",\"v\":{value}}}"), "{name}: {region}");
        assert_eq!(entries(server, at, value), 1, "{name}: {region}");
        assert!(["published", "duplicate"].contains(&status.as_str()), "{name}: {region} is {status}");
        if said[region] == "published" {
            assert_eq!(status, "duplicate", "{name}: {region}");
        }
    }
    let summary: String = server.ask(&["GET", "forebay:p:summary"]);
    assert!((0..REGIONS).all(|at| summary.contains(&format!("\"r{at}\""))), "{name}: {summary}");
}

#[test]
fn every_fault_at_every_step_ends_well() {
    let server = Redis::start(&[]);
    let project = Project::new();
    let way = Wire::start(server.port);
    publish(&project, &way.url(), 0).ok();
    let steps = way.steps();
    assert!(steps >= 2, "{steps}");
    let faults = [
        ("cut before", Break::CutBefore),
        ("cut after", Break::CutAfter),
        ("cut within the first reply", Break::CutWithin(30)),
        ("cut within a later reply", Break::CutWithin(150)),
        ("stall", Break::Stall),
    ];
    let mut value = 0;
    for (name, fault) in &faults {
        for step in 1..=steps {
            for times in [1, 2] {
                value += 1;
                let next = way.steps();
                for nth in 0..times {
                    // Once: the retry succeeds. Twice: the retry is struck too.
                    way.break_at(next + step + nth, fault.clone());
                }
                let outcome = publish(&project, &way.url(), value);
                check(&format!("{name} at step {step}, {times} times"), &server, &project, outcome, value);
            }
        }
    }
    assert!(way.is_spent());
}

#[test]
fn a_server_that_is_killed_at_any_step_ends_well() {
    let server = Arc::new(Mutex::new(Redis::start(&[])));
    let project = Project::new();
    let port = server.lock().expect("server").port;
    let way = Wire::start(port);
    publish(&project, &way.url(), 0).ok();
    let steps = way.steps();
    let mut value = 0;
    for step in 1..=steps {
        for comes_back in [true, false] {
            value += 1;
            let killed = Arc::clone(&server);
            let act = move || {
                let mut server = killed.lock().expect("server");
                server.kill();
                if comes_back {
                    server.restart();
                }
            };
            way.break_at(way.steps() + step, Break::Before(Arc::new(act)));
            let outcome = publish(&project, &way.url(), value);
            let mut server = server.lock().expect("server");
            if !comes_back {
                server.restart();
            }
            // What was published before the server died has died with it, as it keeps nothing.
            assert!(matches!(outcome.code(), Some(0 | 3)), "{outcome}");
            let again = publish(&project, &server.url(), value).ok();
            assert_eq!(statuses(&again).0.len(), REGIONS);
            for at in 0..REGIONS {
                assert_eq!(entries(&server, at, value), 1, "step {step}, comes back {comes_back}: r{at}");
            }
        }
    }
}

/// The script is forgotten in the middle of a request.
#[test]
fn a_forgotten_script_is_sent_again() {
    let server = Redis::start(&[]);
    let project = Project::new();
    let url = server.url();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = server.connection();
            while !is_over.load(std::sync::atomic::Ordering::Acquire) {
                let _: String = crate::support::redis_server::ask(&mut connection, &["SCRIPT", "FLUSH"]);
            }
        });
        let docs: String = (0..500).map(|at| format!("{{\"region\":\"r{at}\",\"v\":1}}\n")).collect();
        let mut left = 500;
        // Flushed without a pause a request may lose it too often; the next attempt goes on.
        for _ in 0..20 {
            let args = ["publish", "-", "--pipeline", "p", "--snapshots", &url, "--json", "--pool", "2"];
            let outcome = project.forebay_with_input(&args, &docs);
            let (_, last) = statuses(&outcome);
            left -= last["published"].as_u64().expect("a number");
            if left == 0 {
                break;
            }
        }
        is_over.store(true, std::sync::atomic::Ordering::Release);
        assert_eq!(left, 0);
    });
}
