//! What numbers, settings and rights of a Postgres server mean for a pipeline: ok, warning or problem, and what to do.
//! Pure: `examine` finds them.

use std::collections::BTreeMap;

use crate::model::finding::Finding;
use crate::model::judgement::millis_text;
use crate::store::sql::quoted;

/// A round trip above this is felt: rows that handlers miss are read in one, and every batch takes some.
pub(super) const ROUND_TRIP_MILLIS_MAX: f64 = 20.0;

/// What a durable commit may take beyond the way there and back: a disk that turns takes 10 ms.
const COMMIT_MILLIS_MAX: f64 = 30.0;

/// Connections of a run at most: the writer, readers, the outbox, and one of a command beside it.
const RUN_CONNECTIONS: i64 = 8;

/// Time limits that end what a run does: of one statement and of a transaction, in milliseconds. A batch of 10,000 events
/// takes some of it on a busy server, and an outage of the server's disk takes seconds.
const STATEMENT_MILLIS_MIN: i64 = 30_000;
const STATEMENT_MILLIS_LEAST: i64 = 1000;
/// The same of a lock, and of a transaction that waits for what comes next over the network.
const LOCK_MILLIS_MIN: i64 = 1000;
const IDLE_MILLIS_MIN: i64 = 10_000;
const IDLE_MILLIS_LEAST: i64 = 1000;

/// Settings of the server by name: what they are for us, and what they would be had we set nothing.
pub(super) type Settings = BTreeMap<String, (String, String)>;

/// The settings that are judged.
pub(super) const SETTINGS: [&str; 12] = [
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
    "synchronous_commit",
    "fsync",
    "max_connections",
    "superuser_reserved_connections",
    "reserved_connections",
    "server_version",
    "server_version_num",
];

fn number(settings: &Settings, name: &str) -> i64 {
    settings.get(name).and_then(|(value, _)| value.parse().ok()).unwrap_or(0)
}

/// What a durable commit takes, the way there and back included.
pub(super) fn commit(millis: f64, round_trip_millis: f64) -> Finding {
    let beyond = (millis - round_trip_millis).max(0.0);
    let text =
        format!("a durable commit takes {}, {} of it beyond the round trip", millis_text(millis), millis_text(beyond));
    let finding = match beyond < COMMIT_MILLIS_MAX {
        true => Finding::ok("store_commit", text),
        false => Finding::warning(
            "store_commit",
            text,
            "give the server's write-ahead log a faster disk, or look what else writes there; larger batches ([batch] events) pay it less often",
        ),
    };
    finding.with_millis(millis)
}

/// Time limits.
pub(super) fn timeouts(settings: &Settings) -> Finding {
    const NAME: &str = "store_timeouts";
    let (mut short, mut is_fatal, mut to_set) = (Vec::new(), false, Vec::new());
    for (name, least, min, set) in [
        ("statement_timeout", STATEMENT_MILLIS_LEAST, STATEMENT_MILLIS_MIN, "'10min'"),
        ("transaction_timeout", STATEMENT_MILLIS_LEAST, STATEMENT_MILLIS_MIN, "0"),
        ("lock_timeout", 0, LOCK_MILLIS_MIN, "'30s'"),
        ("idle_in_transaction_session_timeout", IDLE_MILLIS_LEAST, IDLE_MILLIS_MIN, "'1min'"),
        // The connection that holds the lock is idle while a run waits for events.
        ("idle_session_timeout", 0, i64::MAX, "0"),
    ] {
        let millis = number(settings, name);
        if millis > 0 && millis < min {
            short.push(format!("{name} is {}", millis_text(millis as f64)));
            to_set.push(format!("SET {name} = {set}"));
            is_fatal |= millis < least;
        }
    }
    let text = short.join(", ");
    let advice = format!("for the role of forebay: ALTER ROLE … {}", to_set.join("; ALTER ROLE … "));
    match (short.is_empty(), is_fatal) {
        (true, _) => Finding::ok(NAME, "no time limit of the server is in the way of a run"),
        (false, false) => Finding::warning(NAME, format!("{text}: what takes longer is ended and done again"), advice),
        (false, true) => Finding::problem(NAME, format!("{text}: commits will be ended before they are done"), advice),
    }
}

