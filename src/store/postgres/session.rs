//! One connection, on a thread of its own.
//!
//! The driver has no time limit for a call: against a server that is frozen, or a middleman that swallows answers, it
//! would wait for ever. So calls run on the connection's thread, and whoever made one waits for the answer no longer
//! than its time limit after the call's last step. A connection that exceeds it is given up, thread and all: the thread
//! ends when the operating system ends its socket.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use postgres::types::{ToSql, Type};
use postgres::{Client, Config, Row, SimpleQueryMessage, Statement};

use super::address::{PostgresAddress, TlsMode};
use super::connect::connect;
use super::fault::Fault;
use super::{stranger, tls};
use crate::model::limits::WAIT_STEP;

/// Prepared statements that a connection keeps at most; their number depends on the shapes of batches.
const STATEMENTS_MAX: usize = 256;

/// What the server lets a statement take, where neither its settings nor the address say.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(600);
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a read may go on after the run was asked to stop.
const STOPPED_WAIT: Duration = Duration::from_secs(2);

/// How long connecting takes before it is looked whether a Postgres listens there.
const LOOK_AFTER: Duration = Duration::from_millis(500);

/// What ends a wait when it is set; none for what a stop does not end.
pub(super) type Stop<'s> = Option<&'s AtomicBool>;

/// Whether it is set.
pub(super) fn is_set(stop: Stop<'_>) -> bool {
    stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
}

/// The setting that shows whether our start-up parameters have reached the server.
const MARK: &str = "forebay.session";

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Everything but what follows.
    General,
    /// Rows by key: an index is always right, whatever the statistics of a table that grew just now.
    ReadKeys,
}

/// The server's side of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) pid: i32,
    /// When it started, as the server writes it: process numbers come again.
    pub(super) started: String,
}

/// What the server said of itself when the connection was made.
#[derive(Debug, Clone)]
pub(super) struct Greeting {
    pub(super) backend: Backend,
    /// Whether our start-up parameters arrived: nobody stands in between who changes them.
    pub(super) is_direct: bool,
    /// Why nothing can be written now, if so.
    pub(super) read_only: Option<&'static str>,
    is_encrypted: bool,
    statement_timeout: Duration,
    encoding: String,
}

type Call = Box<dyn FnOnce(&mut Link) + Send>;

/// A connection, as its user sees it.
pub(super) struct Session {
    jobs: Sender<Call>,
    steps: Arc<AtomicU64>,
    limit: Duration,
    greeting: Greeting,
    is_broken: bool,
}

/// A connection, as its own thread sees it.
pub(super) struct Link {
    client: Client,
    statements: HashMap<String, Statement>,
    /// Temporary tables that this connection has made.
    made: HashSet<String>,
    steps: Arc<AtomicU64>,
}

impl Session {
    /// Connects. Blocks for the address's time limit at most, or until `stop` is set.
    pub(super) fn open(address: &PostgresAddress, purpose: Purpose, stop: Stop<'_>) -> Result<Self, Fault> {
        match Self::open_marked(address, purpose, stop, true) {
            // A pooler that refuses a parameter it does not know: without it, it may do.
            Err(fault) if fault.refuses_parameter() => Self::open_marked(address, purpose, stop, false),
            opened => opened,
        }
    }

