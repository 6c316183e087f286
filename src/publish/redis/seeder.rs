//! Who seeds: takes the lock and reads what is there, in one round trip; and publishes what is new and gives the lock
//! back, in another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use redis::Value;
use serde::{Deserialize, Serialize};

use super::connections::{HeldLock, millis};
use super::outcome::{Extent, Published};
use super::publisher::Publisher;
use super::reader::RedisSnapshots;
use super::script::Script;
use crate::model::chance::token;
use crate::model::limits::SEED_LOCK_MIN;
use crate::model::setting::SettingError;
use crate::model::timestamp::Timestamp;
use crate::publish::{LatestInTarget, Publication, PublishError, PublishPlan, PublishReceipt, TargetReader};
use crate::redis::node::Answer;
use crate::redis::topology::Topology;
use crate::redis::wire::{Break, server_text};
use crate::store::StoredSnapshot;

/// Takes the place of a cron job that computes one document a region: one at a time, under a lock in Redis.
///
/// ```no_run
/// use std::time::Duration;
///
/// use forebay::publish::{Begun, Publication, PublishPlan, Seeder};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let plan = PublishPlan::new("risk", "redis://localhost".parse()?);
/// let mut seeder = Seeder::new(plan, Duration::from_secs(15 * 60))?;
/// match seeder.begin()? {
///     Begun::Held(holder) => println!("{holder} is at it"),
///     Begun::Turn(turn) => {
///         let before = turn.previous().len() as u64;
///         let items = [Publication::new("europe", before + 1, serde_json::json!({ "risk": 3 }))];
///         let published = turn.publish(&items, true);
///         println!("{} published", published.published());
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Seeder {
    publisher: Publisher,
    reader: RedisSnapshots,
    lock: Duration,
    renew: Arc<Script>,
}

/// How a turn began.
pub enum Begun<'s> {
    /// The lock is ours, until the turn ends.
    Turn(SeedTurn<'s>),
    /// Another one has it.
    Held(LockHolder),
}

/// Who has the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockHolder {
    /// Its host and process.
    pub by: String,
    /// Since when.
    pub since: String,
    /// What tells it from all others.
    token: String,
}

impl LockHolder {
    fn new() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let by = format!("{host}, process {}", std::process::id());
        Self { by, since: Timestamp::now().to_millis_text(), token: token() }
    }

    fn text(&self) -> String {
        // A struct of texts is always JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Another program may have written it.
    fn of_text(text: &[u8]) -> Self {
        let unknown = || Self {
            by: String::from_utf8_lossy(text).chars().filter(|character| !character.is_control()).take(100).collect(),
            since: String::new(),
            token: String::new(),
        };
        serde_json::from_slice(text).unwrap_or_else(|_| unknown())
    }
}

impl std::fmt::Display for LockHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.since.is_empty() {
            true => f.write_str(&self.by),
            false => write!(f, "{} (since {})", self.by, self.since),
        }
    }
}

/// A turn of who seeds. While it lasts, the lock is renewed; when it is dropped, the lock is given back.
pub struct SeedTurn<'s> {
    seeder: &'s mut Seeder,
    latest: LatestInTarget,
    round_trips: u32,
    keeper: Keeper,
}

/// What the first round trip brings.
struct First {
    holder: Option<LockHolder>,
    health: Option<String>,
    latest: LatestInTarget,
    trips: u32,
}

impl Seeder {
    /// Makes the threads. Connects to nothing yet. `lock`: how long the lock lasts if nobody renews it, at least 1 s.
    ///
    /// # Errors
    /// As [`Publisher::new`], or the time of the lock is too short.
    pub fn new(plan: PublishPlan, lock: Duration) -> Result<Self, PublishError> {
        let lock = SettingError::unless_short("lock", lock, SEED_LOCK_MIN);
        let lock = lock.map_err(|error| PublishError::Document(error.to_string()))?;
        let publisher = Publisher::new(plan)?;
        let reader = RedisSnapshots::over(publisher.plan().clone(), Arc::clone(&publisher.to.topology));
        Ok(Self { publisher, reader, lock, renew: Arc::new(Script::renew()) })
    }

    /// The plan it was made with.
    pub fn plan(&self) -> &PublishPlan {
        self.publisher.plan()
    }

    /// The newest documents that are there, without the lock: to see what would change. Blocks.
    ///
    /// # Errors
    /// Redis does not answer.
    pub fn look(&self) -> Result<LatestInTarget, PublishError> {
        self.reader.latest(&[])
    }

