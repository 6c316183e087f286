//! Asking for entries: one stream, on one server or on whichever server of a cluster has it.
//!
//! What follows an entry is asked for together with that entry, in one command: if it is there, nothing behind it was
//! taken out of the stream unread. A server that is away is asked again for a while.

use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::super::trouble::Trouble;
use super::entry::{Anchor, Entry, EntryId};
use super::plan::RedisStreamPlan;
use crate::model::limits::SOURCE_OUTAGE_MAX;
use crate::model::wait::pause;
use crate::redis::node::Node;
use crate::redis::topology::{PART_OF_CLUSTER, Topology, redirection};
use crate::redis::wire::{Break, server_text};

/// How long a server may be away when a run begins: then a mistake in the address is likelier.
const OUTAGE_AT_START_MAX: Duration = Duration::from_secs(10);
/// The wait before the first try, and the longest before any.
const DELAY_MIN: Duration = Duration::from_millis(20);
const DELAY_MAX: Duration = Duration::from_secs(2);
/// Redirections that are followed one after another.
const HOPS_MAX: u32 = 16;
/// How long the server waits for an entry.
const BLOCK_MILLIS: u64 = 250;

/// Why a stream gives no entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamError {
    /// The server, or the address.
    Away(String),
    /// The stream is not what it was.
    Gone(String),
    /// Nobody wants to know any more.
    Stopped,
}

/// What one try came to.
enum Tried {
    /// The answers.
    Answered(Vec<Value>),
    /// Another server has it.
    Elsewhere,
    /// It may do better in a while.
    Again(String),
    Refused(String),
}

/// The entries of a stream behind an anchor.
pub(super) struct Part {
    pub(super) entries: Vec<Entry>,
}

/// A stream, and the way to it.
pub(super) struct Stream {
    key: String,
    name: String,
    topology: Topology,
    has_answered: bool,
    is_impatient: bool,
    /// Why it cannot be reached now.
    pub(super) trouble: Trouble,
}

impl Stream {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub(super) fn new(plan: &RedisStreamPlan) -> Result<Self, String> {
        let topology = Topology::new(&plan.url, 1, plan.timeout).map_err(|error| error.to_string())?;
        Ok(Self {
            key: plan.stream.clone(),
            name: name_of(plan),
            topology,
            has_answered: false,
            is_impatient: false,
            trouble: Trouble::default(),
        })
    }

    /// It asks once.
    pub(super) fn impatient(self) -> Self {
        Self { is_impatient: true, ..self }
    }

    /// Takes the entries before the anchor out of the stream. May block.
    ///
    /// # Errors
    /// The server refuses, or is away.
    pub(super) fn trim(&mut self, anchor: Anchor) -> Result<(), StreamError> {
        let command = redis::cmd("XTRIM").arg(&self.key).arg("MINID").arg(anchor.id.to_string()).take();
        self.ask(&[command], &|| false).map(drop)
    }

    /// The id of the newest entry; none if the stream has none. May block.
    ///
    /// # Errors
    /// There is no stream of that name, or as [`Stream::after`].
    pub(super) fn newest(&mut self, is_over: &dyn Fn() -> bool) -> Result<Option<EntryId>, StreamError> {
        let newest = redis::cmd("XREVRANGE").arg(&self.key).arg("+").arg("-").arg("COUNT").arg(1).take();
        let kind = redis::cmd("TYPE").arg(&self.key).take();
        let answers = self.ask(&[newest, kind], is_over)?;
        let [entries, kind] = <[Value; 2]>::try_from(answers).map_err(|_| self.odd())?;
        if kind == Value::SimpleString("none".into()) {
            return Err(StreamError::Gone(format!("{}: there is no stream of that name", self.name)));
        }
        let newest = self.entries(entries)?.pop();
        Ok(newest.map(|entry| entry.id))
    }

