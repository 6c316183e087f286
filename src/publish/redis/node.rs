//! The pool of one server.
//!
//! Nothing is asked at check-out; a connection that broke is dropped when it comes back, and those that are older than
//! a break are not used again: a server that went away has closed them too.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use r2d2::{ManageConnection, Pool, PooledConnection};
use scheduled_thread_pool::ScheduledThreadPool;

use super::address::RedisUrl;
use super::wire::{Break, Replies, Wire};
use crate::publish::PublishError;

/// Connects for the pool.
pub(super) struct Connector {
    url: RedisUrl,
    client: redis::Client,
    timeout: Duration,
    generation: Arc<AtomicU64>,
}

impl ManageConnection for Connector {
    type Connection = Wire;
    // A wire that could not connect says so itself: the pool would try again until its own time is over.
    type Error = Infallible;

    fn connect(&self) -> Result<Wire, Infallible> {
        Ok(Wire::connect(&self.url, &self.client, self.timeout, self.generation.load(Ordering::Acquire)))
    }

    fn is_valid(&self, _: &mut Wire) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, wire: &mut Wire) -> bool {
        wire.is_spoiled()
    }
}

/// A server and the connections to it.
pub(super) struct Node {
    name: String,
    /// Host and port; none for a socket.
    pub(super) host: Option<(String, u16)>,
    pool: Pool<Connector>,
    connections: u32,
    generation: Arc<AtomicU64>,
    wait: Duration,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What came of a request to a server.
pub(super) struct Answer {
    pub(super) replies: Replies,
    /// Round trips it took, connecting included.
    pub(super) trips: u32,
}

impl Node {
    /// A server with at most that many connections. Connects to nothing yet.
    pub(super) fn new(
        url: &RedisUrl,
        host: Option<(String, u16)>,
        connections: usize,
        timeout: Duration,
    ) -> Result<Self, PublishError> {
        let name = url.name_of(host.as_ref().or(url.named().first()));
        let away = |cause: String| PublishError::Away { target: name.clone(), cause };
        let client = url.client(host.as_ref()).map_err(away)?;
        let connections = u32::try_from(connections).unwrap_or(u32::MAX).max(1);
        let generation = Arc::new(AtomicU64::new(0));
        // A thread for each connection: they are all opened at once.
        let threads = ScheduledThreadPool::builder()
            .num_threads(usize::try_from(connections).unwrap_or(usize::MAX))
            .thread_name_pattern("forebay-redis-{}")
            .build();
        let connector = Connector { url: url.clone(), client, timeout, generation: Arc::clone(&generation) };
        let pool = Pool::builder()
            .max_size(connections)
            .min_idle(Some(0))
            .test_on_check_out(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connection_timeout(timeout)
            .thread_pool(Arc::new(threads))
            .build_unchecked(connector);
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

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sends commands over a connection of the pool and reads the replies. Blocks.
    pub(super) fn ask(&self, commands: impl IntoIterator<Item = redis::Cmd>) -> Answer {
        let mut wire = match self.take() {
            Ok(wire) => wire,
            Err(broke) => return Answer { replies: Replies { values: Vec::new(), broke: Some(broke) }, trips: 1 },
        };
        let replies = wire.exchange(&mut commands.into_iter());
        // One that could not be made says nothing of the others.
        if replies.broke.as_ref().is_some_and(Break::was_connected) {
            let _ = self.generation.compare_exchange(
                wire.generation,
                wire.generation + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
        Answer { replies, trips: wire.take_connect_trips() + 1 }
    }

    /// A connection that was made after the last break.
    fn take(&self) -> Result<PooledConnection<Connector>, Break> {
        // Each one that is too old is dropped, and a new one is as young as can be.
        for _ in 0..=self.connections {
            let wire = self.pool.get_timeout(self.wait).map_err(|_| {
                Break::NoEntry(format!("no connection was free or could be made within {} s", self.wait.as_secs()))
            })?;
            if wire.has_failed() || wire.generation >= self.generation.load(Ordering::Acquire) {
                return Ok(wire);
            }
            self.drop_old(wire);
        }
        Err(Break::Dropped("connections break as fast as they are made".into()))
    }

    fn drop_old(&self, mut wire: PooledConnection<Connector>) {
        wire.spoil();
        drop(wire);
    }

    pub(super) fn error(&self, broke: &Break) -> PublishError {
        PublishError::Away { target: self.name.clone(), cause: broke.cause().to_owned() }
    }
}
