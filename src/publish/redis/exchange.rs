//! One publish, until each region is decided.
//!
//! A reply decides one region and no other. A connection that breaks is tried once more on a fresh one, with what it left
//! unanswered: the script tells a snapshot that is there already from one that is not, so nothing is published twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::connections::{Connections, millis};
use super::events::event_text;
use super::keys::Key;
use super::outcome::Extent;
use super::owners::Owners;
use super::refused::ahead_of_redis;
use super::summary::{Owner, SummaryEntry, around, entry_text};
use crate::model::chance::token;
use crate::model::limits::{
    DOCUMENT_ALONE_BYTES, DOCUMENT_BYTES_MAX, PUBLISH_BREAKS_MAX, PUBLISH_REQUEST_BYTES_MAX, PUBLISH_RETRY_WAIT_MAX,
    PUBLISH_RETRY_WAIT_MIN, PUBLISH_VOTERS_MAX, SEQ_AHEAD_MAX,
};
use crate::model::timestamp::Timestamp;
use crate::model::wait::pause;
use crate::publish::{Publication, PublishError, PublishPlan, PublishReceipt, PublishStatus};
use crate::redis::node::{Answer, Node};
use crate::redis::topology::{Host, PART_OF_CLUSTER, redirection};
use crate::redis::wire::{Break, NO_EVAL, code_of, server_text};

/// How often a script may be forgotten within one request before its regions fail.
const SCRIPT_LOSSES_MAX: u32 = 2;

/// Tries of one publish that are followed without a pause, and in all.
const HOPS_MAX: u32 = 4;
const REDIRECTIONS_MAX: u32 = 1000;

/// The place of the document's key among those of a snapshot.
const DOC: usize = 2;

/// What became of one region in one request.
enum End {
    Done {
        status: PublishStatus,
        id: String,
        seq: u64,
        is_summed: bool,
        is_settled: bool,
        /// A store publishes the region too, and this was given by hand.
        is_of_store: bool,
        /// Why who listens was not told; empty if he was.
        untold: String,
        at: Instant,
    },
    Failed(PublishError),
    /// It is to be tried again: elsewhere, or after a while.
    Again {
        error: PublishError,
        redirect: Redirect,
    },
}

#[derive(Clone)]
enum Redirect {
    /// The slot is another server's now.
    Moved(u16, Host),
    /// The slot is moving, and this key is there already.
    Ask(Host),
    /// Later.
    Wait,
    /// Without the votes, whose key the user may not touch.
    Unvoted,
}

/// A request: regions of one server.
#[derive(Clone)]
struct Request {
    node: Arc<Node>,
    is_asking: bool,
    reads_summary: bool,
    items: Vec<usize>,
}

struct RequestEnd {
    ends: Vec<(usize, End)>,
    /// What the summary key held, and who said so.
    summary: Option<(Arc<Node>, Value)>,
    /// Why it is not known what the summary key held.
    no_summary: Option<PublishError>,
    trips: u32,
    /// Items whose first answer was lost: what is found there may be theirs.
    doubted: Vec<usize>,
}

/// One publish, until each region is decided.
pub(super) struct Exchange<'p> {
    to: &'p Connections,
    items: &'p [Publication],
    keys: Vec<Vec<String>>,
    started: Instant,
    doubted: Vec<bool>,
    asked: HashMap<usize, Host>,
    pub(super) receipts: Vec<PublishReceipt>,
    pub(super) trips: u32,
    /// What the summary key held; none if it was not asked for.
    pub(super) prior: Option<Value>,
    /// Why it is not known, although it was asked for.
    pub(super) no_prior: Option<PublishError>,
    wants_prior: bool,
    pub(super) is_summed: bool,
    /// The health key is written and the lock given back.
    pub(super) is_settled: bool,
    /// Regions of documents given by hand that a store publishes too.
    pub(super) of_stores: Vec<String>,
    /// Why who listens was not told of a snapshot.
    pub(super) untold: Option<String>,
    /// The key under which regions vote, if they do.
    pub(super) votes: Option<String>,
    pub(super) is_unreachable: bool,
    /// Servers that did not answer a request at all in this try: its other requests need not find out again.
    dead: Mutex<HashMap<String, Break>>,
}