/// Whether what is committed survives a crash.
pub(super) fn durability(settings: &Settings) -> Vec<Finding> {
    let is_off = |value: Option<&String>| value.is_some_and(|value| value == "off");
    let fsync = match is_off(settings.get("fsync").map(|(now, _)| now)) {
        true => Finding::problem(
            "store_fsync",
            "fsync is off: a crash of the server's machine may destroy the database",
            "set fsync = on in postgresql.conf, and reload",
        ),
        false => Finding::ok("store_fsync", "fsync is on"),
    };
    let (now, unset) = settings.get("synchronous_commit").map_or((None, None), |(now, unset)| (Some(now), Some(unset)));
    let name = "store_synchronous_commit";
    let commit = match (is_off(now), is_off(unset)) {
        (true, _) => Finding::problem(
            name,
            "synchronous_commit is off: what readers of Redis have may be lost here by a crash",
            "set synchronous_commit = on for the role of forebay: ALTER ROLE … SET synchronous_commit = on",
        ),
        (false, true) => Finding::warning(
            name,
            "synchronous_commit is off on the server; forebay sets it to on for itself, other programs may lose commits",
            "set synchronous_commit = on in postgresql.conf, unless it is meant",
        ),
        (false, false) => Finding::ok(name, format!("synchronous_commit is {}", now.map_or("on", |now| now.as_str()))),
    };
    vec![fsync, commit]
}

/// How many connections there are, and may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connections {
    pub(super) used: i64,
    /// Those of our role and its limit, and those of our database and its limit; -1 for no limit.
    pub(super) of_role: (i64, i64),
    pub(super) of_database: (i64, i64),
    pub(super) is_superuser: bool,
}

/// Whether a run finds a connection that is free.
pub(super) fn connections(settings: &Settings, found: Connections) -> Finding {
    const NAME: &str = "store_connections";
    let reserved = match found.is_superuser {
        true => 0,
        false => number(settings, "superuser_reserved_connections") + number(settings, "reserved_connections"),
    };
    let all = number(settings, "max_connections");
    let limits = [
        ("max_connections", found.used, all - reserved, all > 0),
        ("the connection limit of the role", found.of_role.0, found.of_role.1, found.of_role.1 >= 0),
        ("the connection limit of the database", found.of_database.0, found.of_database.1, found.of_database.1 >= 0),
    ];
    let limits = limits.into_iter().filter(|(.., is_set)| *is_set);
    let Some((what, used, max, _)) = limits.min_by_key(|(_, used, max, _)| max - used) else {
        return Finding::ok(NAME, format!("{} connections are in use", found.used));
    };
    let text = format!("{used} of {max} connections are in use ({what})");
    let advice = "end connections that nobody uses (pg_stat_activity shows them), or raise the limit";
    match max - used {
        ..2 => Finding::problem(NAME, format!("{text}: a run needs up to {RUN_CONNECTIONS}"), advice),
        2..RUN_CONNECTIONS => Finding::warning(NAME, format!("{text}: a run needs up to {RUN_CONNECTIONS}"), advice),
        _ => Finding::ok(NAME, text),
    }
}

/// What the role may do.
#[derive(Debug, Clone, Default)]
pub(super) struct Rights {
    pub(super) role: String,
    pub(super) database: String,
    /// The schema that is asked about; none if no pipeline is.
    pub(super) pipeline: Option<String>,
    pub(super) has_schema: bool,
    /// Whether a run has made the tables.
    pub(super) is_made: bool,
    pub(super) may_create_schema: bool,
    pub(super) may_make_temporary: bool,
    pub(super) may_use_schema: bool,
    pub(super) may_create_in_schema: bool,
    /// Tables of the schema that it may not read and write, with commas.
    pub(super) closed: String,
}

