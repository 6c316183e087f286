//! What a Redis says of itself, and what its user may do, judged: ok, warning or problem, and what to do. Pure: `examine`
//! asks.

use std::collections::BTreeMap;

use crate::model::finding::Finding;
use crate::model::judgement::bytes_text;
use crate::redis::topology::PART_OF_CLUSTER;

/// A round trip above this is felt: a publish is one, and a tenth of the shortest time that snapshots are useful in.
pub(super) const ROUND_TRIP_MILLIS_MAX: f64 = 250.0;

/// Parts of a hundred of `maxmemory` from which on it is told, and from which on the next publish may be refused.
const MEMORY_PERCENT_MAX: u64 = 90;
const MEMORY_PERCENT_MOST: u64 = 99;

/// Commands that are shown at most of those that are lacking.
const SHOWN_MAX: usize = 6;

/// What `INFO` says, by name; empty if the user may not ask.
#[derive(Debug, Default)]
pub(super) struct Info(BTreeMap<String, String>);

impl Info {
    pub(super) fn read(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    fn is_known(&self) -> bool {
        !self.0.is_empty()
    }
}

/// That it answers, and what it is: not a replica, no part of a cluster under the address of one server.
pub(super) fn connection(info: &Info, is_cluster: bool) -> Finding {
    const NAME: &str = "redis_connection";
    let kinds = [("valkey_version", "Valkey"), ("dragonfly_version", "Dragonfly"), ("redis_version", "Redis")];
    let server = kinds.iter().find_map(|(field, name)| Some(format!("{name} {}", info.text(field)?)));
    let server = server.unwrap_or_else(|| "a server of an unknown version".to_owned());
    if info.text("role") == Some("slave") {
        return Finding::problem(
            NAME,
            format!("{server} answers, and is a replica, which takes no writes"),
            "give the address of the primary",
        );
    }
    if info.text("redis_mode") == Some("cluster") && !is_cluster {
        let (what, advice) = PART_OF_CLUSTER.split_once("; ").unwrap_or((PART_OF_CLUSTER, ""));
        return Finding::problem(NAME, format!("{server} answers, and {what}"), advice);
    }
    if info.number("loading") == Some(1) {
        return Finding::warning(NAME, format!("{server} is still loading its data"), "wait until it has");
    }
    Finding::ok(NAME, format!("{server} answers"))
}

/// Whether there is room for what is published, and whether it stays.
pub(super) fn memory(info: &Info) -> Finding {
    const NAME: &str = "redis_memory";
    let (Some(max), Some(used)) = (info.number("maxmemory"), info.number("used_memory")) else {
        return Finding::ok(NAME, "not looked at: the user may not ask INFO");
    };
    let policy = info.text("maxmemory_policy").unwrap_or("noeviction");
    let limit = if max == 0 { "no limit".to_owned() } else { bytes_text(max) };
    let text = format!("{} used of {limit}, maxmemory-policy is {policy}", bytes_text(used));
    let percent = used.saturating_mul(100).checked_div(max).unwrap_or(0);
    if policy != "noeviction" {
        // All of ours have a time to live, so what is called volatile means them too.
        let when = if max == 0 { "as soon as maxmemory is set" } else { "when memory is short" };
        return Finding::warning(
            NAME,
            format!("{text}: {when}, Redis takes out what readers want, until it is published anew"),
            "set maxmemory-policy noeviction, or use a Redis that is no cache",
        );
    }
    let advice = "raise maxmemory, or shorten [snapshots] ttl";
    match percent {
        ..MEMORY_PERCENT_MAX => Finding::ok(NAME, text),
        MEMORY_PERCENT_MAX..MEMORY_PERCENT_MOST => {
            Finding::warning(NAME, format!("{text}: nearly full, and what does not fit is refused"), advice)
        }
        _ => Finding::problem(NAME, format!("{text}: full, and what does not fit is refused"), advice),
    }
}

/// Whether it keeps its data over a restart. Nothing is lost if it does not: the store has all.
pub(super) fn persistence(info: &Info, save: Option<&str>) -> Finding {
    const NAME: &str = "redis_persistence";
    if info.text("aof_last_write_status") == Some("err") || info.text("rdb_last_bgsave_status") == Some("err") {
        return Finding::warning(
            NAME,
            "Redis could not save its data the last time it tried, and may refuse writes because of that",
            "look at its log: the disk may be full",
        );
    }
    let text = match (info.number("aof_enabled"), save) {
        (Some(1), _) => "it keeps a log of its data (AOF)",
        (_, Some("")) => "it keeps nothing over a restart; the next run publishes everything again",
        (Some(_), Some(_)) => "it saves its data from time to time (RDB)",
        (Some(_), None) => "it keeps no log of its data (AOF); what it loses in a restart the next run publishes again",
        (None, _) => "not looked at: the user may not ask INFO",
    };
    Finding::ok(NAME, text)
}

/// Whether the pool of a run finds connections that are free.
pub(super) fn connections(info: &Info, pool: usize) -> Finding {
    const NAME: &str = "redis_connections";
    let (Some(used), Some(max)) = (info.number("connected_clients"), info.number("maxclients")) else {
        return Finding::ok(NAME, "not looked at: the server does not tell how many it has");
    };
    // Without the one that asks.
    let used = used.saturating_sub(1);
    let text = format!("{used} of {max} connections are in use");
    let advice = "end clients that nobody uses (CLIENT LIST shows them), raise maxclients, or lower [snapshots] pool";
    match max.saturating_sub(used) {
        0 => Finding::problem(NAME, format!("{text}: a publish takes up to {pool}"), advice),
        free if free < pool as u64 => Finding::warning(NAME, format!("{text}: a publish takes up to {pool}"), advice),
        _ => Finding::ok(NAME, text),
    }
}

/// A command that a publish runs, and on which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needed {
    /// The command with its arguments; the first of them is its key.
    pub(super) command: Vec<String>,
    /// Whether a publish works without it, only slower.
    pub(super) is_spared: bool,
}