impl<'p> Exchange<'p> {
    pub(super) fn new(
        to: &'p Connections,
        items: &'p [Publication],
        extent: Extent,
        wants_prior: bool,
        started: Instant,
    ) -> Self {
        let PublishPlan { keys, pipeline, .. } = &to.plan;
        let may_vote = extent == Extent::Whole { is_clean: true }
            && !to.topology.is_cluster()
            && (1..=PUBLISH_VOTERS_MAX).contains(&items.len());
        Self {
            to,
            items,
            keys: items.iter().map(|item| keys.of(pipeline, item)).collect(),
            started,
            doubted: vec![false; items.len()],
            asked: HashMap::new(),
            receipts: items
                .iter()
                .map(|item| PublishReceipt::of(item, Err(PublishError::Refused("it was not tried".into()))))
                .collect(),
            trips: 0,
            prior: None,
            no_prior: None,
            wants_prior,
            is_summed: false,
            is_settled: false,
            of_stores: Vec::new(),
            untold: None,
            is_unreachable: false,
            dead: Mutex::default(),
            votes: may_vote.then(|| format!("{}:{}", keys.summary(pipeline), token())),
        }
    }

    /// Blocks until each region is decided.
    pub(super) fn run(&mut self) {
        let mut todo: Vec<usize> = (0..self.items.len()).filter(|at| !self.is_too_large(*at)).collect();
        self.refuse_shared_ids(&mut todo);
        self.refuse_equal_keys(&mut todo);
        self.refuse_keys_of_others(&mut todo);
        match self.to.topology.discover() {
            Ok(trips) => self.trips += trips,
            Err(error) => {
                let error = PublishError::from(error);
                self.is_unreachable = true;
                self.fail(&todo, &error);
                self.no_prior = Some(error);
                return;
            }
        }
        let mut wait = PUBLISH_RETRY_WAIT_MIN;
        let mut hops = 0;
        loop {
            let again = self.try_once(&todo);
            if again.is_empty() {
                return;
            }
            let patience = match self.to.is_patient {
                true => self.to.plan.timeout.max(PUBLISH_RETRY_WAIT_MAX).saturating_mul(2),
                false => Duration::ZERO,
            };
            // Redirections are followed in any case.
            let must_pause = again.iter().any(|(.., redirect)| matches!(redirect, Redirect::Wait));
            if must_pause && self.started.elapsed() + wait > patience || hops > REDIRECTIONS_MAX {
                again.into_iter().for_each(|(at, error, _)| self.receipts[at].outcome = Err(error));
                return;
            }
            hops += 1;
            // Servers that send each other's keys back and forth have to agree first.
            let mut must_wait = hops > HOPS_MAX;
            todo = Vec::new();
            for (at, _, redirect) in again {
                todo.push(at);
                match redirect {
                    Redirect::Moved(slot, host) => self.to.topology.note_moved(slot, host),
                    Redirect::Ask(host) => drop(self.asked.insert(at, host)),
                    Redirect::Wait => must_wait = true,
                    Redirect::Unvoted => self.votes = None,
                }
            }
            if must_wait {
                pause(wait, || false);
                wait = (wait * 2).min(PUBLISH_RETRY_WAIT_MAX);
                // A server that is gone may have been replaced. If nobody says so, the next try tells.
                if let Ok(trips) = self.to.topology.refresh() {
                    self.trips += trips;
                }
            }
        }
    }

    /// Refuses documents that would be under one key: their ids were given, and are those of another region too.
    fn refuse_shared_ids(&mut self, todo: &mut Vec<usize>) {
        if self.to.plan.id_field.is_none() {
            return;
        }
        let mut first: HashMap<&str, usize> = HashMap::new();
        let mut shared = BTreeMap::new();
        for at in todo.iter().copied() {
            if let Some(other) = first.insert(&self.keys[at][DOC], at) {
                shared.extend([(at, other), (other, at)]);
            }
        }
        for (at, other) in &shared {
            let (id, region) = (&self.items[*at].id, &self.items[*other].region);
            let message =
                format!("the id {id:?} is also that of region {region:?}, and their documents would share a key");
            self.receipts[*at].outcome = Err(PublishError::Document(message));
        }
        todo.retain(|at| !shared.contains_key(at));
    }

