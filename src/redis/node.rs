//! The pool of one server.
//!
//! Nothing is asked at check-out; a connection that broke is dropped when it comes back, and those that are older than
//! a break are not used again: a server that went away has closed them too.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Unreached;
use super::address::RedisUrl;
use super::pool::{Pool, Taken};
use super::wire::{Break, Replies, Wire};

/// A server and the connections to it.
pub(crate) struct Node {
    name: String,
    /// Host and port; none for a socket.
    pub(crate) host: Option<(String, u16)>,
    pool: Pool,
    connections: usize,
    generation: Arc<AtomicU64>,
    wait: Duration,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What came of a request to a server.
pub(crate) struct Answer {
    pub(crate) replies: Replies,
    /// Round trips it took, connecting included.
    pub(crate) trips: u32,
}

impl Node {
    /// A server with at most that many connections. Connects to nothing yet.
    pub(crate) fn new(
        url: &RedisUrl,
        host: Option<(String, u16)>,
        connections: usize,
        timeout: Duration,
    ) -> Result<Self, Unreached> {
        let name = url.name_of(host.as_ref().or(url.named().first()));
        let away = |cause: String| Unreached { target: name.clone(), cause };
        let client = url.client(host.as_ref()).map_err(away)?;
        let generation = Arc::new(AtomicU64::new(0));
        let (url, age) = (url.clone(), Arc::clone(&generation));
        let connect = move || Wire::connect(&url, &client, timeout, age.load(Ordering::Acquire));
        let pool = Pool::new(connections, connect);
        // A name may have several addresses, each with its own time; a second one is worth waiting for.
        Ok(Self {
            name,
            host,
            pool,
            connections,
            generation,
            wait: timeout.saturating_mul(2).saturating_add(Duration::from_secs(1)),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sends commands over a connection of the pool and reads the replies. Blocks.
    pub(crate) fn ask(&self, commands: impl IntoIterator<Item = redis::Cmd>) -> Answer {
        self.ask_and_hear(commands, &mut |_| {})
    }

    /// The same; `heard` is told each reply as it comes.
    pub(crate) fn ask_and_hear(
        &self,
        commands: impl IntoIterator<Item = redis::Cmd>,
        heard: &mut dyn FnMut(&redis::Value),
    ) -> Answer {
        let mut taken = match self.take() {
            Ok(taken) => taken,
            Err(broke) => return Answer { replies: Replies { values: Vec::new(), broke: Some(broke) }, trips: 1 },
        };
        let wire = &mut taken.wire;
        let replies = wire.exchange(&mut commands.into_iter(), heard);
        // One that could not be made says nothing of the others.
        if replies.broke.as_ref().is_some_and(Break::was_connected) {
            let _ = self.generation.compare_exchange(
                wire.generation,
                wire.generation + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
        let trips = wire.take_connect_trips() + 1;
        taken.give_back();
        Answer { replies, trips }
    }

    /// Makes one more connection, if there may be more, for somebody who will want it. Blocks.
    pub(crate) fn warm(&self) {
        if let Some(mut taken) = self.pool.take_new(self.wait) {
            // What is wrong with the server another one says.
            taken.wire.exchange(&mut [redis::cmd("PING")].into_iter(), &mut |_| {});
            taken.wire.take_connect_trips();
            taken.give_back();
        }
    }

    /// A connection that was made after the last break.
    fn take(&self) -> Result<Taken, Break> {
        // Each one that is too old is dropped. There are not more of them than connections: the one after them is new, and
        // says itself what is wrong with the server, however fast others break meanwhile.
        for _ in 0..self.connections {
            let taken = self.pool.take(self.wait)?;
            if taken.wire.has_failed() || taken.wire.generation >= self.generation.load(Ordering::Acquire) {
                return Ok(taken);
            }
        }
        self.pool.take(self.wait)
    }

    pub(crate) fn error(&self, broke: &Break) -> Unreached {
        Unreached { target: self.name.clone(), cause: broke.cause().to_owned() }
    }
}
