//! The servers: one, or those of a cluster and which slots are whose.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::Value;

use super::Unreached;
use super::address::RedisUrl;
use super::node::Node;
use super::slots::slot_of;
use super::wire::server_text;

pub(crate) type Host = (String, u16);

/// What is said where a cluster's server was given as if it were the only one.
pub(crate) const PART_OF_CLUSTER: &str = "it is part of a cluster; expected redis+cluster://host,host";

/// Slots of a cluster.
const SLOTS: usize = 16_384;

/// The servers.
pub(crate) enum Topology {
    One(Arc<Node>),
    Cluster(Box<Cluster>),
}

impl Topology {
    /// At most `pool` connections to each server. Connects to nothing yet.
    pub(crate) fn new(url: &RedisUrl, pool: usize, timeout: Duration) -> Result<Self, Unreached> {
        if url.is_cluster() {
            return Ok(Self::Cluster(Box::new(Cluster {
                url: url.clone(),
                pool,
                timeout,
                state: Mutex::default(),
                asked: AtomicUsize::new(0),
            })));
        }
        Ok(Self::One(Arc::new(Node::new(url, None, pool, timeout)?)))
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Makes sure that it is known whose the slots are; returns the round trips it took. May block.
    pub(crate) fn discover(&self) -> Result<u32, Unreached> {
        match self {
            Self::Cluster(cluster) if !cluster.is_known() => cluster.refresh(),
            _ => Ok(0),
        }
    }

    /// Looks again whose the slots are. May block.
    pub(crate) fn refresh(&self) -> Result<u32, Unreached> {
        match self {
            Self::Cluster(cluster) => cluster.refresh(),
            Self::One(_) => Ok(0),
        }
    }

    /// The server that holds a key.
    pub(crate) fn node_of(&self, key: &str) -> Result<Arc<Node>, Unreached> {
        match self {
            Self::One(node) => Ok(Arc::clone(node)),
            Self::Cluster(cluster) => cluster.node_of(key),
        }
    }

    /// A server by its address: one that another has named.
    pub(crate) fn node_at(&self, host: &Host) -> Result<Arc<Node>, Unreached> {
        match self {
            Self::One(node) => Ok(Arc::clone(node)),
            Self::Cluster(cluster) => cluster.node_at(host),
        }
    }

    /// All servers: of a cluster those that have slots, by host and port.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        match self {
            Self::One(node) => vec![Arc::clone(node)],
            Self::Cluster(cluster) => {
                let owners: BTreeSet<Host> = cluster.state().owners.iter().flatten().cloned().collect();
                owners.iter().filter_map(|host| cluster.node_at(host).ok()).collect()
            }
        }
    }

    /// Notes that a slot is another server's now.
    pub(crate) fn note_moved(&self, slot: u16, host: Host) {
        if let Self::Cluster(cluster) = self
            && let Some(owner) = cluster.state().owners.get_mut(usize::from(slot))
        {
            *owner = Some(host);
        }
    }
}

#[derive(Default)]
struct State {
    nodes: HashMap<Host, Arc<Node>>,
    /// Whose each slot is; empty before anybody was asked.
    owners: Vec<Option<Host>>,
}

pub(crate) struct Cluster {
    url: RedisUrl,
    /// Connections to each server at most.
    pool: usize,
    timeout: Duration,
    state: Mutex<State>,
    /// How often anybody was asked.
    asked: AtomicUsize,
}

impl Cluster {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_known(&self) -> bool {
        !self.state().owners.is_empty()
    }

    fn away(&self, cause: impl Into<String>) -> Unreached {
        Unreached { target: self.url.to_string(), cause: cause.into() }
    }