    /// Refuses regions of which two keys have one name: one would be written over the other.
    fn refuse_equal_keys(&mut self, todo: &mut Vec<usize>) {
        let summary = self.to.plan.keys.summary(&self.to.plan.pipeline);
        todo.retain(|at| {
            let keys = &self.keys[*at];
            let is_twice = |(place, key): (usize, &String)| *key == summary || keys[..place].contains(key);
            let twice = keys.iter().enumerate().find(|(place, key)| is_twice((*place, key)));
            if let Some((_, key)) = twice {
                let message =
                    format!("two of its keys would be {key:?}: the templates of [snapshots.keys] must differ");
                self.receipts[*at].outcome = Err(PublishError::Document(message));
            }
            twice.is_none()
        });
    }

    /// Refuses regions and ids that would make a key of theirs the key of another region.
    fn refuse_keys_of_others(&mut self, todo: &mut Vec<usize>) {
        let owners = Owners::new(&self.to.plan.keys, &self.to.plan.pipeline);
        todo.retain(|at| {
            let clash = owners.clash(&self.items[*at].region, &self.keys[*at]);
            if let Some(clash) = &clash {
                self.receipts[*at].outcome = Err(PublishError::Document(clash.to_string()));
            }
            clash.is_none()
        });
    }

    fn is_too_large(&mut self, at: usize) -> bool {
        let len = self.items[at].doc.len();
        let is_too_large = len > DOCUMENT_BYTES_MAX;
        if is_too_large {
            let message = format!("the document has {len} bytes; Redis takes {DOCUMENT_BYTES_MAX} at most");
            self.receipts[at].outcome = Err(PublishError::Document(message));
        }
        is_too_large
    }

    fn fail(&mut self, todo: &[usize], error: &PublishError) {
        for at in todo {
            self.receipts[*at].outcome = Err(error.clone());
            self.receipts[*at].took = self.started.elapsed();
        }
    }

    /// Sends each of `todo` once; returns those that are to be tried again.
    fn try_once(&mut self, todo: &[usize]) -> Vec<(usize, PublishError, Redirect)> {
        let mut again = Vec::new();
        let requests = self.requests(todo, &mut again);
        self.dead().clear();
        let ends_of = self.send_all(&requests);
        self.trips += ends_of.iter().map(|ends| ends.iter().map(|end| end.trips).sum()).max().unwrap_or(0);
        for end in ends_of.into_iter().flatten() {
            if let Some((node, reply)) = end.summary {
                if let Value::ServerError(error) = &reply {
                    self.to.note_moved(&node, error);
                }
                (self.prior, self.wants_prior) = (Some(reply), false);
            }
            self.no_prior = end.no_summary.filter(|_| self.wants_prior).or(self.no_prior.take());
            end.doubted.into_iter().for_each(|at| self.doubted[at] = true);
            for (at, end) in end.ends {
                self.take(at, end, &mut again);
            }
        }
        again
    }

    /// Sends requests from all threads at once: to each its own, so that none waits for another's round trip; then what is
    /// left, to whoever comes first.
    fn send_all(&self, requests: &[Request]) -> Vec<Vec<RequestEnd>> {
        let threads = &self.to.threads;
        let next = AtomicUsize::new(threads.current_num_threads());
        let send = |first: usize| {
            let mut ends = Vec::new();
            let mut at = first;
            while let Some(request) = requests.get(at) {
                ends.push(self.send(request));
                at = next.fetch_add(1, Ordering::Relaxed);
            }
            ends
        };
        match requests {
            [_] => vec![threads.install(|| send(0))],
            _ => threads.broadcast(|thread| send(thread.index())),
        }
    }

