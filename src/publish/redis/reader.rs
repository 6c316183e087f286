//! Reading snapshots back from Redis: what its readers see.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use redis::{Cmd, Value};

use super::keys::Key;
use super::script::Script;
use super::summary::Summary;
use crate::model::limits::REGIONS_READ_MAX;
use crate::model::timestamp::Timestamp;
use crate::publish::{LatestInTarget, PublishError, PublishPlan, TargetReader, TargetUrl, TellRegion};
use crate::redis::node::Node;
use crate::redis::topology::{PART_OF_CLUSTER, Topology, redirection};
use crate::redis::wire::{Break, NO_EVAL, Replies, code_of, server_text};
use crate::snapshot::seq_of;
use crate::store::StoredSnapshot;

/// Reads the snapshots of one pipeline. Blocks no longer than the plan's time-out while nothing comes.
pub struct RedisSnapshots {
    plan: PublishPlan,
    topology: Arc<Topology>,
    latest: Script,
    all: Script,
    history: Script,
}

/// How often a call is made at most.
const READ_PASSES: u32 = 3;

/// A call of a script.
struct Call {
    keys: Vec<String>,
    arguments: Vec<String>,
}

/// Calls that a server was asked, and what came of it.
type Asked = (Arc<Node>, Vec<usize>, Replies);

/// A region's newest snapshot, none if it has none, or why it could not be read.
type RegionRead = Result<Option<StoredSnapshot>, PublishError>;

/// Is told the replies as they come, with the place of their call.
type Heard<'a> = dyn Fn(usize, &Value) + Sync + 'a;

/// What is told in the order of the regions, however it comes.
struct InOrder<'a> {
    regions: &'a [String],
    /// How many are told.
    told: usize,
    /// What has come before its turn.
    come: BTreeMap<usize, RegionRead>,
    tell: &'a mut TellRegion<'a>,
}

impl InOrder<'_> {
    fn take(&mut self, at: usize, outcome: RegionRead) {
        if at < self.told {
            return;
        }
        self.come.entry(at).or_insert(outcome);
        while let Some(outcome) = self.come.remove(&self.told) {
            (self.tell)(&self.regions[self.told], outcome);
            self.told += 1;
        }
    }
}

/// What each call answered; or that it was refused.
type Answers = Vec<Result<Value, PublishError>>;

impl TargetReader for RedisSnapshots {
    fn name(&self) -> &str {
        self.plan.url.name()
    }

    /// One round trip on a warm connection; on a cluster without regions two.
    fn latest(&self, regions: &[String]) -> Result<LatestInTarget, PublishError> {
        self.topology.discover()?;
        if regions.is_empty() { self.latest_of_all() } else { self.latest_of(regions) }
    }

    /// One request to each server.
    fn latest_in_order(&self, regions: &[String], tell: &mut TellRegion<'_>) -> Result<(), PublishError> {
        self.topology.discover()?;
        let in_order = Mutex::new(InOrder { regions, told: 0, come: BTreeMap::new(), tell });
        let take = |at: usize, outcome| in_order.lock().unwrap_or_else(PoisonError::into_inner).take(at, outcome);
        let heard = |at: usize, reply: &Value| {
            if !matches!(reply, Value::ServerError(_)) {
                take(at, Ok(snapshot_in(&regions[at], reply)));
            }
        };
        for (at, answer) in self.ask_all(&self.latest, &self.calls_of(regions), &heard)?.into_iter().enumerate() {
            take(at, answer.map(|reply| snapshot_in(&regions[at], &reply)));
        }
        Ok(())
    }

    /// One round trip.
    fn signature(&self) -> Result<Option<String>, PublishError> {
        self.topology.discover()?;
        let key = self.plan.keys.summary(&self.plan.pipeline);
        let node = self.topology.node_of(&key)?;
        let answer = node.ask([redis::cmd("GET").arg(&key).take()]).replies;
        match (answer.values.into_iter().next(), answer.broke) {
            (Some(Value::BulkString(text)), _) => Ok(Summary::parse(&text).and_then(|summary| summary.owner.store)),
            (None, Some(broke)) => Err(node.error(&broke).into()),
            // A key that holds something else has no signature.
            _ => Ok(None),
        }
    }