/// What may be done in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Those of the commands that may not be run.
    AllBut(Vec<Needed>),
    /// It is an older server, which cannot tell without writing.
    Untold,
    /// No script may run; what the server says, and what to do.
    NoScripts(String),
}

/// Whether the user may do what a publish has to.
pub(super) fn rights(allowed: &Allowed, user: &str) -> Finding {
    const NAME: &str = "redis_rights";
    let lacking = match allowed {
        Allowed::NoScripts(said) => {
            return Finding::of_error(NAME, said, "allow EVAL: all that forebay does there is done by scripts");
        }
        Allowed::Untold => {
            return Finding::ok(NAME, "scripts may run; which commands the user may run only Redis 7 and later tells");
        }
        Allowed::AllBut(lacking) => lacking,
    };
    let text = |needed: &Needed| {
        let (command, key) = (&needed.command[0], needed.command.get(1));
        key.map_or_else(|| command.clone(), |key| format!("{command} {key}"))
    };
    let names = |lacking: &[&Needed]| {
        let mut shown: Vec<String> = lacking.iter().take(SHOWN_MAX).map(|needed| text(needed)).collect();
        if lacking.len() > SHOWN_MAX {
            shown.push(format!("{} more", lacking.len() - SHOWN_MAX));
        }
        shown.join(", ")
    };
    let mut commands: Vec<String> =
        lacking.iter().map(|needed| format!("+{}", needed.command[0].to_ascii_lowercase())).collect();
    commands.sort_unstable();
    commands.dedup();
    let advice = format!(
        "ACL SETUSER {user} {}, on all keys that the templates name (~forebay:* where they are the default ones)",
        commands.join(" ")
    );
    let (spared, wanted): (Vec<&Needed>, Vec<&Needed>) = lacking.iter().partition(|needed| needed.is_spared);
    match (wanted.is_empty(), spared.is_empty()) {
        (true, true) => Finding::ok(NAME, format!("user {user} may run all that a publish runs")),
        (true, false) => Finding::warning(
            NAME,
            format!("user {user} may not run {}: a publish takes one round trip more", names(&spared)),
            advice,
        ),
        (false, _) => Finding::problem(NAME, format!("user {user} may not run {}", names(&wanted)), advice),
    }
}

/// Whether somebody else can read what is sent.
pub(super) fn tls(is_encrypted: bool, is_local: bool, certificate: Option<Finding>) -> Finding {
    const NAME: &str = "redis_tls";
    match (is_encrypted, is_local) {
        (true, _) => certificate.unwrap_or_else(|| Finding::ok(NAME, "encrypted, with a certificate that is checked")),
        (false, true) => Finding::ok(NAME, "not encrypted; the server is this machine"),
        (false, false) => Finding::warning(
            NAME,
            "the connection is not encrypted, and the server is another machine: the password goes in clear too",
            "write rediss:// and not redis://, if the server can speak TLS",
        ),
    }
}