    fn take(&mut self, at: usize, end: End, again: &mut Vec<(usize, PublishError, Redirect)>) {
        let receipt = &mut self.receipts[at];
        match end {
            End::Done { status, id, seq, is_summed, is_settled, is_of_store, untold, at: answered } => {
                self.untold = self.untold.take().or(Some(untold).filter(|cause| !cause.is_empty()));
                if is_of_store {
                    self.of_stores.push(receipt.region.to_string());
                }
                self.is_summed |= is_summed;
                self.is_settled |= is_settled;
                (receipt.outcome, receipt.id, receipt.seq) = (Ok(status), id, seq);
                receipt.took = answered.duration_since(self.started);
            }
            End::Failed(error) => {
                receipt.outcome = Err(error);
                receipt.took = self.started.elapsed();
            }
            End::Again { error, redirect } => {
                receipt.took = self.started.elapsed();
                again.push((at, error, redirect));
            }
        }
    }

    /// Spreads regions over requests: as many as there are connections, none too large.
    fn requests(&mut self, todo: &[usize], again: &mut Vec<(usize, PublishError, Redirect)>) -> Vec<Request> {
        let topology = &self.to.topology;
        let mut of_node: BTreeMap<(String, bool), (Arc<Node>, Vec<usize>)> = BTreeMap::new();
        for at in todo {
            let asked = self.asked.remove(at);
            let node = match &asked {
                Some(host) => topology.node_at(host),
                None => topology.node_of(&self.keys[*at][0]),
            };
            match node {
                Ok(node) => {
                    let key = (node.name().to_owned(), asked.is_some());
                    of_node.entry(key).or_insert((node, Vec::new())).1.push(*at);
                }
                Err(error) => again.push((*at, error.into(), Redirect::Wait)),
            }
        }
        let mut requests = Vec::new();
        let (pool, regions) = (self.to.plan.pool.max(1), todo.len().max(1));
        for ((_, is_asking), (node, items)) in of_node {
            // As many of the connections as its share of the regions.
            let connections = (items.len() * pool / regions).max(1);
            let share = items.len().div_ceil(connections);
            let (mut held, mut bytes) = (Vec::new(), 0);
            let request =
                |items: Vec<usize>| Request { node: Arc::clone(&node), is_asking, reads_summary: false, items };
            for at in items {
                let len = self.items[at].doc.len();
                let is_full = held.len() >= share || bytes + len > PUBLISH_REQUEST_BYTES_MAX;
                // What the server may refuse by hanging up stands alone.
                if !held.is_empty()
                    && (is_full || len > DOCUMENT_ALONE_BYTES || bytes > DOCUMENT_ALONE_BYTES && held.len() == 1)
                {
                    requests.push(request(std::mem::take(&mut held)));
                    bytes = 0;
                }
                held.push(at);
                bytes += len;
            }
            if !held.is_empty() {
                requests.push(request(held));
            }
        }
        self.ask_for_summary(&mut requests);
        requests
    }

    /// Lets the summary be read ahead of the regions: with one of their requests, or beside them.
    fn ask_for_summary(&self, requests: &mut Vec<Request>) {
        if !self.wants_prior {
            return;
        }
        let key = self.to.plan.keys.summary(&self.to.plan.pipeline);
        let Ok(node) = self.to.topology.node_of(&key) else { return };
        match requests.iter_mut().find(|request| Arc::ptr_eq(&request.node, &node) && !request.is_asking) {
            Some(request) => request.reads_summary = true,
            None => requests.push(Request { node, is_asking: false, reads_summary: true, items: Vec::new() }),
        }
    }

    /// Contract of a thread that publishes. In: one request. Writes: each of its regions by one script. Out: an end for
    /// each of them. Ends: when each is decided; a connection that breaks is replaced once without progress, and not
    /// more often than a limit with it.
    fn send(&self, request: &Request) -> RequestEnd {
        let mut sending = Sending::new(self, request);
        let dead = self.dead().get(request.node.name()).cloned();
        if let Some(broke) = dead {
            sending.give_up(&broke);
            return sending.end;
        }
        while !sending.is_done() {
            let asked = sending.pending.len();
            let broke = sending.ask();
            let is_over = match broke {
                _ if sending.is_done() => true,
                None => sending.note_forgotten(asked),
                Some(broke) => sending.note_break(&broke, asked),
            };
            if is_over {
                break;
            }
        }
        sending.end
    }