    /// Takes the lock and reads the newest document of every region that the summary names. One round trip on a warm
    /// connection; on a cluster three. Blocks.
    ///
    /// # Errors
    /// Redis does not answer, or refuses what is needed.
    pub fn begin(&mut self) -> Result<Begun<'_>, PublishError> {
        let mut trips = self.publisher.to.topology.discover()?;
        let ours = LockHolder::new();
        let lock = HeldLock { key: self.key(), value: ours.text() };
        self.warm();
        let First { holder, health, latest, trips: more } = self.first(&lock)?;
        trips += more;
        if let Some(holder) = holder.filter(|holder| *holder != ours) {
            return Ok(Begun::Held(holder));
        }
        self.publisher.settling.health_before = health;
        self.publisher.to.lock = Some(lock.clone());
        let keeper = Keeper::start(Arc::clone(&self.publisher.to.topology), Arc::clone(&self.renew), lock, self.lock);
        let keeper = keeper.inspect_err(|_| self.give_back())?;
        Ok(Begun::Turn(SeedTurn { seeder: self, latest, round_trips: trips, keeper }))
    }

    fn key(&self) -> String {
        let plan = self.publisher.plan();
        plan.keys.lock(&plan.pipeline)
    }

    /// Has the other connections made beside the first one. Each thread that publishes makes one, before it publishes.
    fn warm(&self) {
        let Ok(node) = self.publisher.to.topology.node_of(&self.key()) else { return };
        if !self.publisher.to.topology.is_cluster() {
            self.publisher.to.threads.spawn_broadcast(move |thread| {
                if thread.index() > 0 {
                    node.warm();
                }
            });
        }
    }

    fn first(&self, lock: &HeldLock) -> Result<First, PublishError> {
        let topology = &self.publisher.to.topology;
        let plan = self.publisher.plan();
        let take = redis::cmd("SET").arg(&lock.key).arg(&lock.value).arg("NX").arg("PX").arg(millis(self.lock)).take();
        let who = redis::cmd("GET").arg(&lock.key).take();
        let health_key = plan.keys.health(&plan.pipeline);
        let health = health_key.as_ref().map(|key| redis::cmd("GET").arg(key).take());
        let node = topology.node_of(&lock.key)?;
        let mut commands = vec![take, who];
        let is_apart = topology.is_cluster();
        if !is_apart {
            commands.extend(health.clone());
            commands.push(self.reader.command_of_all());
        }
        let mut trips = 0;
        let mut answer = node.ask(commands.clone());
        trips += answer.trips;
        // A connection that was warm may have been closed meanwhile.
        if answer.replies.broke.as_ref().is_some_and(Break::was_connected) {
            answer = node.ask(commands);
            trips += answer.trips;
        }
        let Answer { replies, .. } = answer;
        let mut values = replies.values.into_iter();
        let refused =
            |error: &redis::ServerError| PublishError::Refused(format!("{}: {}", lock.key, server_text(error)));
        let holder = match (values.next(), values.next()) {
            (Some(Value::ServerError(error)), _) | (_, Some(Value::ServerError(error))) => return Err(refused(&error)),
            (Some(_), Some(Value::BulkString(text))) => Some(LockHolder::of_text(&text)),
            (Some(Value::Okay), Some(_)) => None,
            (Some(_), Some(_)) => Some(LockHolder::of_text(b"another one, just now")),
            _ => {
                return Err(replies
                    .broke
                    .as_ref()
                    .map_or_else(|| refused_text(&lock.key), |broke| node.error(broke).into()));
            }
        };
        if !is_apart {
            let health = health.and_then(|_| values.next());
            let latest = self.reader.take_all(&node, values.next(), replies.broke.as_ref());
            let is_ours = holder.as_ref().is_none_or(|holder| holder.text() == lock.value);
            let latest = latest.inspect_err(|_| {
                if is_ours {
                    self.untake(lock);
                }
            })?;
            return Ok(First { holder, health: health.and_then(text_of), latest, trips });
        }
        let mut aside = Published::default();
        let health =
            health.zip(health_key).and_then(|(command, key)| self.publisher.to.ask_aside(&key, &command, &mut aside));
        let latest = self.reader.latest(&[]).inspect_err(|_| self.untake(lock))?;
        Ok(First { holder, health: health.and_then(text_of), latest, trips: trips + aside.round_trips + 2 })
    }

    /// Gives back a lock that was taken just now, also where scripts are not allowed.
    fn untake(&self, lock: &HeldLock) {
        let Publisher { to, settling, .. } = &self.publisher;
        if let Err(PublishError::Refused(_)) = settling.give_back(to, lock) {
            let _ = to.ask(&lock.key, &redis::cmd("DEL").arg(&lock.key).take(), &mut 0);
        }
    }

    fn give_back(&mut self) {
        let Publisher { to, settling, .. } = &mut self.publisher;
        if let Some(lock) = to.lock.take() {
            // If Redis does not answer, the lock ends by itself.
            let _ = settling.give_back(to, &lock);
        }
    }
}