/// Whether a run may do what it has to.
pub(super) fn rights(found: &Rights) -> Finding {
    const NAME: &str = "store_rights";
    let (role, database) = (quoted(&found.role), quoted(&found.database));
    let schema = quoted(found.pipeline.as_deref().unwrap_or_default());
    let (mut lacks, mut grants) = (Vec::new(), Vec::new());
    let mut lack = |what: String, grant: String| {
        lacks.push(what);
        grants.push(grant);
    };
    if !found.may_make_temporary {
        lack("make temporary tables".into(), format!("GRANT TEMPORARY ON DATABASE {database} TO {role}"));
    }
    match (found.has_schema, &found.pipeline) {
        (false, None) if !found.may_create_schema => {
            lack("create a schema".into(), format!("GRANT CREATE ON DATABASE {database} TO {role}"));
        }
        (false, Some(_)) if !found.may_create_schema => {
            lack(format!("create the schema {schema}"), format!("CREATE SCHEMA {schema} AUTHORIZATION {role}"));
        }
        (true, _) if !found.may_use_schema => {
            lack(format!("use the schema {schema}"), format!("GRANT USAGE ON SCHEMA {schema} TO {role}"));
        }
        _ => {}
    }
    if found.has_schema && !found.is_made && !found.may_create_in_schema {
        lack(format!("create tables in {schema}"), format!("GRANT CREATE ON SCHEMA {schema} TO {role}"));
    }
    if !found.closed.is_empty() {
        lack(
            format!("read and write {} in {schema}", found.closed),
            format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}"),
        );
    }
    match (lacks.is_empty(), found.is_made) {
        (false, _) => {
            Finding::problem(NAME, format!("{} may not {}", found.role, lacks.join(", nor ")), grants.join("; "))
        }
        (true, true) if !found.may_create_in_schema => Finding::ok(
            NAME,
            format!("{} may read and write the tables that are there; a new entity needs their owner", found.role),
        ),
        (true, true) => Finding::ok(NAME, format!("{} may read and write all tables, and make new ones", found.role)),
        (true, false) => Finding::ok(NAME, format!("{} may make the tables", found.role)),
    }
}