    fn dead(&self) -> MutexGuard<'_, HashMap<String, Break>> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A region whose server does not answer: another one may have taken its place in a cluster.
    fn lost(&self, node: &Node, broke: &Break) -> End {
        let error = PublishError::from(node.error(broke));
        // Where no more connections are to be had, one that there is will be free.
        match self.to.topology.is_cluster() || matches!(broke, Break::Crowded(_)) {
            true => End::Again { error, redirect: Redirect::Wait },
            false => End::Failed(error),
        }
    }

    /// The commands of a request, made one by one as they are sent.
    fn commands<'c>(
        &'c self,
        items: &'c [usize],
        is_asking: bool,
        reads_summary: bool,
    ) -> impl Iterator<Item = Cmd> + 'c {
        let PublishPlan { keys, pipeline, ttl, dedup, signature, takes_over, summary_fields, .. } = &self.to.plan;
        let summary = keys.summary(pipeline);
        let first = reads_summary.then(|| redis::cmd("GET").arg(&summary).take());
        let ttl = millis(*ttl).to_string();
        let window = dedup.as_millis().to_string();
        let oldest = Timestamp::now().saturating_sub(self.to.plan.ttl).as_micros().div_euclid(1000).to_string();
        let voters = if self.votes.is_some() { self.items.len() } else { 0 }.to_string();
        let (head, tail) = if self.votes.is_some() { around(pipeline, &Owner::default()) } else { (String::new(), "") };
        // The numbers of a store are no times.
        let ahead = if signature.is_some() { String::new() } else { SEQ_AHEAD_MAX.as_millis().to_string() };
        let has_login = self.to.url.credentials().is_some();
        let lock = self.to.lock.as_ref().filter(|_| !self.to.topology.is_cluster());
        let (lock_key, lock) = lock.map_or(("", ""), |lock| (&*lock.key, &*lock.value));
        let health = self.to.plan.health.as_ref().zip(keys.health(pipeline)).filter(|_| self.votes.is_some());
        let (health, health_key) =
            health.map_or_else(Default::default, |(health, key)| (health.text_if_well(self.items.len()), key));
        let call = move |(at, item): (usize, &usize)| {
            let publication = &self.items[*item];
            let Publication { region, id, seq, time, doc, follows_rollback, .. } = publication;
            let window = if *follows_rollback { "0" } else { window.as_str() };
            let seq_text = seq.to_string();
            let time = time.as_micros().div_euclid(1000).to_string();
            let mut voting = Vec::new();
            let mut entry = String::new();
            if let Some(votes) = &self.votes {
                voting = vec![summary.clone(), votes.clone()];
                entry = entry_text(&SummaryEntry::of(publication, summary_fields));
            }
            let names = self.keys[*item].iter().chain(&voting).map(String::as_str);
            let event = event_text(publication);
            let arguments: [&str; 19] = [
                region,
                id,
                &seq_text,
                doc,
                &time,
                &ttl,
                window,
                &oldest,
                keys.template(Key::Doc),
                keys.template(Key::At),
                pipeline,
                // A user without a name may be restricted too: then each request's first region tells.
                if has_login || at == 0 { "1" } else { "0" },
                signature.as_deref().unwrap_or_default(),
                self.to.predecessor.as_deref().unwrap_or_default(),
                if *takes_over { "1" } else { "0" },
                &ahead,
                lock_key,
                lock,
                &event,
            ];
            let has_fields = if summary_fields.is_empty() { "0" } else { "1" };
            let votes = [voters.as_str(), &entry, &head, tail, &health_key, &health, has_fields];
            let arguments = arguments.into_iter().chain(votes.into_iter().filter(|_| self.votes.is_some()));
            let call = self.to.script.call(at > 0, names, arguments.map(str::as_bytes));
            is_asking.then(|| redis::cmd("ASKING")).into_iter().chain([call])
        };
        first.into_iter().chain(items.iter().enumerate().flat_map(call))
    }

    /// What a reply says of a region; none if the script was not known.
    fn end_of(&self, node: &Node, item: usize, reply: Value, is_doubted: bool, at: Instant) -> Option<End> {
        let error = match reply {
            Value::Array(parts) => return Some(self.done(item, &parts, is_doubted, at)),
            Value::ServerError(error) => error,
            other => {
                return Some(End::Failed(PublishError::Refused(format!(
                    "an answer that is not understood: {other:?}"
                ))));
            }
        };
        let text = server_text(&error);
        let details = error.details().unwrap_or_default();
        let refused = PublishError::Refused(text.clone());
        let away = |cause: String| PublishError::Away { target: node.name().into(), cause };
        let later = || End::Again { error: away(text.clone()), redirect: Redirect::Wait };
        let is_cluster = self.to.topology.is_cluster();
        Some(match code_of(&error) {
            "NOSCRIPT" => return None,
            "SIGNED" => End::Failed(self.to.other_store(details)),
            "UNLOCKED" => End::Failed(PublishError::Unlocked),
            "TAKEN" => End::Failed(self.taken(item)),
            "AHEAD" => End::Failed(ahead_of_redis(self.items[item].seq, details)),
            "MOVED" | "ASK" | "CROSSSLOT" if !is_cluster => End::Failed(away(format!("{text}: {PART_OF_CLUSTER}"))),
            code @ ("MOVED" | "ASK") => match redirection(details, node.host.as_ref()) {
                Some((slot, host)) if code == "MOVED" => {
                    End::Again { error: refused, redirect: Redirect::Moved(slot, host) }
                }
                Some((_, host)) => End::Again { error: refused, redirect: Redirect::Ask(host) },
                None => End::Failed(refused),
            },
            "LOADING" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "BUSY" => later(),
            "READONLY" if is_cluster => later(),
            "NOPERM" if self.votes.is_some() => End::Again { error: refused, redirect: Redirect::Unvoted },
            "READONLY" | "NOAUTH" | NO_EVAL => End::Failed(away(text)),
            _ => End::Failed(refused),
        })
    }

    /// What is said of a document whose key is taken.
    fn taken(&self, item: usize) -> PublishError {
        let (id, key) = (&self.items[item].id, &self.keys[item][DOC]);
        PublishError::Document(format!(
            "the id {id:?}: its key {key:?} is there, and is not in this region's index: it may be another region's document; \
             give another id, or put <region> into the template of doc. If nobody needs the key, delete it"
        ))
    }

    fn done(&self, item: usize, parts: &[Value], is_doubted: bool, at: Instant) -> End {
        let text = |value: &Value| match value {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        };
        let [status, id, seq, summed, signed, settled, untold] = parts else {
            return End::Failed(PublishError::Refused("an answer that is not understood".into()));
        };
        let status = match text(status).as_str() {
            "published" => PublishStatus::Published,
            // The answer to the first try was lost, and it is what that one wrote.
            "same" if is_doubted => PublishStatus::Published,
            "stale" => PublishStatus::Stale,
            "same" | "duplicate" => PublishStatus::Duplicate,
            _ => return End::Failed(PublishError::Refused("an answer that is not understood".into())),
        };
        let seq = text(seq).parse().unwrap_or(self.items[item].seq);
        let is_of_store = self.to.plan.signature.is_none() && !text(signed).is_empty();
        let (is_summed, is_settled) = (*summed == Value::Int(1), *settled == Value::Int(1));
        End::Done { status, id: text(id), seq, is_summed, is_settled, is_of_store, untold: text(untold), at }
    }
}