impl SeedTurn<'_> {
    /// The newest document of each region that the summary names, by name.
    pub fn previous(&self) -> &[StoredSnapshot] {
        &self.latest.found
    }

    /// Regions that could not be read, and why.
    pub fn refused(&self) -> &[(String, PublishError)] {
        &self.latest.refused
    }

    /// Whether the lock was lost: another one may have it by now. Does not block.
    pub fn is_lost(&self) -> bool {
        self.keeper.is_lost.load(Ordering::Acquire)
    }

    /// Publishes at most one document of each region, writes summary and health key, and gives the lock back. `is_clean`:
    /// nothing that was to come is missing. If the lock was lost, nothing is published ([`Published::is_unlocked`]).
    /// Blocks until each region is decided.
    pub fn publish(self, items: &[Publication], is_clean: bool) -> Published {
        let mut published = match self.is_there() {
            Ok(true) => self.seeder.publisher.publish(items, Extent::Whole { is_clean }),
            Ok(false) => {
                let lost = |item| PublishReceipt::of(item, Err(PublishError::Unlocked));
                Published { receipts: items.iter().map(lost).collect(), is_unlocked: true, ..Published::default() }
            }
            Err(error) => {
                let failed = |item| PublishReceipt::of(item, Err(error.clone()));
                Published { receipts: items.iter().map(failed).collect(), is_unreachable: true, ..Published::default() }
            }
        };
        published.round_trips += self.round_trips;
        published
    }

    /// Publishes nothing: what is there lives on, the health key says so, and the lock is given back. Blocks.
    pub fn give_up(self) -> Published {
        self.publish(&[], false)
    }

    /// Whether the lock is still ours, as far as that is known before anything is published. The script of each region
    /// looks again; on a cluster, where it cannot, the lock is asked for here.
    fn is_there(&self) -> Result<bool, PublishError> {
        if self.is_lost() {
            return Ok(false);
        }
        let Publisher { to, .. } = &self.seeder.publisher;
        match to.lock.as_ref().filter(|_| to.topology.is_cluster()) {
            Some(lock) => {
                let command = redis::cmd("GET").arg(&lock.key).take();
                let found = to.ask(&lock.key, &command, &mut 0)?;
                Ok(text_of(found).is_some_and(|found| found == lock.value))
            }
            None => Ok(true),
        }
    }
}

impl Drop for SeedTurn<'_> {
    fn drop(&mut self) {
        self.keeper.stop();
        self.seeder.give_back();
    }
}

/// Renews a lock until it is stopped.
struct Keeper {
    is_lost: Arc<AtomicBool>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn start(
        topology: Arc<Topology>,
        renew: Arc<Script>,
        lock: HeldLock,
        span: Duration,
    ) -> Result<Self, PublishError> {
        let (stop, stopped) = bounded(0);
        let is_lost = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&is_lost);
        // Contract of the thread. In: a lock that is held. Out: whether it was lost. Writes: its time to live. Ends: when it
        // is stopped, when the lock is another's, or when it has ended while Redis did not answer.
        let keep = move || {
            let mut renewed = Instant::now();
            let is_over = loop {
                let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(span / 3) else { break false };
                let sent = Instant::now();
                let ttl = millis(span).to_string();
                let arguments = [lock.value.as_bytes(), ttl.as_bytes()];
                let command = renew.call(false, [lock.key.as_str()], arguments);
                let node = topology.node_of(&lock.key);
                match node.map(|node| node.ask([command]).replies.values.into_iter().next()) {
                    Ok(Some(Value::Int(1))) => renewed = sent,
                    Ok(Some(Value::Int(_))) => break true,
                    // It does not answer; the next try may be in time.
                    _ if renewed.elapsed() < span => {}
                    _ => break true,
                }
            };
            if is_over {
                lost.store(true, Ordering::Release);
            }
        };
        let thread = std::thread::Builder::new()
            .name("forebay-lock".into())
            .spawn(keep)
            .map_err(|error| PublishError::Threads(error.to_string()))?;
        Ok(Self { is_lost, stop: Some(stop), thread: Some(thread) })
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Each of its waits is bounded; it does not panic.
            let _ = thread.join();
        }
    }
}

fn refused_text(key: &str) -> PublishError {
    PublishError::Refused(format!("{key}: an answer that is not understood"))
}

fn text_of(value: Value) -> Option<String> {
    match value {
        Value::BulkString(text) => String::from_utf8(text).ok(),
        _ => None,
    }
}
