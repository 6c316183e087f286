//! Publishing many regions at once, and the summary of it.
//!
//! [`super::exchange`] is one publish; here is what lasts from one to the next: connections, threads, what the summary says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;
use redis::Value;

use super::connections::{Connections, millis};
use super::events::untold_text;
use super::exchange::Exchange;
use super::keys::Key;
use super::outcome::{Extent, KeptRegion, Published};
use super::script::Script;
use super::settling::{Settling, outcome_of};
use super::summary::{Owner, Summary, SummaryEntry};
use crate::publish::health::Outcome;
use crate::publish::{Publication, PublishError, PublishPlan, PublishReceipt, PublishStatus, TargetUrl};
use crate::redis::node::Node;
use crate::redis::topology::Topology;
use crate::redis::wire::{Break, server_text};

/// How often regions that were not handed over are asked for at most, and how often a summary is written that others
/// write too.
const REFRESH_PASSES: u32 = 3;
const SUMMARY_PASSES: u32 = 5;

/// Publishes to one server or cluster. Keeps its connections between two publishes.
///
/// ```no_run
/// use std::time::Duration;
///
/// use forebay::publish::{Extent, Publication, PublishPlan, PublishStatus, Publisher};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let plan = PublishPlan::new("risk", "redis://localhost".parse()?).with_timeout(Duration::from_secs(1))?;
/// let mut publisher = Publisher::new(plan)?;
/// let items = [
///     Publication::new("europe", 1, serde_json::json!({ "risk": 3 })),
///     Publication::new("latam", 1, serde_json::json!({ "risk": 5 })),
/// ];
/// let published = publisher.publish(&items, Extent::Whole { is_clean: true });
/// for receipt in &published.receipts {
///     match &receipt.outcome {
///         Ok(PublishStatus::Published) => println!("{} is there", receipt.id),
///         Ok(status) => println!("{}: {status:?}", receipt.region),
///         Err(error) => println!("{}: {error}", receipt.region),
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Publisher {
    pub(super) to: Connections,
    refresh: Script,
    replace: Script,
    pub(super) settling: Settling,
    /// What the summary in Redis says, once it was read; kept up where only some regions are handed over.
    pub(super) summary: Option<Summary>,
    /// Its text in Redis, as it was read or written last.
    stored: Option<Vec<u8>>,
    /// Whether it bears our signature, if we have one.
    is_signed: bool,
    /// Whether another store's signature was found and is replaced.
    has_taken_over: bool,
    /// What came of the publishes of parts since the summary was written.
    since: SinceSummary,
    /// Whether it was said that those who listen are not told.
    has_said_untold: bool,
}

#[derive(Default)]
struct SinceSummary {
    outcome: Outcome,
    has_tried: bool,
}

/// What the summary said before a publish.
struct Prior {
    summary: Summary,
    /// Whether that is known, and it may be written over.
    is_readable: bool,
}