/// Whether somebody else can read what is sent, or stand in for the server.
pub(super) fn tls(is_encrypted: bool, is_local: bool, is_checked: bool, certificate: Option<Finding>) -> Finding {
    const NAME: &str = "store_tls";
    match (is_encrypted, is_local) {
        (false, true) => Finding::ok(NAME, "not encrypted; the server is this machine"),
        (false, false) => Finding::warning(
            NAME,
            "the connection is not encrypted, and the server is another machine",
            "write sslmode=verify-full into the address",
        ),
        (true, false) if !is_checked => Finding::warning(
            NAME,
            "encrypted, but the server's certificate is not checked: whoever answers is taken for the server",
            "write sslmode=verify-full into the address",
        ),
        (true, _) => certificate.unwrap_or_else(|| Finding::ok(NAME, "encrypted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::finding::FindingState::{Ok, Problem, Warning};

    fn settings(given: &[(&str, &str, &str)]) -> Settings {
        given.iter().map(|(name, now, unset)| ((*name).into(), ((*now).into(), (*unset).into()))).collect()
    }

    #[test]
    fn time_limits_are_judged_by_what_they_end() {
        for (given, state, says, advice) in [
            (&[][..], Ok, "no time limit", ""),
            (&[("statement_timeout", "600000"), ("lock_timeout", "30000")], Ok, "no time limit", ""),
            (&[("statement_timeout", "5000")], Warning, "statement_timeout is 5 s", "SET statement_timeout = '10min'"),
            (&[("statement_timeout", "500")], Problem, "statement_timeout is 500 ms", "'10min'"),
            (&[("transaction_timeout", "5000")], Warning, "transaction_timeout is 5 s", "SET transaction_timeout = 0"),
            (&[("lock_timeout", "10")], Warning, "lock_timeout is 10 ms", "SET lock_timeout = '30s'"),
            (&[("idle_in_transaction_session_timeout", "2000")], Warning, "session_timeout is 2 s", "'1min'"),
            (&[("idle_in_transaction_session_timeout", "100")], Problem, "session_timeout is 100 ms", "'1min'"),
            (&[("idle_session_timeout", "600000")], Warning, "idle_session_timeout is 10 min", "timeout = 0"),
        ] {
            let given: Vec<_> = given.iter().map(|(name, value)| (*name, *value, *value)).collect();
            let found = timeouts(&settings(&given));
            let told = found.advice.clone().unwrap_or_default();
            assert!(found.state == state && found.message.contains(says) && told.contains(advice), "{found:?}");
        }
    }

    #[test]
    fn what_a_crash_would_lose_is_judged() {
        for (given, states) in [
            (&[("fsync", "on", "on"), ("synchronous_commit", "on", "on")][..], [Ok, Ok]),
            (&[("fsync", "off", "off"), ("synchronous_commit", "remote_apply", "remote_apply")], [Problem, Ok]),
            (&[("fsync", "on", "on"), ("synchronous_commit", "on", "off")], [Ok, Warning]),
            (&[("fsync", "on", "on"), ("synchronous_commit", "off", "off")], [Ok, Problem]),
            (&[], [Ok, Ok]),
        ] {
            let found: Vec<_> = durability(&settings(given)).iter().map(|found| found.state).collect();
            assert_eq!(found, states, "{given:?}");
        }
    }

    #[test]
    fn connections_are_counted_against_the_nearest_limit() {
        let all = settings(&[("max_connections", "100", ""), ("superuser_reserved_connections", "3", "")]);
        let none = (0, -1);
        for (used, of_role, of_database, is_superuser, state, says) in [
            (10, none, none, false, Ok, "10 of 97 connections are in use (max_connections)"),
            (89, none, none, false, Ok, "89 of 97"),
            (90, none, none, false, Warning, "90 of 97"),
            (96, none, none, false, Problem, "96 of 97"),
            (96, none, none, true, Warning, "96 of 100"),
            (10, (4, 5), none, false, Problem, "4 of 5 connections are in use (the connection limit of the role)"),
            (10, none, (4, 10), false, Warning, "(the connection limit of the database)"),
        ] {
            let found = connections(&all, Connections { used, of_role, of_database, is_superuser });
            assert!(found.state == state && found.message.contains(says), "{found:?}");
        }
        let found = Connections { used: 4, of_role: none, of_database: none, is_superuser: false };
        assert_eq!(connections(&Settings::new(), found).state, Ok, "a server that does not tell its limit");
    }

    #[test]
    fn rights_that_are_lacking_are_told_with_the_statement_that_gives_them() {
        let role = Rights { role: "app".into(), database: "d".into(), ..Rights::default() };
        let whole = Rights { may_make_temporary: true, may_create_schema: true, ..role.clone() };
        let shop = Rights { pipeline: Some("shop".into()), ..whole.clone() };
        let made = Rights {
            has_schema: true,
            is_made: true,
            may_use_schema: true,
            may_create_in_schema: true,
            may_create_schema: false,
            ..shop.clone()
        };
        for (found, state, says, advice) in [
            (whole.clone(), Ok, "app may make the tables", ""),
            (shop.clone(), Ok, "app may make the tables", ""),
            (made.clone(), Ok, "and make new ones", ""),
            (Rights { may_create_in_schema: false, ..made.clone() }, Ok, "a new entity needs their owner", ""),
            (
                Rights { may_create_schema: false, ..whole },
                Problem,
                "may not create a schema",
                "GRANT CREATE ON DATABASE \"d\" TO \"app\"",
            ),
            (
                Rights { may_create_schema: false, ..shop },
                Problem,
                "may not create the schema \"shop\"",
                "CREATE SCHEMA \"shop\" AUTHORIZATION \"app\"",
            ),
            (
                Rights { may_make_temporary: false, ..made.clone() },
                Problem,
                "may not make temporary tables",
                "GRANT TEMPORARY ON DATABASE \"d\" TO \"app\"",
            ),
            (
                Rights { may_use_schema: false, closed: "a, b".into(), ..made.clone() },
                Problem,
                "may not use the schema \"shop\", nor read and write a, b in \"shop\"",
                "GRANT USAGE ON SCHEMA \"shop\" TO \"app\"; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES",
            ),
            (
                Rights { is_made: false, may_create_in_schema: false, ..made },
                Problem,
                "may not create tables in \"shop\"",
                "GRANT CREATE ON SCHEMA \"shop\" TO \"app\"",
            ),
        ] {
            let judged = rights(&found);
            let told = judged.advice.clone().unwrap_or_default();
            assert!(judged.state == state && judged.message.contains(says) && told.contains(advice), "{judged:?}");
        }
    }

    #[test]
    fn commits_and_tls_are_judged() {
        assert_eq!(commit(90.0, 80.0).state, Ok);
        assert_eq!(commit(50.0, 1.0).state, Warning);
        assert_eq!(commit(0.5, 1.0).state, Ok);
        let soon = || Some(Finding::warning("store_tls", "soon", "renew"));
        for (is_encrypted, is_local, is_checked, certificate, state, says) in [
            (false, true, false, None, Ok, "this machine"),
            (false, false, false, None, Warning, "not encrypted"),
            (true, false, false, None, Warning, "not checked"),
            (true, false, true, None, Ok, "encrypted"),
            (true, false, true, soon(), Warning, "soon"),
            (true, true, false, soon(), Warning, "soon"),
        ] {
            let found = tls(is_encrypted, is_local, is_checked, certificate);
            assert!(found.state == state && found.message.contains(says), "{found:?}");
        }
    }
}