    fn node_at(&self, host: &Host) -> Result<Arc<Node>, Unreached> {
        if let Some(node) = self.state().nodes.get(host) {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(Node::new(&self.url, Some(host.clone()), self.pool, self.timeout)?);
        Ok(Arc::clone(self.state().nodes.entry(host.clone()).or_insert(node)))
    }

    fn node_of(&self, key: &str) -> Result<Arc<Node>, Unreached> {
        let slot = slot_of(key);
        let owner = self.state().owners.get(usize::from(slot)).cloned().flatten();
        let owner = owner.ok_or_else(|| self.away(format!("slot {slot} is nobody's; is the cluster whole?")))?;
        self.node_at(&owner)
    }

    /// Asks the servers that are known, one after another, until one answers.
    fn refresh(&self) -> Result<u32, Unreached> {
        let mut hosts: Vec<Host> = self.state().nodes.keys().cloned().collect();
        hosts.extend(self.url.named());
        // Not always the same one first: it may be cut off from the others and not know.
        let first = self.asked.fetch_add(1, Ordering::Relaxed) % hosts.len().max(1);
        hosts.rotate_left(first);
        let mut trips = 0;
        let mut failure = self.away("no host is named");
        let mut asked: Vec<Host> = Vec::new();
        for host in hosts {
            if asked.contains(&host) {
                continue;
            }
            let node = self.node_at(&host)?;
            let answer = node.ask([redis::cmd("CLUSTER").arg("SLOTS").take()]);
            trips += answer.trips;
            match (answer.replies.values.first(), answer.replies.broke) {
                (Some(Value::Array(ranges)), _) => {
                    let owners = owners(ranges, &host);
                    if owners.iter().any(Option::is_some) {
                        let mut state = self.state();
                        let is_owner = |host: &Host| owners.iter().flatten().any(|owner| owner == host);
                        state.nodes.retain(|host, _| is_owner(host));
                        state.owners = owners;
                        return Ok(trips);
                    }
                    failure = self.away(format!("{} knows no slots yet", node.name()));
                }
                (Some(Value::ServerError(error)), _) => failure = self.refused(&node, &server_text(error)),
                (_, Some(broke)) => failure = node.error(&broke),
                _ => failure = self.away(format!("{} gave no answer that is understood", node.name())),
            }
            asked.push(host);
        }
        Err(failure)
    }

    fn refused(&self, node: &Node, text: &str) -> Unreached {
        let advice =
            if text.contains("cluster support disabled") { "; it is no cluster, expected redis://host" } else { "" };
        Unreached { target: node.name().to_owned(), cause: format!("{text}{advice}") }
    }
}

/// Whose each slot is, from the answer to `CLUSTER SLOTS` of the server at `asked`.
fn owners(ranges: &[Value], asked: &Host) -> Vec<Option<Host>> {
    let mut owners = vec![None; SLOTS];
    for range in ranges {
        let Value::Array(parts) = range else { continue };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else { continue };
        let [host, Value::Int(port), ..] = master.as_slice() else { continue };
        let host = match host {
            Value::BulkString(name) if !name.is_empty() && name != b"?" => String::from_utf8_lossy(name).into_owned(),
            Value::SimpleString(name) if !name.is_empty() && name != "?" => name.clone(),
            // It does not know its own name: the one that we reached it by.
            _ => asked.0.clone(),
        };
        let (Ok(first), Ok(last), Ok(port)) = (usize::try_from(*first), usize::try_from(*last), u16::try_from(*port))
        else {
            continue;
        };
        for owner in owners.iter_mut().take(last.saturating_add(1)).skip(first) {
            *owner = Some((host.clone(), port));
        }
    }
    owners
}

/// Slot and server that a redirection names: `MOVED 3999 127.0.0.1:6381`. A server without a name is the one that
/// answered.
pub(crate) fn redirection(details: &str, asked: Option<&Host>) -> Option<(u16, Host)> {
    let (slot, place) = details.split_once(' ')?;
    let (host, port) = place.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() || host == "?" { asked?.0.clone() } else { host.to_owned() };
    Some((slot.parse().ok()?, (host, port.parse().ok()?)))
}