    fn history(
        &self,
        region: &str,
        limit: usize,
        since: Option<Timestamp>,
    ) -> Result<Vec<StoredSnapshot>, PublishError> {
        self.topology.discover()?;
        let PublishPlan { keys, pipeline, .. } = &self.plan;
        let names = vec![keys.of_region(Key::Index, pipeline, region)];
        let since = since.map_or_else(|| "-inf".to_owned(), |since| since.as_micros().div_euclid(1000).to_string());
        let limit = limit.min(i32::MAX as usize).to_string();
        let arguments = [region, keys.template(Key::Doc), pipeline, &since, &limit];
        let arguments = arguments.map(str::to_owned).to_vec();
        let answer = self.ask_all(&self.history, &[Call { keys: names, arguments }], &|_, _| {})?.pop();
        let Some(Value::Array(parts)) = answer.transpose()? else { return Ok(Vec::new()) };
        let snapshots = parts.as_chunks::<3>().0.iter().filter_map(|[id, time, doc]| {
            let (id, doc) = (text_of(id)?, text_of(doc)?);
            Some(StoredSnapshot {
                seq: seq_of(region, &id),
                region: region.to_owned(),
                block: None,
                generated_at: time_of(time),
                published_at: None,
                id,
                doc,
            })
        });
        Ok(snapshots.collect())
    }

    fn show(&self, id: &str) -> Result<Option<StoredSnapshot>, PublishError> {
        self.topology.discover()?;
        let keys = &self.plan.keys;
        // An id of ours begins with its region.
        let by_id = id.rsplitn(3, '.').nth(2).map(str::to_owned);
        let mut regions: Vec<String> = by_id.into_iter().collect();
        if let Some(found) = self.show_of(id, &regions)? {
            return Ok(Some(found));
        }
        if !keys.doc_needs_region() {
            regions = vec![String::new()];
        } else {
            regions = self.latest_of_all()?.found.into_iter().map(|snapshot| snapshot.region).collect();
        }
        self.show_of(id, &regions)
    }
}

impl RedisSnapshots {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub fn new(plan: PublishPlan) -> Result<Self, PublishError> {
        // What is read is one pipeline over one connection to each server.
        let plan = PublishPlan { pool: 1, ..plan };
        let TargetUrl::Redis(url) = &plan.url;
        let topology = Arc::new(Topology::new(url, plan.pool, plan.timeout)?);
        Ok(Self::over(plan, topology))
    }

    /// Over connections that are there already.
    pub(super) fn over(plan: PublishPlan, topology: Arc<Topology>) -> Self {
        Self { topology, plan, latest: Script::latest(), all: Script::all(), history: Script::history() }
    }

    /// What asks for the newest of each region.
    fn calls_of(&self, regions: &[String]) -> Vec<Call> {
        let PublishPlan { keys, pipeline, .. } = &self.plan;
        let calls = regions.iter().map(|region| {
            let names = [Key::Latest, Key::Seq, Key::Index].map(|key| keys.of_region(key, pipeline, region));
            let arguments = [region, keys.template(Key::Doc), pipeline].map(str::to_owned);
            Call { keys: names.to_vec(), arguments: arguments.to_vec() }
        });
        calls.collect()
    }

    fn latest_of(&self, regions: &[String]) -> Result<LatestInTarget, PublishError> {
        let mut latest = LatestInTarget::default();
        let answers = self.ask_all(&self.latest, &self.calls_of(regions), &|_, _| {})?;
        for (answer, region) in answers.into_iter().zip(regions) {
            match answer {
                Ok(Value::Array(parts)) => latest.take(region, &parts),
                Ok(_) => {}
                Err(error) => latest.refused.push((region.clone(), error)),
            }
        }
        Ok(latest)
    }

    fn latest_of_all(&self) -> Result<LatestInTarget, PublishError> {
        let node = self.topology.node_of(&self.plan.keys.summary(&self.plan.pipeline))?;
        let answer = node.ask([self.command_of_all()]).replies;
        self.take_all(&node, answer.values.into_iter().next(), answer.broke.as_ref())
    }

    /// What asks for the newest of all regions; on a cluster for the summary alone.
    pub(super) fn command_of_all(&self) -> Cmd {
        let PublishPlan { keys, pipeline, .. } = &self.plan;
        let summary_key = keys.summary(pipeline);
        if self.topology.is_cluster() {
            return redis::cmd("GET").arg(&summary_key).take();
        }
        let limit = REGIONS_READ_MAX.to_string();
        let templates = [Key::Latest, Key::Seq, Key::Index, Key::Doc].map(|key| keys.template(key));
        let arguments = [limit.as_str()].into_iter().chain(templates).chain([pipeline.as_str()]);
        self.all.call(false, [summary_key.as_str()], arguments.map(str::as_bytes))
    }