/// A request on its way.
struct Sending<'s> {
    exchange: &'s Exchange<'s>,
    node: Arc<Node>,
    is_asking: bool,
    reads_summary: bool,
    /// What is not decided yet.
    pending: Vec<usize>,
    end: RequestEnd,
    /// Connections that broke, and how many in a row without a reply in between.
    breaks: u32,
    stuck: u32,
    /// How often in a row the script's text was forgotten.
    forgotten: u32,
}

impl<'s> Sending<'s> {
    fn new(exchange: &'s Exchange<'s>, request: &Request) -> Self {
        let Request { node, is_asking, reads_summary, items } = request.clone();
        let end = RequestEnd {
            ends: Vec::with_capacity(items.len()),
            summary: None,
            no_summary: None,
            trips: 0,
            doubted: Vec::new(),
        };
        Self { exchange, node, is_asking, reads_summary, pending: items, end, breaks: 0, stuck: 0, forgotten: 0 }
    }

    fn is_done(&self) -> bool {
        self.pending.is_empty() && !self.reads_summary
    }

    /// Sends what is pending and takes the replies; says why some did not come.
    fn ask(&mut self) -> Option<Break> {
        let commands = self.exchange.commands(&self.pending, self.is_asking, self.reads_summary);
        let Answer { replies, trips } = self.node.ask(commands);
        self.end.trips += trips;
        let at = Instant::now();
        let mut values = replies.values.into_iter();
        if self.reads_summary
            && let Some(reply) = values.next()
        {
            (self.end.summary, self.reads_summary) = (Some((Arc::clone(&self.node), reply)), false);
        }
        for item in std::mem::take(&mut self.pending) {
            let reply = if self.is_asking { values.nth(1) } else { values.next() };
            let is_doubted = self.exchange.doubted[item] || self.end.doubted.contains(&item);
            match reply.map(|reply| self.exchange.end_of(&self.node, item, reply, is_doubted, at)) {
                Some(Some(one)) => self.end.ends.push((item, one)),
                // No reply; or its text was forgotten between two commands, and the next request sends it again.
                None | Some(None) => self.pending.push(item),
            }
        }
        replies.broke
    }