/// Of what `INFO` says, whether it may be asked at all.
pub(super) fn untold(info: &Info) -> Option<&'static str> {
    (!info.is_known()).then_some("the user may not ask INFO")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::finding::FindingState::{Ok, Problem, Warning};

    #[test]
    fn memory_is_judged_by_limit_and_policy() {
        for (info, state, says) in [
            ("", Ok, "not looked at"),
            ("used_memory:1048576\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n", Ok, "1.0 MiB used of no limit"),
            ("used_memory:89\r\nmaxmemory:100\r\nmaxmemory_policy:noeviction", Ok, "89 bytes used of 100 bytes"),
            ("used_memory:90\nmaxmemory:100\nmaxmemory_policy:noeviction", Warning, "nearly full"),
            ("used_memory:120\nmaxmemory:100\nmaxmemory_policy:noeviction", Problem, "full, and what does not fit"),
            ("used_memory:1\nmaxmemory:100\nmaxmemory_policy:allkeys-lru", Warning, "when memory is short"),
            ("used_memory:1\nmaxmemory:100\nmaxmemory_policy:volatile-ttl", Warning, "when memory is short"),
            ("used_memory:1\nmaxmemory:0\nmaxmemory_policy:allkeys-lru", Warning, "as soon as maxmemory is set"),
        ] {
            let found = memory(&Info::read(info));
            assert!(found.state == state && found.message.contains(says), "{info:?}: {found:?}");
        }
    }

    #[test]
    fn servers_are_told_by_what_they_say_of_themselves() {
        for (info, is_cluster, state, says) in [
            ("redis_version:7.0.15\nrole:master\nredis_mode:standalone", false, Ok, "Redis 7.0.15 answers"),
            ("redis_version:7.2.4\nvalkey_version:8.0.1\nrole:master", false, Ok, "Valkey 8.0.1 answers"),
            ("redis_version:7.0.15\nrole:slave", false, Problem, "is a replica"),
            ("redis_version:7.0.15\nredis_mode:cluster", false, Problem, "part of a cluster"),
            ("redis_version:7.0.15\nredis_mode:cluster", true, Ok, "answers"),
            ("redis_version:7.0.15\nloading:1", false, Warning, "still loading"),
            ("", false, Ok, "unknown version"),
        ] {
            let found = connection(&Info::read(info), is_cluster);
            assert!(found.state == state && found.message.contains(says), "{info:?}: {found:?}");
        }
        for (info, save, state, says) in [
            ("aof_enabled:0", Some(""), Ok, "nothing over a restart"),
            ("aof_enabled:0", Some("3600 1"), Ok, "RDB"),
            ("aof_enabled:0", None, Ok, "no log of its data"),
            ("aof_enabled:1", None, Ok, "AOF"),
            ("", None, Ok, "not looked at"),
            ("aof_enabled:0\nrdb_last_bgsave_status:err", Some("1 1"), Warning, "could not save"),
        ] {
            let found = persistence(&Info::read(info), save);
            assert!(found.state == state && found.message.contains(says), "{info:?}: {found:?}");
        }
        for (info, state) in [
            ("", Ok),
            ("connected_clients:1\nmaxclients:100", Ok),
            ("connected_clients:94\nmaxclients:100", Warning),
            ("connected_clients:101\nmaxclients:100", Problem),
        ] {
            assert_eq!(connections(&Info::read(info), 8).state, state, "{info:?}");
        }
    }

    #[test]
    fn rights_that_are_lacking_are_told_with_the_command_that_gives_them() {
        let needed =
            |command: &str, is_spared| Needed { command: command.split(' ').map(str::to_owned).collect(), is_spared };
        let many: Vec<Needed> = (0..9).map(|at| needed(&format!("SET k{at} v"), false)).collect();
        for (allowed, state, says, advice) in [
            (Allowed::AllBut(Vec::new()), Ok, "user u may run all", ""),
            (Allowed::Untold, Ok, "only Redis 7 and later tells", ""),
            (Allowed::NoScripts("it does not allow EVAL; allow it".into()), Problem, "does not allow EVAL", "allow it"),
            (
                Allowed::AllBut(vec![needed("SET k v", false), needed("HLEN w", true)]),
                Problem,
                "may not run SET k",
                "ACL SETUSER u +hlen +set, on all keys",
            ),
            (
                Allowed::AllBut(vec![needed("HLEN w", true)]),
                Warning,
                "HLEN w: a publish takes one round trip more",
                "+hlen",
            ),
            (Allowed::AllBut(many), Problem, "SET k5, 3 more", "ACL SETUSER u +set,"),
        ] {
            let found = rights(&allowed, "u");
            let told = found.advice.clone().unwrap_or_default();
            assert!(found.state == state && found.message.contains(says) && told.contains(advice), "{found:?}");
        }
    }

    #[test]
    fn what_may_be_read_on_its_way_is_told() {
        assert_eq!(tls(false, true, None).state, Ok);
        assert_eq!(tls(false, false, None).state, Warning);
        assert_eq!(tls(true, false, None).state, Ok);
        assert_eq!(tls(true, true, Some(Finding::warning("redis_tls", "soon", "renew"))).state, Warning);
        assert!(untold(&Info::default()).is_some() && untold(&Info::read("a:b")).is_none());
    }
}