    /// What the answer to it says. May ask for what it left out.
    pub(super) fn take_all(
        &self,
        node: &Node,
        answer: Option<Value>,
        broke: Option<&Break>,
    ) -> Result<LatestInTarget, PublishError> {
        let PublishPlan { keys, pipeline, .. } = &self.plan;
        let mut parts = match (answer, broke) {
            (Some(Value::Array(parts)), _) => parts,
            (Some(text @ Value::BulkString(_)), _) => vec![text],
            (Some(Value::Nil), _) => Vec::new(),
            (Some(Value::ServerError(error)), _) => return Err(away(node, server_text(&error))),
            (_, Some(broke)) => return Err(node.error(broke).into()),
            _ => return Err(away(node, "an answer that is not understood".into())),
        };
        if parts.is_empty() {
            return Ok(LatestInTarget::default());
        }
        let documents = parts.split_off(1);
        let text = match parts.pop() {
            Some(Value::BulkString(text)) => text,
            _ => Vec::new(),
        };
        let summary = Summary::parse(&text).ok_or_else(|| {
            PublishError::Refused(format!(
                "{} holds no summary of forebay: give the summary another key ([snapshots.keys] summary), delete this one \
                 if nobody needs it, or name the regions (latest)",
                keys.summary(pipeline)
            ))
        })?;
        let names: Vec<String> = summary.regions.keys().cloned().collect();
        let mut latest = match self.topology.is_cluster() || (documents.is_empty() && names.len() > REGIONS_READ_MAX) {
            true => self.latest_of(&names)?,
            false => named(documents),
        };
        latest.found.sort_by(|a, b| a.region.cmp(&b.region));
        // The summary knows more of them than the keys do.
        for snapshot in &mut latest.found {
            let entry = summary.regions.get(&snapshot.region).filter(|entry| entry.id == snapshot.id);
            snapshot.block = entry.and_then(|entry| entry.block);
        }
        Ok(latest)
    }

    fn show_of(&self, id: &str, regions: &[String]) -> Result<Option<StoredSnapshot>, PublishError> {
        let PublishPlan { keys, pipeline, .. } = &self.plan;
        for region in regions {
            let key = keys.doc(pipeline, region, id);
            let node = self.topology.node_of(&key)?;
            let score = redis::cmd("ZSCORE").arg(keys.of_region(Key::Index, pipeline, region)).arg(id).take();
            let answer = node.ask([redis::cmd("GET").arg(&key).take(), score]).replies;
            if let Some(broke) = &answer.broke {
                return Err(node.error(broke).into());
            }
            if let Some(doc) = answer.values.first().and_then(text_of) {
                return Ok(Some(StoredSnapshot {
                    region: region.clone(),
                    seq: seq_of(region, id),
                    id: id.to_owned(),
                    block: None,
                    generated_at: answer.values.get(1).and_then(time_of),
                    published_at: None,
                    doc,
                }));
            }
        }
        Ok(None)
    }

    /// Calls a script for each of the given keys and arguments: one request to each server, and once more for what did not
    /// get through: a connection that was closed, a slot that has moved, a script that was not known yet.
    /// `heard` is told each reply as it comes.
    fn ask_all(&self, script: &Script, calls: &[Call], heard: &Heard<'_>) -> Result<Answers, PublishError> {
        let mut answers: Answers = calls.iter().map(|_| Ok(Value::Nil)).collect();
        let mut todo: Vec<usize> = (0..calls.len()).collect();
        for pass in 0..READ_PASSES {
            let mut again = Vec::new();
            for (node, places, replies) in self.ask_once(script, calls, &todo, heard)? {
                let mut values = replies.values.into_iter();
                for at in places {
                    let (answer, may_pass) = self.answer(&node, values.next(), replies.broke.as_ref());
                    answers[at] = answer;
                    if may_pass {
                        again.push(at);
                    }
                }
            }
            if again.is_empty() || pass + 1 == READ_PASSES {
                break;
            }
            todo = again;
        }
        // Nobody answers: that is no matter of single regions.
        match answers.first() {
            Some(Err(error)) if answers.iter().all(|one| one.as_ref().is_err_and(PublishError::is_away)) => {
                Err(error.clone())
            }
            _ => Ok(answers),
        }
    }

    /// What one call answered, and whether it may do better when it is made again.
    fn answer(&self, node: &Node, reply: Option<Value>, broke: Option<&Break>) -> (Result<Value, PublishError>, bool) {
        match reply {
            Some(Value::ServerError(error)) => {
                let moved = redirection(error.details().unwrap_or_default(), node.host.as_ref());
                if let Some((slot, host)) = moved.filter(|_| error.code() == "MOVED") {
                    self.topology.note_moved(slot, host);
                }
                let may_pass = matches!(error.code(), "MOVED" | "NOSCRIPT");
                (
                    Err(self.refused(node, &error)),
                    may_pass && (self.topology.is_cluster() || error.code() == "NOSCRIPT"),
                )
            }
            Some(reply) => (Ok(reply), false),
            None => {
                let broke = broke.cloned().unwrap_or(Break::Dropped("no answer came".into()));
                (Err(node.error(&broke).into()), broke.was_connected())
            }
        }
    }