    /// Each reply came, and some said that the script is not known; says whether to give up.
    fn note_forgotten(&mut self, asked: usize) -> bool {
        // Of a slot that has moved the first command was sent elsewhere, and took the script's text along.
        self.forgotten = if self.pending.len() < asked { 0 } else { self.forgotten + 1 };
        if self.forgotten <= SCRIPT_LOSSES_MAX {
            return false;
        }
        let error = PublishError::Refused("Redis forgets scripts as fast as it gets them".into());
        self.end.ends.extend(self.pending.drain(..).map(|item| (item, End::Failed(error.clone()))));
        true
    }

    /// The connection broke; says whether to give up.
    fn note_break(&mut self, broke: &Break, asked: usize) -> bool {
        self.breaks += 1;
        self.stuck = if self.pending.len() < asked { 1 } else { self.stuck + 1 };
        let is_over = match broke {
            // A new connection was tried just now.
            Break::NoEntry(_) | Break::Crowded(_) => true,
            Break::Stalled(_) => self.breaks > 1,
            Break::Dropped(_) => self.breaks > PUBLISH_BREAKS_MAX || self.pending.is_empty() && self.stuck > 1,
        };
        if is_over {
            if self.end.ends.is_empty() && matches!(broke, Break::NoEntry(_) | Break::Stalled(_)) {
                self.exchange.dead().insert(self.node.name().to_owned(), broke.clone());
            }
            self.give_up(broke);
            return true;
        }
        self.end.doubted.extend(&self.pending);
        if self.stuck > 1 {
            // Twice the connection broke at this one.
            let item = self.pending.remove(0);
            self.end.ends.push((item, self.exchange.lost(&self.node, broke)));
            self.stuck = 0;
        }
        false
    }

    /// Ends what is pending: its server does not answer.
    fn give_up(&mut self, broke: &Break) {
        let lost = |item| (item, self.exchange.lost(&self.node, broke));
        self.end.no_summary = self.reads_summary.then(|| self.node.error(broke).into());
        self.end.ends.extend(std::mem::take(&mut self.pending).into_iter().map(lost));
    }
}