impl Publisher {
    /// Makes the threads. Connects to nothing yet.
    ///
    /// # Errors
    /// The keys do not work on a cluster, a certificate cannot be read, or the system gives no threads.
    pub fn new(plan: PublishPlan) -> Result<Self, PublishError> {
        let TargetUrl::Redis(url) = plan.url.clone();
        if url.is_cluster() {
            plan.keys.check_cluster().map_err(|error| PublishError::Document(format!("keys: {error}")))?;
        }
        // Of a cluster each server has a request of its own, and none waits for another's.
        let threads = if url.is_cluster() { plan.pool.max(1) * 2 } else { plan.pool.max(1) };
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|at| format!("forebay-publish-{at}"))
            .build()
            .map_err(|error| PublishError::Threads(error.to_string()))?;
        let topology = Arc::new(Topology::new(&url, plan.pool, plan.timeout)?);
        let (script, predecessor, lock) = (Script::publish(), None, None);
        Ok(Self {
            to: Connections { topology, script, predecessor, threads, lock, is_patient: true, plan, url },
            refresh: Script::refresh(),
            replace: Script::replace(),
            settling: Settling::new(),
            summary: None,
            stored: None,
            is_signed: true,
            has_taken_over: false,
            since: SinceSummary::default(),
            has_said_untold: false,
        })
    }

    /// Whether slots that move and servers that are gone are waited for, within twice the time-out. Defaults to true.
    pub fn set_patient(&mut self, is_patient: bool) {
        self.to.is_patient = is_patient;
    }

    /// Signs with the signature of the store that publishes: [`PublishPlan::signature`].
    pub fn sign(&mut self, signature: &str) {
        self.to.plan.signature = Some(signature.to_owned());
    }

    /// Whether some of its servers may be away while others are well.
    pub(super) fn is_cluster(&self) -> bool {
        self.to.url.is_cluster()
    }

    /// The plan it was made with.
    pub fn plan(&self) -> &PublishPlan {
        &self.to.plan
    }

    /// Publishes at most one snapshot of each region. Blocks until each of them is decided.
    pub fn publish(&mut self, items: &[Publication], extent: Extent) -> Published {
        let started = Instant::now();
        let mut exchange =
            Exchange::new(&self.to, items, extent, extent != Extent::Part || self.summary.is_none(), started);
        exchange.run();
        let Exchange {
            receipts,
            trips,
            mut prior,
            no_prior,
            is_summed,
            is_settled,
            of_stores,
            untold,
            votes,
            is_unreachable,
            ..
        } = exchange;
        let mut published =
            Published { receipts, of_stores, round_trips: trips, is_unreachable, ..Published::default() };
        if let Some(cause) = untold.filter(|_| !self.has_said_untold) {
            (published.untold, self.has_said_untold) =
                (Some(untold_text(&self.to.plan.pipeline, self.to.url.user_name(), &cause)), true);
        }
        // Where everything failed, each region has said it.
        let is_told = !items.is_empty() && published.failed() == items.len();
        if let Some(error) = no_prior.filter(|_| prior.is_none() && !is_told) {
            published.is_unreachable |= items.is_empty();
            published.warning = Some(format!("the summary cannot be read: {error}"));
        }
        if let Some(Value::ServerError(error)) = &prior
            && matches!(error.code(), "MOVED" | "ASK")
        {
            // Its slot has moved; where to is noted by now.
            let key = self.to.plan.keys.summary(&self.to.plan.pipeline);
            prior = self.to.ask_aside(&key, &redis::cmd("GET").arg(&key).take(), &mut published);
        }
        let Prior { summary: prior, is_readable } = self.read_prior(prior, &mut published);
        note_blocks(items, &prior, &mut published.receipts);
        let had_entries = !prior.regions.is_empty();
        let summary = self.merge_summary(items, extent, prior, &mut published);
        self.drop_votes(votes, &mut published);
        match extent {
            Extent::Part => self.note_part(is_readable.then_some(summary), &published),
            Extent::Whole { is_clean } if is_readable && !is_summed => {
                let is_due = is_clean && published.failed() == 0 && published.published() > 0;
                // What is there lives on, whatever failed.
                if is_due || had_entries {
                    self.write_summary(summary, is_due, &mut published);
                }
            }
            // It is written already; or Redis is away, and there is nothing to be done.
            Extent::Whole { .. } => {}
        }
        published.is_unlocked = published.receipts.iter().any(|receipt| receipt.outcome == Err(PublishError::Unlocked));
        if is_settled {
            self.to.lock = None;
        } else if let Extent::Whole { is_clean } = extent {
            // Of nothing that was meant there is nothing to say.
            let outcome = (!items.is_empty() || !is_clean).then(|| outcome_of(&published, !is_clean));
            self.settling.settle(&mut self.to, outcome, &mut published);
        }
        published.wall = started.elapsed();
        published
    }

    /// Writes the summary after one or more publishes of parts, if nothing failed and something was published or it says
    /// less than is known; else begins its time to live anew. Returns what went wrong. Blocks.
    pub fn flush_summary(&mut self) -> Option<String> {
        let since = std::mem::take(&mut self.since);
        if !since.has_tried && self.is_signed {
            return None;
        }
        let summary = self.summary.take()?;
        let is_changed = self.stored.as_deref().and_then(Summary::parse).is_none_or(|stored| stored != summary);
        let is_due = since.outcome.failed == 0 && (since.outcome.published > 0 || is_changed);
        let mut published = Published::default();
        self.summary = Some(self.write_summary(summary, is_due, &mut published));
        if since.has_tried {
            self.settling.settle(&mut self.to, Some(since.outcome), &mut published);
        }
        published.warning
    }

    /// Reads the summary, if that was not done yet. Blocks.
    ///
    /// # Errors
    /// Redis does not answer, the key holds something else, or another store has signed it and is not to be replaced.
    pub fn read_summary(&mut self) -> Result<(), PublishError> {
        if self.summary.is_some() {
            return Ok(());
        }
        self.to.topology.discover()?;
        let key = self.to.plan.keys.summary(&self.to.plan.pipeline);
        let found = self.to.ask(&key, &redis::cmd("GET").arg(&key).take(), &mut 0)?;
        self.stored = match found {
            Value::BulkString(text) => Some(text),
            _ => None,
        };
        let found = self.stored.as_deref().and_then(Summary::parse).unwrap_or_default();
        self.summary = Some(self.signed(found)?);
        Ok(())
    }

    /// A summary that was read, as we go on with it: with our signature, if we have one.
    fn signed(&mut self, mut summary: Summary) -> Result<Summary, PublishError> {
        let PublishPlan { signature, takes_over, .. } = &self.to.plan;
        // Documents that are given by hand stand beside those of a store.
        let Some(ours) = signature else { return Ok(summary) };
        self.is_signed = self.stored.is_none() || summary.owner.store.as_ref() == Some(ours);
        match summary.owner.store.take() {
            Some(theirs) if theirs != *ours && !takes_over => return Err(self.to.other_store(&theirs)),
            Some(theirs) if theirs != *ours => {
                summary.owner.predecessor = Some(theirs);
                self.has_taken_over = true;
            }
            _ => {}
        }
        summary.owner.store = Some(ours.clone());
        self.to.predecessor.clone_from(&summary.owner.predecessor);
        Ok(summary)
    }

    /// Number and block of a region's newest snapshot, as the summary says.
    pub(in crate::publish) fn known(&self, region: &str) -> Option<(u64, Option<i64>)> {
        self.summary.as_ref()?.regions.get(region).map(|entry| (entry.seq, entry.block))
    }

    /// Whether another store's signature was found and is replaced.
    pub(super) fn takes_over(&self) -> bool {
        self.has_taken_over
    }

    /// Regions of which the summary says something; 0 before it was read.
    pub fn summary_len(&self) -> usize {
        self.summary.as_ref().map_or(0, |summary| summary.regions.len())
    }

    /// Writes the summary, or only begins its time to live anew. It is written over what was read before; if others have
    /// written meanwhile, what is newer of each region stays.
    fn write_summary(&mut self, mut summary: Summary, is_due: bool, published: &mut Published) -> Summary {
        let key = self.to.plan.keys.summary(&self.to.plan.pipeline);
        let ttl = millis(self.to.plan.ttl);
        if !is_due {
            self.to.ask_aside(&key, &redis::cmd("PEXPIRE").arg(&key).arg(ttl).take(), published);
            return summary;
        }
        for _ in 0..SUMMARY_PASSES {
            let digest = self.stored.as_deref().map_or_else(String::new, sha1_of);
            let (text, ttl) = (summary.text(&self.to.plan.pipeline), ttl.to_string());
            let arguments = [digest.as_str(), &text, &ttl].map(str::as_bytes);
            let command = self.replace.call(false, [key.as_str()], arguments);
            match self.to.ask_aside(&key, &command, published) {
                Some(Value::BulkString(other)) => {
                    self.stored = Some(other);
                    match self.signed(self.stored.as_deref().and_then(Summary::parse).unwrap_or_default()) {
                        Ok(theirs) => {
                            summary.owner = theirs.owner.clone();
                            summary.merge(theirs);
                        }
                        Err(error) => {
                            published.warning = Some(format!("the summary is left alone: {error}"));
                            break;
                        }
                    }
                }
                Some(Value::Nil) => self.stored = None,
                Some(_) => {
                    (self.stored, self.is_signed) = (Some(text.into_bytes()), true);
                    break;
                }
                None => break,
            }
        }
        summary
    }

    /// Reads what the summary's key held before a publish; none if it was not asked for, or Redis is away.
    fn read_prior(&mut self, prior: Option<Value>, published: &mut Published) -> Prior {
        if prior.is_some() {
            self.stored = None;
        }
        match prior {
            Some(Value::BulkString(text)) => {
                let summary = Summary::parse(&text).unwrap_or_default();
                self.stored = Some(text);
                match self.signed(summary) {
                    Ok(summary) => Prior { summary, is_readable: true },
                    Err(error) => {
                        published.warning = Some(format!("the summary is left alone: {error}"));
                        Prior { summary: Summary::default(), is_readable: false }
                    }
                }
            }
            Some(Value::ServerError(error)) => {
                published.warning = Some(format!("the summary is left alone: {}", server_text(&error)));
                Prior { summary: Summary::default(), is_readable: false }
            }
            Some(_) => {
                let owner = Owner { store: self.to.plan.signature.clone(), predecessor: None };
                Prior { summary: Summary { owner, ..Summary::default() }, is_readable: true }
            }
            None => Prior { summary: self.summary.clone().unwrap_or_default(), is_readable: self.summary.is_some() },
        }
    }

    /// What the summary says after a publish: what it said of regions that were not handed over, where those are kept, and
    /// what is the newest of each other region.
    fn merge_summary(
        &self,
        items: &[Publication],
        extent: Extent,
        prior: Summary,
        published: &mut Published,
    ) -> Summary {
        let fields = &self.to.plan.summary_fields;
        let before = if fields.is_empty() { BTreeMap::new() } else { prior.regions.clone() };
        let mut summary = match extent {
            Extent::Part => prior,
            Extent::Whole { .. } => self.keep_others(items, &prior, published),
        };
        for (item, receipt) in items.iter().zip(&published.receipts).filter(|(_, receipt)| receipt.outcome.is_ok()) {
            let (region, id) = (receipt.region.to_string(), receipt.id.clone());
            let fields = match before.get(&region).filter(|entry| entry.id == id && id != item.id) {
                Some(entry) => entry.fields.clone(),
                // What is there is the same, or newer, and then unknown.
                None if receipt.outcome == Ok(PublishStatus::Stale) => Vec::new(),
                None => SummaryEntry::of(item, fields).fields,
            };
            summary.note(SummaryEntry { region, id, seq: receipt.seq, block: receipt.block, fields });
        }
        summary
    }

    /// Keeps the regions of the last summary that were not handed over; returns what the next one says of them.
    fn keep_others(&self, items: &[Publication], prior: &Summary, published: &mut Published) -> Summary {
        let given: BTreeSet<&str> = items.iter().map(|item| &*item.region).collect();
        let others: Vec<&SummaryEntry> =
            prior.regions.values().filter(|entry| !given.contains(entry.region.as_str())).collect();
        let mut summary = Summary { owner: prior.owner.clone(), ..Summary::default() };
        for (entry, is_there) in self.refresh_ttl(&others, published) {
            match is_there {
                Ok(id) => {
                    published.kept.push(KeptRegion { region: entry.region.clone(), id: id.clone() });
                    let fields = if id == entry.id { entry.fields.clone() } else { Vec::new() };
                    summary.note(SummaryEntry { id, fields, ..entry.clone() });
                }
                // The next publish is to keep it.
                Err(cause) => {
                    published.unkept.push((entry.region.clone(), cause));
                    summary.note(entry.clone());
                }
            }
        }
        summary
    }

    /// Removes the votes of regions that will not come to a summary, since others failed.
    fn drop_votes(&self, votes: Option<String>, published: &mut Published) {
        let is_mixed = published.failed() > 0 && published.receipts.iter().any(|one| one.outcome.is_ok());
        if let Some(votes) = votes.filter(|_| is_mixed) {
            self.to.ask_aside(&votes, &redis::cmd("DEL").arg(&votes).take(), published);
        }
    }

    /// Notes what came of a publish of some regions, for the summary that is written later.
    fn note_part(&mut self, summary: Option<Summary>, published: &Published) {
        self.since.has_tried |= !published.receipts.is_empty();
        self.since.outcome = self.since.outcome.plus(outcome_of(published, false));
        if summary.is_some() {
            self.summary = summary;
        }
    }

    /// Begins the time to live of regions anew; returns those that have data, with the id of their newest, and those of
    /// which it is not known.
    fn refresh_ttl<'e>(
        &self,
        missing: &[&'e SummaryEntry],
        published: &mut Published,
    ) -> Vec<(&'e SummaryEntry, Result<String, String>)> {
        let mut kept = Vec::new();
        let mut todo = missing.to_vec();
        for pass in 1..=REFRESH_PASSES {
            let mut again = Vec::new();
            for (entry, reply) in self.refresh_ttl_once(&todo, published) {
                match reply {
                    Ok(Some(id)) => kept.push((entry, Ok(id))),
                    // It has expired, and is not in the next summary.
                    Ok(None) => {}
                    Err((_, true)) if pass < REFRESH_PASSES => again.push(entry),
                    Err((cause, _)) => kept.push((entry, Err(cause))),
                }
            }
            if again.is_empty() {
                break;
            }
            todo = again;
        }
        kept
    }

    /// As [`Publisher::refresh_ttl`], once; says of what failed whether it may do better when it is asked again.
    #[allow(clippy::type_complexity, reason = "an id, none, or a cause and whether it may pass")]
    fn refresh_ttl_once<'e>(
        &self,
        todo: &[&'e SummaryEntry],
        published: &mut Published,
    ) -> Vec<(&'e SummaryEntry, Result<Option<String>, (String, bool)>)> {
        let PublishPlan { keys, pipeline, ttl, .. } = &self.to.plan;
        let ttl = millis(*ttl).to_string();
        let mut of_node: BTreeMap<String, (Arc<Node>, Vec<&'e SummaryEntry>)> = BTreeMap::new();
        let mut ends = Vec::new();
        for entry in todo {
            match self.to.topology.node_of(&keys.of_region(Key::Latest, pipeline, &entry.region)) {
                Ok(node) => of_node.entry(node.name().to_owned()).or_insert((node, Vec::new())).1.push(entry),
                Err(error) => ends.push((*entry, Err((error.to_string(), false)))),
            }
        }
        let call = |(at, entry): (usize, &&SummaryEntry)| {
            let names = [Key::Latest, Key::Seq, Key::Index].map(|key| keys.of_region(key, pipeline, &entry.region));
            let arguments = [&entry.region, &ttl, keys.template(Key::Doc), keys.template(Key::At), pipeline];
            self.refresh.call(at > 0, names.iter().map(String::as_str), arguments.map(str::as_bytes))
        };
        let ask = |(node, entries): (Arc<Node>, Vec<&'e SummaryEntry>)| {
            let answer = node.ask(entries.iter().enumerate().map(call));
            (node, entries, answer)
        };
        let asked: Vec<_> =
            self.to.threads.install(|| of_node.into_values().collect::<Vec<_>>().into_par_iter().map(ask).collect());
        published.round_trips += asked.iter().map(|(_, _, answer)| answer.trips).max().unwrap_or(0);
        for (node, entries, answer) in asked {
            let mut replies = answer.replies.values.into_iter();
            for entry in entries {
                let end = match replies.next() {
                    Some(Value::BulkString(id)) => Ok(Some(String::from_utf8_lossy(&id).into_owned())),
                    Some(Value::Nil) => Ok(None),
                    Some(Value::ServerError(error)) => {
                        let may_pass = self.to.note_moved(&node, &error) || error.code() == "NOSCRIPT";
                        Err((server_text(&error), may_pass))
                    }
                    _ => {
                        let broke = answer.replies.broke.as_ref();
                        let cause = broke.map_or("no answer came", Break::cause).to_owned();
                        Err((cause, broke.is_some_and(Break::was_connected)))
                    }
                };
                ends.push((entry, end));
            }
        }
        ends
    }
}

/// Notes of which block the newest is where it is another than what was handed over: the last summary knows.
fn note_blocks(items: &[Publication], prior: &Summary, receipts: &mut [PublishReceipt]) {
    for (item, receipt) in items.iter().zip(receipts) {
        if receipt.outcome.is_ok() && (receipt.id != item.id || receipt.seq != item.seq) {
            let there = prior.regions.get(&*receipt.region).filter(|entry| entry.id == receipt.id);
            receipt.block = there.and_then(|entry| entry.block);
        }
    }
}

fn sha1_of(bytes: &[u8]) -> String {
    redis::Script::new(&String::from_utf8_lossy(bytes)).get_hash().to_owned()
}