    fn open_marked(
        address: &PostgresAddress,
        purpose: Purpose,
        stop: Stop<'_>,
        with_mark: bool,
    ) -> Result<Self, Fault> {
        let mut config = address.driver_config().map_err(Fault::Unusable)?;
        if with_mark {
            let given = config.get_options().unwrap_or_default().to_owned();
            config.options(&format!("{given} -c {MARK}=direct"));
        }
        let program = config.get_application_name().unwrap_or("forebay").to_owned();
        config.application_name(&signature(&program));
        let tls = (address.tls.mode != TlsMode::Disable).then(|| tls::connector(&address.tls));
        let tls = tls.transpose().map_err(Fault::Unusable)?;
        let asked = config.clone();
        let is_guarded = address.is_guarded();
        let steps = Arc::new(AtomicU64::new(0));
        let (jobs, inbox) = bounded::<Call>(1);
        let (answer, connected) = bounded(1);
        let counted = Arc::clone(&steps);
        // Contract of a connection's thread. In: jobs, over a bounded channel. Out: each job answers by itself. Ends: when
        // the session is dropped, or never if the server stalls and the system does not notice; nobody waits for it.
        let thread = move || {
            let mut link = match connect(config, tls.as_ref(), is_guarded) {
                Ok(client) => Link { client, statements: HashMap::new(), made: HashSet::new(), steps: counted },
                Err(error) => return drop(answer.send(Err(Fault::Sql(error)))),
            };
            let greeting = link.greet(purpose);
            if answer.send(greeting).is_ok() {
                inbox.into_iter().for_each(|job: Call| job(&mut link));
            }
        };
        std::thread::Builder::new()
            .name("forebay-store".into())
            .spawn(thread)
            .map_err(|error| Fault::Unusable(format!("cannot start a thread: {error}")))?;
        // A commit that connects anew knows whom it speaks to, and wants no wait of a second.
        let asked = (stop.is_some() && purpose == Purpose::General).then_some(&asked);
        let greeting = await_greeting(&connected, address.connect_timeout(), asked, stop)?;
        if greeting.encoding != "UTF8" {
            return Err(Fault::Unusable(format!(
                "the database's encoding is {}; expected UTF8, or some texts could not be stored",
                greeting.encoding
            )));
        }
        // The server ends a statement first; what it says then must have the time to arrive.
        let grace = (greeting.statement_timeout / 10).clamp(Duration::from_secs(1), Duration::from_secs(30));
        let limit = (greeting.statement_timeout + grace).min(address.answer_max.unwrap_or(Duration::MAX));
        Ok(Self { jobs, steps, limit, greeting, is_broken: false })
    }

    pub(super) fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Whether what is sent is encrypted, as the server says.
    pub(super) fn is_encrypted(&self) -> bool {
        self.greeting.is_encrypted
    }

    /// How long a call may take that does not go on.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether what is sent could be read on its way to another machine.
    pub(super) fn is_exposed(&self, address: &PostgresAddress) -> bool {
        !self.greeting.is_encrypted && !address.is_local()
    }

    /// Runs `work` on the connection and waits for its result.
    pub(super) fn call<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Link) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.call_within(self.limit, None, work)
    }

    /// The same, but given up soon after `stop` is set.
    pub(super) fn call_until<T: Send + 'static>(
        &mut self,
        stop: Stop<'_>,
        work: impl FnOnce(&mut Link) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.call_within(self.limit, stop, work)
    }

    /// The same with a time limit of its own.
    pub(super) fn call_within<T: Send + 'static>(
        &mut self,
        limit: Duration,
        stop: Stop<'_>,
        work: impl FnOnce(&mut Link) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        if self.is_broken {
            return Err(Fault::Gone);
        }
        let (answer, done) = bounded(1);
        // Nobody may be waiting any more.
        let job: Call = Box::new(move |link| drop(answer.send(work(link))));
        let result = match self.jobs.try_send(job) {
            Ok(()) => self.wait(&done, limit, stop),
            Err(_) => Err(Fault::Gone),
        };
        if let Err(Fault::Stalled(_) | Fault::Stopped | Fault::Gone) = result {
            self.is_broken = true;
        }
        result
    }

    fn wait<T>(&self, done: &Receiver<Result<T, Fault>>, limit: Duration, stop: Stop<'_>) -> Result<T, Fault> {
        let mut steps = self.steps.load(Ordering::Acquire);
        let mut since = Instant::now();
        let mut stopped: Option<Instant> = None;
        loop {
            // Now and then it is looked whether the call has gone on.
            match done.recv_timeout(WAIT_STEP) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(Fault::Gone),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if is_set(stop) && stopped.get_or_insert_with(Instant::now).elapsed() > STOPPED_WAIT {
                return Err(Fault::Stopped);
            }
            let now = self.steps.load(Ordering::Acquire);
            if now != steps {
                (steps, since) = (now, Instant::now());
            } else if since.elapsed() >= limit {
                return Err(Fault::Stalled(since.elapsed()));
            }
        }
    }
}

