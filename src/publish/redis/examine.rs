//! Looking at the Redis to which snapshots are published: how far it is, what it says of itself, and whether its user may do
//! what a publish does. What is found is judged by `judge`.
//!
//! Writes nothing: rights are asked for, and not tried. Every question has a time limit, and a server that does not answer
//! is asked nothing more. Of a cluster all servers are asked, and the worst answer of each kind is kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::judge::{self, Allowed, Info, Needed};
use super::script::Script;
use crate::model::finding::{Finding, median_millis, worst};
use crate::model::judgement;
use crate::model::timestamp::Timestamp;
use crate::publish::{Publication, PublishError, PublishPlan};
use crate::redis::RedisUrl;
use crate::redis::certificate::certificate_until;
use crate::redis::node::Node;
use crate::redis::topology::Topology;
use crate::redis::wire::{NO_EVAL, code_of, server_text};

/// How long connecting may take, and how long a server may be silent: who asks how it is wants no long silence.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// How often a round trip and a clock are measured, and how long that may go on before another one begins.
const ROUND_TRIPS: usize = 9;
const CLOCKS: usize = 3;
const MEASURING_MAX: Duration = Duration::from_secs(1);

/// See [`crate::publish::examine`].
pub(in crate::publish) fn examine(url: &RedisUrl, plan: &PublishPlan, region: &str) -> Vec<Finding> {
    let timeout = plan.timeout.min(ANSWER_MAX);
    let found = Topology::new(url, 1, timeout).and_then(|topology| {
        topology.discover()?;
        Ok(topology)
    });
    let topology = match found {
        Ok(topology) => topology,
        Err(away) => return vec![unconnected(&away.cause)],
    };
    let mut findings = worst(topology.nodes().iter().map(|node| {
        let mut findings = look(node, url, plan);
        if topology.is_cluster() {
            findings.iter_mut().for_each(|finding| finding.message = format!("{}: {}", node.name(), finding.message));
        }
        findings
    }));
    if findings.iter().any(|finding| finding.name == "redis_round_trip") {
        let certificate = certificate_until(url, timeout);
        let certificate = certificate.map(|until| judgement::certificate("redis_tls", until, Timestamp::now()));
        findings.push(judge::tls(url.is_tls(), url.is_local(), certificate));
        findings.push(find_rights(&topology, url.user_name(), plan, region));
    }
    findings
}

/// A server does not answer, or lets nobody in.
fn unconnected(cause: &str) -> Finding {
    // What stands behind it is a guess at what to do.
    let said = cause.split("; ").next().unwrap_or_default();
    let is_of_tls = ["TLS", "certificate"].iter().any(|word| said.contains(word));
    let (name, advice) = match is_of_tls {
        true => ("redis_tls", "look at scheme and sslrootcert in the address, and at the server's certificate"),
        false => ("redis_connection", "look at host, port, user and password in the address, and whether Redis runs"),
    };
    Finding::of_error(name, cause, advice)
}

/// One question to a server: the answer, or why there is none.
fn ask(node: &Node, command: &Cmd) -> Result<Value, String> {
    let replies = node.ask([command.clone()]).replies;
    match (replies.values.into_iter().next(), replies.broke) {
        (Some(reply), _) => Ok(reply),
        (None, Some(broke)) => Err(broke.cause().to_owned()),
        (None, None) => Err("no answer came".to_owned()),
    }
}

/// Looks at one server.
fn look(node: &Node, url: &RedisUrl, plan: &PublishPlan) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(cause) = look_at_all(node, url, plan, &mut findings) {
        findings.push(unconnected(&cause));
    }
    findings
}

fn look_at_all(node: &Node, url: &RedisUrl, plan: &PublishPlan, findings: &mut Vec<Finding>) -> Result<(), String> {
    let info = text_of(&ask(node, &redis::cmd("INFO"))?).map_or_else(Info::default, |text| Info::read(&text));
    let connection = judge::connection(&info, url.is_cluster());
    findings.push(match judge::untold(&info) {
        Some(why) => Finding { message: format!("{}, as {why}", connection.message), ..connection },
        None => connection,
    });
    let (begun, mut taken) = (Instant::now(), Vec::new());
    while taken.is_empty() || (taken.len() < ROUND_TRIPS && begun.elapsed() < MEASURING_MAX) {
        let since = Instant::now();
        // That it is not allowed is an answer too.
        ask(node, &redis::cmd("PING"))?;
        taken.push(since.elapsed());
    }
    findings.extend(median_millis(taken).map(|millis| {
        judgement::round_trip(
            "redis_round_trip",
            millis,
            judge::ROUND_TRIP_MILLIS_MAX.min(plan.timeout.as_secs_f64() * 1000.0 / 10.0),
            "run forebay nearer to Redis, or give [snapshots] timeout more time: each publish waits that long",
        )
    }));
    findings.push(judge::memory(&info));
    let save = ask(node, redis::cmd("CONFIG").arg("GET").arg("save"))?;
    findings.push(judge::persistence(&info, setting_of(&save).as_deref()));
    findings.push(judge::connections(&info, plan.pool));
    findings.push(find_clock(node)?);
    Ok(())
}