    /// Up to `count` entries behind the anchor, or from the beginning; none behind `last`, if that is given. May block.
    ///
    /// # Errors
    /// The anchor is gone; the server refuses, or is away for too long.
    pub(super) fn after(
        &mut self,
        anchor: Option<Anchor>,
        last: Option<EntryId>,
        count: usize,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Part, StreamError> {
        let from = anchor.map_or_else(|| "-".to_owned(), |anchor| anchor.id.to_string());
        let to = last.map_or_else(|| "+".to_owned(), |last| last.to_string());
        let count = count + usize::from(anchor.is_some());
        let command = redis::cmd("XRANGE").arg(&self.key).arg(from).arg(to).arg("COUNT").arg(count).take();
        let answer = self.ask(&[command], is_over)?.pop().ok_or_else(|| self.odd())?;
        let mut entries = self.entries(answer)?;
        let Some(anchor) = anchor else { return Ok(Part { entries }) };
        let is_there = entries.first().is_some_and(|first| first.id == anchor.id);
        if !is_there {
            return Err(StreamError::Gone(format!(
                "{}: entry {}, the last one that was read, is gone: entries behind it may have been taken out unread, or the \
                 stream was made anew. Keep more of the stream (MAXLEN, MINID), or leave that to forebay (trim = \
                 \"committed\"); a pipeline of another name begins with what there is",
                self.name, anchor.id
            )));
        }
        let first = entries.remove(0);
        if Anchor::of(&first) != anchor {
            return Err(StreamError::Gone(format!(
                "{}: entry {} is another one than the one that was read: the stream was made anew. A pipeline of another \
                 name begins with what there is",
                self.name, anchor.id
            )));
        }
        Ok(Part { entries })
    }

    /// Waits for an entry behind the anchor, for a moment. Blocks.
    ///
    /// # Errors
    /// As [`Stream::after`].
    pub(super) fn wait(&mut self, anchor: Option<Anchor>, is_over: &dyn Fn() -> bool) -> Result<(), StreamError> {
        let from = anchor.map_or_else(|| "0-0".to_owned(), |anchor| anchor.id.to_string());
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(1).arg("BLOCK").arg(BLOCK_MILLIS).arg("STREAMS").arg(&self.key).arg(from);
        self.ask(&[command], is_over).map(drop)
    }

    fn entries(&self, answer: Value) -> Result<Vec<Entry>, StreamError> {
        let Value::Array(entries) = answer else { return Err(self.odd()) };
        entries.into_iter().map(|entry| Entry::of(entry).ok_or_else(|| self.odd())).collect()
    }

    fn odd(&self) -> StreamError {
        StreamError::Away(format!("{}: an answer that is not understood", self.name))
    }

    /// Asks until there is an answer.
    fn ask(&mut self, commands: &[Cmd], is_over: &dyn Fn() -> bool) -> Result<Vec<Value>, StreamError> {
        let limit = match (self.is_impatient, self.has_answered) {
            (true, _) => Duration::ZERO,
            (_, true) => SOURCE_OUTAGE_MAX,
            (_, false) => OUTAGE_AT_START_MAX,
        };
        let (since, mut delay, mut hops, mut is_told) = (Instant::now(), DELAY_MIN, 0, false);
        loop {
            let cause = match self.try_once(commands) {
                Tried::Answered(values) => {
                    if is_told {
                        tracing::info!("{} is back after {} s", self.name, since.elapsed().as_secs());
                    }
                    if delay != DELAY_MIN {
                        self.trouble.set(None);
                    }
                    self.has_answered = true;
                    return Ok(values);
                }
                Tried::Elsewhere if hops < HOPS_MAX => {
                    hops += 1;
                    continue;
                }
                Tried::Elsewhere => "the servers send each other what is asked".to_owned(),
                Tried::Again(cause) => cause,
                Tried::Refused(cause) => return Err(StreamError::Away(format!("{}: {cause}", self.name))),
            };
            if is_over() {
                return Err(StreamError::Stopped);
            }
            if since.elapsed() + delay > limit {
                let seconds = since.elapsed().as_secs();
                let tried = if self.is_impatient { String::new() } else { format!("; it was tried for {seconds} s") };
                return Err(StreamError::Away(format!("{}: {cause}{tried}", self.name)));
            }
            if self.has_answered && !is_told {
                is_told = true;
                tracing::warn!("{}: {cause}; trying again for up to {} s", self.name, limit.as_secs());
            }
            self.trouble.set(Some(format!("{}: {cause}", self.name)));
            pause(delay, is_over);
            (delay, hops) = ((delay * 2).min(DELAY_MAX), 0);
            // A server that is gone may have been replaced. If nobody says so, the next try tells.
            let _ = self.topology.refresh();
        }
    }

    fn try_once(&self, commands: &[Cmd]) -> Tried {
        let node = self.topology.discover().and_then(|_| self.topology.node_of(&self.key));
        match node {
            Ok(node) => self.ask_node(&node, commands, false),
            Err(error) => Tried::Again(error.to_string()),
        }
    }

    /// Asks one server; `is_asked`: the stream is on its way to it.
    fn ask_node(&self, node: &Node, commands: &[Cmd], is_asked: bool) -> Tried {
        let asking = is_asked.then(|| redis::cmd("ASKING"));
        let with_asking = commands.iter().flat_map(|command| asking.iter().chain([command])).cloned();
        let replies = node.ask(with_asking).replies;
        let mut values = Vec::with_capacity(commands.len());
        for (at, value) in replies.values.into_iter().enumerate() {
            match value {
                Value::ServerError(error) => return self.refused(node, &error, commands, is_asked),
                // Every other one answers ASKING.
                value if !is_asked || at % 2 == 1 => values.push(value),
                _ => {}
            }
        }
        match replies.broke {
            None if values.len() == commands.len() => Tried::Answered(values),
            broke => {
                let broke = broke.unwrap_or(Break::Dropped("no answer came".into()));
                Tried::Again(node.error(&broke).to_string())
            }
        }
    }

    fn refused(&self, node: &Node, error: &redis::ServerError, commands: &[Cmd], is_asked: bool) -> Tried {
        let text = server_text(error);
        let to = redirection(error.details().unwrap_or_default(), node.host.as_ref());
        match (error.code(), to) {
            ("MOVED" | "ASK", _) if !self.topology.is_cluster() => Tried::Refused(format!("{text}: {PART_OF_CLUSTER}")),
            ("MOVED", Some((slot, host))) => {
                self.topology.note_moved(slot, host);
                Tried::Elsewhere
            }
            ("ASK", Some((_, host))) if !is_asked => match self.topology.node_at(&host) {
                Ok(node) => self.ask_node(&node, commands, true),
                Err(error) => Tried::Again(error.to_string()),
            },
            ("MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "BUSY" | "UNBLOCKED", _) => {
                Tried::Again(text)
            }
            ("WRONGTYPE", _) => Tried::Refused("the key holds no stream".into()),
            _ => Tried::Refused(text),
        }
    }
}

/// How a stream is called in messages: without a password.
pub(super) fn name_of(plan: &RedisStreamPlan) -> String {
    format!("{} {}", plan.url, plan.stream)
}