    /// Makes calls over one connection to each server, all servers at once.
    fn ask_once(
        &self,
        script: &Script,
        calls: &[Call],
        todo: &[usize],
        heard: &Heard<'_>,
    ) -> Result<Vec<Asked>, PublishError> {
        let mut of_node: BTreeMap<String, (Arc<Node>, Vec<usize>)> = BTreeMap::new();
        for at in todo {
            let node = self.topology.node_of(calls[*at].keys.first().map_or("", String::as_str))?;
            of_node.entry(node.name().to_owned()).or_insert((node, Vec::new())).1.push(*at);
        }
        let ask = |(node, places): (Arc<Node>, Vec<usize>)| {
            let call = |(nth, at): (usize, &usize)| {
                let Call { keys, arguments } = &calls[*at];
                script.call(nth > 0, keys.iter().map(String::as_str), arguments.iter().map(String::as_bytes))
            };
            let mut come = places.iter();
            let mut heard = |reply: &Value| come.next().into_iter().for_each(|at| heard(*at, reply));
            let replies = node.ask_and_hear(places.iter().enumerate().map(call), &mut heard).replies;
            (node, places, replies)
        };
        let mut nodes: Vec<_> = of_node.into_values().collect();
        let last = nodes.pop();
        Ok(std::thread::scope(|scope| {
            let (mut others, mut here) = (Vec::new(), Vec::new());
            for one in nodes {
                // A thread that cannot be made is done without.
                let again = (Arc::clone(&one.0), one.1.clone());
                match std::thread::Builder::new().spawn_scoped(scope, || ask(one)) {
                    Ok(thread) => others.push(thread),
                    Err(_) => here.push(again),
                }
            }
            // The calling thread takes the last one.
            let here: Vec<_> = here.into_iter().chain(last).map(ask).collect();
            others.into_iter().filter_map(|other| other.join().ok()).chain(here).collect()
        }))
    }

    fn refused(&self, node: &Node, error: &redis::ServerError) -> PublishError {
        let text = server_text(error);
        match code_of(error) {
            "MOVED" | "ASK" | "CROSSSLOT" if !self.topology.is_cluster() => {
                away(node, format!("{text}: {PART_OF_CLUSTER}"))
            }
            "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "NOAUTH" | NO_EVAL => away(node, text),
            _ => PublishError::Refused(text),
        }
    }
}

fn away(node: &Node, cause: String) -> PublishError {
    PublishError::Away { target: node.name().to_owned(), cause }
}

/// What the script gives of each region: its name first.
fn named(regions: Vec<Value>) -> LatestInTarget {
    let mut latest = LatestInTarget::default();
    for region in regions {
        let Value::Array(parts) = region else { continue };
        match (parts.first().and_then(text_of), &parts[parts.len().min(1)..]) {
            (Some(region), [failure]) => {
                latest.refused.push((region, PublishError::Refused(text_of(failure).unwrap_or_default())));
            }
            (Some(region), parts) => latest.take(&region, parts),
            (None, _) => {}
        }
    }
    latest
}

impl LatestInTarget {
    /// Takes in what a script gives of one region: id, number, time, document and signature of its newest snapshot.
    fn take(&mut self, region: &str, parts: &[Value]) {
        if let Some(signature) = parts.get(4).and_then(text_of).filter(|signature| !signature.is_empty()) {
            self.signatures.insert(region.to_owned(), signature);
        }
        self.found.extend(newest(region, parts));
    }
}

/// The snapshot that a reply of the script holds, if there is one.
fn snapshot_in(region: &str, reply: &Value) -> Option<StoredSnapshot> {
    match reply {
        Value::Array(parts) => newest(region, parts),
        _ => None,
    }
}

fn newest(region: &str, parts: &[Value]) -> Option<StoredSnapshot> {
    let [id, seq, time, doc, _] = parts else { return None };
    let (id, doc) = (text_of(id)?, text_of(doc)?);
    let seq = text_of(seq).and_then(|seq| seq.parse().ok()).or_else(|| seq_of(region, &id));
    let (region, generated_at) = (region.to_owned(), time_of(time));
    Some(StoredSnapshot { region, id, seq, block: None, generated_at, published_at: None, doc })
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}

/// A score of the index, as the time that it is.
fn time_of(score: &Value) -> Option<String> {
    let millis: f64 = match score {
        Value::Double(millis) => *millis,
        other => text_of(other)?.parse().ok()?,
    };
    Timestamp::from_micros((millis * 1000.0) as i64).map(Timestamp::to_millis_text)
}