/// How far the server's clock is ahead of ours, as the quickest of some answers shows it.
fn find_clock(node: &Node) -> Result<Finding, String> {
    let mut best: Option<(f64, f64)> = None;
    for _ in 0..CLOCKS {
        let (before, since) = (Timestamp::now().as_micros(), Instant::now());
        let answer = ask(node, &redis::cmd("TIME"))?;
        let took = since.elapsed().as_secs_f64() * 1000.0;
        let Some(theirs) = micros_of(&answer) else {
            return Ok(Finding::ok("redis_clock", "not looked at: the user may not ask TIME"));
        };
        if best.is_none_or(|(_, exact_to)| took / 2.0 < exact_to) {
            best = Some(((theirs - before) as f64 / 1000.0 - took / 2.0, took / 2.0));
        }
    }
    let (ahead, exact_to) = best.unwrap_or_default();
    Ok(judgement::clock("redis_clock", ahead, exact_to))
}

/// What `TIME` answers: seconds, and microseconds of the second.
fn micros_of(answer: &Value) -> Option<i64> {
    let Value::Array(parts) = answer else { return None };
    let mut numbers = parts.iter().map(|part| text_of(part)?.parse::<i64>().ok());
    let (seconds, micros) = (numbers.next()??, numbers.next()??);
    seconds.checked_mul(1_000_000)?.checked_add(micros)
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

/// The value of one setting; none if it may not be asked for.
fn setting_of(answer: &Value) -> Option<String> {
    match answer {
        Value::Array(pair) => text_of(pair.get(1)?),
        Value::Map(pairs) => text_of(&pairs.first()?.1),
        _ => None,
    }
}

/// Asks the server that has the keys of the region what the user may do with them.
fn find_rights(topology: &Topology, user: &str, plan: &PublishPlan, region: &str) -> Finding {
    let needed = needed(plan, region);
    let commands: Vec<&[String]> = needed.iter().map(|needed| needed.command.as_slice()).collect();
    let commands = serde_json::json!(commands).to_string();
    let call = Script::examine().call(false, [], [commands.as_bytes()]);
    let asked = || -> Result<Allowed, String> {
        let node: Arc<Node> = topology.node_of(&plan.seq_key(region)).map_err(|away| away.cause)?;
        match ask(&node, &call)? {
            Value::Array(places) => {
                let places = places.iter().filter_map(|place| match place {
                    Value::Int(place) => usize::try_from(*place - 1).ok(),
                    _ => None,
                });
                Ok(Allowed::AllBut(places.filter_map(|place| needed.get(place).cloned()).collect()))
            }
            Value::ServerError(error) if code_of(&error) == NO_EVAL || error.code() == "NOPERM" => {
                Ok(Allowed::NoScripts(server_text(&error)))
            }
            Value::ServerError(error) => Err(PublishError::Refused(server_text(&error)).to_string()),
            _ => Ok(Allowed::Untold),
        }
    };
    match asked() {
        Ok(allowed) => judge::rights(&allowed, user),
        Err(cause) => Finding::of_error("redis_rights", &cause, "look at the user and its rights (ACL LIST)"),
    }
}

/// What a publish of one region runs, on which keys. docs/reference.md has the same as a table.
fn needed(plan: &PublishPlan, region: &str) -> Vec<Needed> {
    let item = Publication::new(region, 1, serde_json::json!({}));
    let keys = plan.keys.of(&plan.pipeline, &item);
    let [latest, seq, doc, index, dedup, live, at @ ..] = keys.as_slice() else { return Vec::new() };
    let store = plan.keys.of_store(&plan.pipeline, region);
    let summary = plan.keys.summary(&plan.pipeline);
    let votes = format!("{summary}:0");
    let mut commands: Vec<Vec<&str>> = vec![
        vec!["EVALSHA", "0", "0"],
        vec!["MGET", latest, seq, dedup, &store],
        vec!["GET", doc],
        vec!["EXISTS", latest, seq],
        vec!["ZSCORE", index, "x"],
        vec!["ZRANGEBYSCORE", index, "-inf", "0"],
        vec!["ZADD", index, "0", "x"],
        vec!["ZREM", index, "x"],
        vec!["PEXPIRE", index, "1"],
        vec!["DEL", live],
        vec!["GET", &summary],
    ];
    let written = [latest, seq, doc, dedup, &store, &summary].into_iter().chain(at);
    commands.extend(written.map(|key| vec!["SET", key, "x"]));
    let voting = [vec!["HSETNX", votes.as_str(), "x", "x"], vec!["HLEN", &votes], vec!["HGETALL", &votes]];
    let owned = |is_spared: bool| {
        move |command: Vec<&str>| Needed { command: command.into_iter().map(str::to_owned).collect(), is_spared }
    };
    commands.into_iter().map(owned(false)).chain(voting.into_iter().map(owned(true))).collect()
}
