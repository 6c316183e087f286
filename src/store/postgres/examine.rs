//! Looking at a Postgres server: how far it is, what it takes to commit, and what it is set to. What is found is judged by
//! `judge`.
//!
//! Writes nothing that stays. A durable commit is that of a message in the write-ahead log, which belongs to no table; where
//! a server does not know those, that of a temporary table that goes with its transaction. The lock is looked at and not
//! taken. Every question has a time limit, and a server that does not answer is asked nothing more.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use postgres::config::Host;

use super::address::{PostgresAddress, TlsMode};
use super::fault::Fault;
use super::home::Home;
use super::judge::{self, Connections, Rights, Settings};
use super::own::{FORMAT, literal};
use super::session::{Link, Purpose, Session};
use super::{advice, lock, pooler, stranger};
use crate::model::finding::{Finding, median_millis};
use crate::model::judgement;
use crate::model::timestamp::Timestamp;

/// How long one host may take to accept a connection: who is asked how a server is wants no long silence.
const CONNECT_MAX: Duration = Duration::from_secs(4);

/// How long a question may take, and a step of looking at a certificate.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const STEP_MAX: Duration = Duration::from_secs(2);

/// How often a round trip, a commit and a clock are measured. Over a long way fewer are as exact.
const ROUND_TRIPS: usize = 9;
const COMMITS: usize = 5;
const CLOCKS: usize = 3;

/// How long measuring may go on before another one begins.
const MEASURING_MAX: Duration = Duration::from_secs(1);

/// The name of what is said of the connection.
const CONNECTION: &str = "store_connection";

/// See [`crate::store::examine`].
pub(in crate::store) fn examine(address: &PostgresAddress, pipeline: Option<&str>) -> Vec<Finding> {
    let address = &address.hurried(CONNECT_MAX, ANSWER_MAX);
    // Nobody sets it: with it, it is looked whether a Postgres listens there at all.
    let never = AtomicBool::new(false);
    let mut session = match Session::open(address, Purpose::General, Some(&never)) {
        Ok(session) => session,
        Err(fault) => return vec![unconnected(&fault)],
    };
    let mut findings = Vec::new();
    if let Err(fault) = look(&mut session, address, pipeline, &mut findings) {
        // That it answered at first is not what counts.
        findings.retain(|finding| finding.name != CONNECTION);
        findings.insert(0, broken_off(&fault));
    }
    findings
}

/// The server does not answer, or lets nobody in.
fn unconnected(fault: &Fault) -> Finding {
    let text = format!("{fault}{}", advice(fault));
    let name = if is_of_tls(&text) { "store_tls" } else { CONNECTION };
    let advice = match name {
        "store_tls" => "look at sslmode and sslrootcert in the address, and at the server's certificate",
        _ => "look at host and port in the address, and whether the server runs and lets this machine in",
    };
    Finding::of_error(name, &text, advice)
}

/// Whether a fault of connecting is one of TLS. The driver's words do not depend on the server's language.
fn is_of_tls(text: &str) -> bool {
    ["TLS", "certificate", "sslrootcert", "sslcert", "sslkey"].iter().any(|word| text.contains(word))
}

fn broken_off(fault: &Fault) -> Finding {
    Finding::of_error(
        CONNECTION,
        &format!("it answered first and then broke off, so that not all could be looked at: {fault}"),
        "run doctor again; if it stays, look at the server's log",
    )
}

/// Looks at everything, in the order in which it is shown. What the server refuses to tell is left out or said.
fn look(
    session: &mut Session,
    address: &PostgresAddress,
    pipeline: Option<&str>,
    findings: &mut Vec<Finding>,
) -> Result<(), Fault> {
    let greeting = session.greeting().clone();
    let named = pipeline.map(str::to_owned);
    let facts = session.call(move |link| Facts::take(link, named.as_deref()))?;
    let version = facts.settings.get("server_version").map_or("of an unknown version", |(version, _)| version.as_str());
    findings.push(match greeting.read_only {
        None => Finding::ok(CONNECTION, format!("PostgreSQL {version} answers, as {}", facts.rights.role)),
        Some(why) => Finding::problem(
            CONNECTION,
            format!("PostgreSQL {version} answers, and takes no writes: {why}"),
            "give the address of the server that takes writes; of several hosts in one address forebay finds it",
        ),
    });
    let round_trip = session.call(|link| measure(link, ROUND_TRIPS, |link| link.run("SELECT 1")))?;
    findings.extend(round_trip.map(|millis| {
        judgement::round_trip(
            "store_round_trip",
            millis,
            judge::ROUND_TRIP_MILLIS_MAX,
            "run forebay nearer to the database: rows that handlers read and do not have wait that long",
        )
    }));
    if greeting.read_only.is_none() {
        findings.push(commit(session, round_trip.unwrap_or(0.0))?);
    }
    let is_pooled = find_pooler(session, address, greeting.is_direct, findings);
    findings.push(judge::timeouts(&facts.settings));
    findings.extend(judge::durability(&facts.settings));
    findings.push(judge::connections(&facts.settings, facts.connections));
    findings.push(find_clock(session)?);
    findings.push(find_tls(session, address));
    findings.push(judge::rights(&facts.rights));
    // Behind a pooler a statement that was prepared may be unknown a moment later.
    match pipeline {
        Some(pipeline) if !is_pooled => look_at_pipeline(session, pipeline, findings),
        _ => Ok(()),
    }
}