/// Waits until a connection is made. With `asked`, it is looked meanwhile whether a Postgres listens there at all.
fn await_greeting(
    connected: &Receiver<Result<Greeting, Fault>>,
    limit: Duration,
    asked: Option<&Config>,
    stop: Stop<'_>,
) -> Result<Greeting, Fault> {
    let since = Instant::now();
    let mut looked = None;
    let failed = loop {
        match connected.recv_timeout(WAIT_STEP.min(limit)) {
            Ok(Err(fault)) if fault.may_be_a_stranger() => break fault,
            Ok(greeting) => return greeting,
            Err(RecvTimeoutError::Disconnected) => return Err(Fault::Gone),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if is_set(stop) {
            return Err(Fault::Stopped);
        }
        if let Some(Ok(Some(stranger))) = looked.as_ref().map(Receiver::try_recv) {
            return Err(Fault::Stranger(stranger));
        }
        if since.elapsed() >= limit {
            return Err(Fault::Stalled(since.elapsed()));
        }
        if looked.is_none() && since.elapsed() >= LOOK_AFTER {
            looked = asked.map(look);
        }
    };
    let Some(looked) = looked.or_else(|| asked.map(look)) else { return Err(failed) };
    loop {
        match looked.recv_timeout(WAIT_STEP) {
            Ok(Some(stranger)) => return Err(Fault::Stranger(stranger)),
            Err(RecvTimeoutError::Timeout) if is_set(stop) => return Err(Fault::Stopped),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(None) | Err(RecvTimeoutError::Disconnected) => return Err(failed),
        }
    }
}

/// Looks, on a thread of its own, what listens there.
fn look(asked: &Config) -> Receiver<Option<String>> {
    let (answer, looked) = bounded(1);
    let asked = asked.clone();
    // Contract of the thread. In: an address. Out: one answer, which nobody may be waiting for any more. Ends: within
    // seconds. If it cannot be started, the channel says so.
    let look = move || drop(answer.send(stranger::listener(&asked)));
    let _ = std::thread::Builder::new().name("forebay-look".into()).spawn(look);
    looked
}

/// How a connection of this process signs, so that whoever is refused can say who holds the lock. Postgres keeps 63
/// bytes of it.
fn signature(program: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut text = format!("{program} (pid {} on {})", std::process::id(), host.trim());
    if text.len() > 63 {
        text = format!("forebay (pid {})", std::process::id());
    }
    text
}

impl Link {
    /// Sets the connection up and asks the server about itself, in one round trip.
    fn greet(&mut self, purpose: Purpose) -> Result<Greeting, Fault> {
        let limit = |name: &str, limit: Duration| {
            format!(
                "SELECT set_config('{name}', '{}', false) WHERE current_setting('{name}') = '0';",
                limit.as_millis()
            )
        };
        let mut sql = [
            limit("statement_timeout", STATEMENT_TIMEOUT),
            limit("lock_timeout", LOCK_TIMEOUT),
            limit("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT),
        ]
        .concat();
        // A snapshot may be published as soon as its batch has committed, so a commit must survive a crash.
        sql.push_str(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
             -- So that the server notices a client that is gone while it works; not every system can.
             DO $$ BEGIN
               PERFORM set_config('client_connection_check_interval', '1000', false)
                 WHERE current_setting('client_connection_check_interval', true) = '0';
             EXCEPTION WHEN OTHERS THEN NULL; END $$;
             SELECT set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false),
               set_config('tcp_keepalives_count', '3', false), set_config('jit', 'off', false),
               set_config('default_transaction_isolation', 'read committed', false),
               set_config('client_min_messages', 'warning', false), set_config('TimeZone', 'UTC', false);",
        );
        if purpose == Purpose::ReadKeys {
            sql.push_str("SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off;");
        }
        sql.push_str(&format!(
            "SELECT pg_backend_pid(), (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()),
               current_setting('{MARK}', true), pg_is_in_recovery(), current_setting('transaction_read_only'),
               (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), current_setting('server_encoding'),
               (SELECT setting FROM pg_settings WHERE name = 'statement_timeout'), version()"
        ));
        let row = match self.texts(&sql) {
            Ok(row) => row,
            // Some other servers do not get so far.
            Err(fault @ Fault::Sql(_)) if fault.code().is_some() => {
                let version = self.text("SELECT version()").ok().flatten().unwrap_or_default();
                return Err(stranger::refused_version(&version).map_or(fault, Fault::Unusable));
            }
            Err(fault) => return Err(fault),
        };
        let field = |at: usize| row.get(at).map_or("", String::as_str);
        if let Some(refused) = stranger::refused_version(field(8)) {
            return Err(Fault::Unusable(refused));
        }
        let read_only = match (field(3), field(4)) {
            ("t", _) => Some("the server is a standby, which takes no writes"),
            (_, "on") => Some("the role or the database is set to read only"),
            _ => None,
        };
        Ok(Greeting {
            backend: Backend { pid: field(0).parse().unwrap_or(0), started: field(1).to_owned() },
            is_direct: field(2) == "direct",
            read_only,
            is_encrypted: field(5) == "t",
            encoding: field(6).to_owned(),
            statement_timeout: field(7).parse().map_or(STATEMENT_TIMEOUT, Duration::from_millis),
        })
    }

    /// Makes a temporary table by that statement, unless this connection has.
    pub(super) fn make_once(&mut self, table: &str, sql: &str) -> Result<(), Fault> {
        if !self.made.contains(table) {
            self.run(sql)?;
            self.made.insert(table.to_owned());
        }
        Ok(())
    }

    /// Notes that the call goes on, for whoever waits for it.
    fn step(&self) {
        self.steps.fetch_add(1, Ordering::AcqRel);
    }

    /// Runs statements without parameters, in one round trip.
    pub(super) fn run(&mut self, sql: &str) -> Result<(), Fault> {
        self.step();
        Ok(self.client.batch_execute(sql)?)
    }

    /// The last row of what statements without parameters answer, as texts, in one round trip; null is empty.
    pub(super) fn texts(&mut self, sql: &str) -> Result<Vec<String>, Fault> {
        self.step();
        let answer = self.client.simple_query(sql)?;
        let row = answer.into_iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(row
            .map_or_else(Vec::new, |row| (0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect()))
    }

    /// The first value of it.
    pub(super) fn text(&mut self, sql: &str) -> Result<Option<String>, Fault> {
        Ok(self.texts(sql)?.into_iter().next())
    }

    /// Prepares a statement, once; one round trip then.
    fn prepare(&mut self, sql: &str, types: &[Type]) -> Result<Statement, Fault> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        if self.statements.len() >= STATEMENTS_MAX {
            self.statements.clear();
        }
        self.step();
        let statement = self.client.prepare_typed(sql, types)?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Runs a prepared statement, in one round trip.
    pub(super) fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Fault> {
        let (values, types): (Vec<_>, Vec<_>) = params.iter().map(|(value, kind)| (*value, kind.clone())).unzip();
        let statement = self.prepare(sql, &types)?;
        self.step();
        Ok(self.client.query(&statement, &values)?)
    }

    /// Runs a prepared statement and gives each row to `visit` as it comes, until that fails.
    pub(super) fn each(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
        mut visit: impl FnMut(&Row) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        use postgres::fallible_iterator::FallibleIterator as _;
        let (values, types): (Vec<_>, Vec<_>) = params.iter().map(|(value, kind)| (*value, kind.clone())).unzip();
        let statement = self.prepare(sql, &types)?;
        self.step();
        let steps = Arc::clone(&self.steps);
        let mut rows = self.client.query_raw(&statement, values)?;
        while let Some(row) = rows.next()? {
            steps.fetch_add(1, Ordering::AcqRel);
            visit(&row)?;
        }
        Ok(())
    }

    /// Streams chunks into a COPY; two round trips. Returns the rows.
    pub(super) fn copy_in<'b>(&mut self, sql: &str, chunks: impl Iterator<Item = &'b [u8]>) -> Result<u64, Fault> {
        let statement = self.prepare(sql, &[])?;
        self.step();
        let steps = Arc::clone(&self.steps);
        let mut writer = self.client.copy_in(&statement)?;
        // What the server refuses it says at the end; until then it passes by what comes.
        let mut waiting: Vec<u8> = Vec::with_capacity(COPY_MESSAGE_BYTES);
        for chunk in chunks {
            for part in chunk.chunks(COPY_MESSAGE_BYTES) {
                if waiting.len() + part.len() > COPY_MESSAGE_BYTES {
                    steps.fetch_add(1, Ordering::AcqRel);
                    writer.write_all(&waiting)?;
                    waiting.clear();
                }
                waiting.extend_from_slice(part);
            }
        }
        writer.write_all(&waiting)?;
        steps.fetch_add(1, Ordering::AcqRel);
        Ok(writer.finish()?)
    }
}

/// A parameter and its type; types that the server would have to look up cost round trips.
pub(super) type Param<'v> = (&'v (dyn ToSql + Sync), Type);

/// Bytes of one message of a COPY: a message costs a hand-over within the driver.
const COPY_MESSAGE_BYTES: usize = 128 * 1024;