/// What the server says of itself and of us, in one round trip.
struct Facts {
    settings: Settings,
    connections: Connections,
    rights: Rights,
}

impl Facts {
    fn take(link: &mut Link, pipeline: Option<&str>) -> Result<Self, Fault> {
        let names = judge::SETTINGS.map(literal).join(", ");
        // A name that no schema has: then it is about the database alone.
        let schema = literal(pipeline.unwrap_or_default());
        let sql = format!(
            "SELECT current_user, current_database(),
               (SELECT json_object_agg(name, ARRAY[setting, coalesce(reset_val, '')])::text FROM pg_settings WHERE name IN ({names})),
               (SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL),
               (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user),
               (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
               (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),
               (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
               (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
               has_database_privilege(current_database(), 'CREATE'), has_database_privilege(current_database(), 'TEMPORARY'),
               (SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = {schema}),
               (SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = {schema}),
               EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                       WHERE n.nspname = {schema} AND c.relname = '_forebay_checkpoint'),
               (SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = {schema} AND c.relkind IN ('r', 'p')
                  AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                           AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')))"
        );
        let row = link.texts(&sql)?;
        let field = |at: usize| row.get(at).map_or("", String::as_str);
        let number = |at: usize| field(at).parse::<i64>().unwrap_or(0);
        let limit = |at: usize| field(at).parse::<i64>().unwrap_or(-1);
        let connections = Connections {
            // Without the one that asks.
            used: number(3) - 1,
            of_role: (number(4) - 1, limit(5)),
            of_database: (number(6) - 1, limit(7)),
            is_superuser: field(8) == "t",
        };
        let rights = Rights {
            role: field(0).to_owned(),
            database: field(1).to_owned(),
            pipeline: pipeline.map(str::to_owned),
            has_schema: !field(11).is_empty(),
            is_made: field(13) == "t",
            may_create_schema: field(9) == "t",
            may_make_temporary: field(10) == "t",
            may_use_schema: field(11) == "t",
            may_create_in_schema: field(12) == "t",
            closed: field(14).to_owned(),
        };
        Ok(Self { settings: serde_json::from_str(field(2)).unwrap_or_default(), connections, rights })
    }
}

/// Does something so many times, and takes the median of what it took.
fn measure(
    link: &mut Link,
    times: usize,
    mut work: impl FnMut(&mut Link) -> Result<(), Fault>,
) -> Result<Option<f64>, Fault> {
    let (begun, mut taken) = (Instant::now(), Vec::with_capacity(times));
    while taken.is_empty() || (taken.len() < times && begun.elapsed() < MEASURING_MAX) {
        let since = Instant::now();
        work(link)?;
        taken.push(since.elapsed());
    }
    Ok(median_millis(taken))
}

/// What a durable commit takes.
fn commit(session: &mut Session, round_trip: f64) -> Result<Finding, Fault> {
    const MESSAGE: &str = "SELECT pg_logical_emit_message(true, 'forebay doctor', '')";
    const TABLE: &str = "BEGIN; CREATE TEMPORARY TABLE forebay_doctor (n integer) ON COMMIT DROP; COMMIT";
    let mut measured = session.call(|link| measure(link, COMMITS, |link| link.run(MESSAGE)));
    if measured.as_ref().is_err_and(Fault::is_refusal) {
        measured = session.call(|link| {
            let measured = measure(link, COMMITS, |link| link.run(TABLE));
            // A transaction that was refused in its middle is still open.
            measured.or_else(|fault| link.run("ROLLBACK").and(Err(fault)))
        });
    }
    match measured {
        Ok(millis) => Ok(judge::commit(millis.unwrap_or(round_trip), round_trip)),
        Err(fault) if fault.is_refusal() => {
            Ok(Finding::ok("store_commit", format!("what a commit takes could not be measured: {fault}")))
        }
        Err(fault) => Err(fault),
    }
}

/// Whether a pooler stands between that changes the server process; says so.
fn find_pooler(session: &mut Session, address: &PostgresAddress, is_direct: bool, findings: &mut Vec<Finding>) -> bool {
    const NAME: &str = "store_pooler";
    let (is_pooled, finding) = match pooler::check(session, address, None) {
        Ok(()) if is_direct => (false, Finding::ok(NAME, "nobody stands between who changes the server process")),
        Ok(()) => (false, Finding::ok(NAME, "a pooler by session may stand between, which is fine")),
        Err(fault) => {
            let advice = "give the address of the database itself, or of a pool by session";
            (true, Finding::of_error(NAME, &fault.to_string(), advice))
        }
    };
    findings.push(finding);
    is_pooled
}

/// How far the server's clock is ahead of ours, as the quickest of some answers shows it.
fn find_clock(session: &mut Session) -> Result<Finding, Fault> {
    let best = session.call(|link| {
        let mut best: Option<(f64, f64)> = None;
        for _ in 0..CLOCKS {
            let (before, since) = (Timestamp::now().as_micros(), Instant::now());
            let theirs = link.text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")?;
            let took = since.elapsed().as_secs_f64() * 1000.0;
            let theirs: i64 = theirs.and_then(|text| text.parse().ok()).unwrap_or(before);
            let ahead = (theirs - before) as f64 / 1000.0 - took / 2.0;
            if best.is_none_or(|(_, exact_to)| took / 2.0 < exact_to) {
                best = Some((ahead, took / 2.0));
            }
        }
        Ok(best)
    })?;
    let (ahead, exact_to) = best.unwrap_or_default();
    Ok(judgement::clock("store_clock", ahead, exact_to))
}

fn find_tls(session: &Session, address: &PostgresAddress) -> Finding {
    let is_encrypted = session.is_encrypted();
    let is_checked = matches!(address.tls.mode, TlsMode::VerifyCa | TlsMode::VerifyFull)
        || (address.tls.mode == TlsMode::Require && address.tls.root_cert.is_some());
    let until = is_encrypted.then(|| certificate_until(address)).flatten();
    let certificate = until.map(|until| judgement::certificate("store_tls", until, Timestamp::now()));
    judge::tls(is_encrypted, address.is_local(), is_checked, certificate)
}

/// Until when the server's certificate may be used: asked over a connection of its own, as any client asks for TLS.
fn certificate_until(address: &PostgresAddress) -> Option<Timestamp> {
    let config = &address.config;
    let Some(Host::Tcp(host)) = config.get_hosts().first() else { return None };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let place = config.get_hostaddrs().first().map_or_else(|| host.clone(), ToString::to_string);
    let found = (place.as_str(), port).to_socket_addrs().ok()?;
    let mut stream = found.into_iter().find_map(|place| TcpStream::connect_timeout(&place, STEP_MAX).ok())?;
    stream.set_read_timeout(Some(STEP_MAX)).and_then(|()| stream.set_write_timeout(Some(STEP_MAX))).ok()?;
    stream.write_all(&stranger::TLS_REQUEST).ok()?;
    let mut answer = [0];
    stream.read_exact(&mut answer).ok()?;
    (answer == *b"S").then(|| crate::tls::shown_until(stream, host)).flatten()
}

/// In which format the tables are, and who writes to them.
fn look_at_pipeline(session: &mut Session, pipeline: &str, findings: &mut Vec<Finding>) -> Result<(), Fault> {
    let named = pipeline.to_owned();
    let format = session.call(move |link| {
        let Some(home) = Home::find(link, &named)? else { return Ok(None) };
        let format = link.text(&format!("SELECT p.format FROM {} p", home.table("pipeline")))?;
        Ok(format.and_then(|format| format.parse::<i64>().ok()))
    });
    match format {
        Ok(format) => findings.push(crate::store::judge::format(format, FORMAT)),
        // What may not be read is told as a right that is lacking.
        Err(fault) if fault.is_refusal() => {}
        Err(fault) => return Err(fault),
    }
    let key = lock::key(pipeline);
    let holder = session.call(move |link| lock::holder(link, key))?;
    findings.push(crate::store::judge::lock(holder.map(|(_, text)| text).as_deref()));
    Ok(())
}
