//! Telling what is no Postgres: by what `version()` says, and where nobody gets so far, by what the port answers.
//!
//! The driver takes whatever a port says for Postgres, and may wait for the rest of a message that never comes. So where
//! connecting fails or takes long, the port is asked once more over a connection of its own, as any client of Postgres
//! begins: one byte is the only answer that Postgres gives.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use postgres::Config;
use postgres::config::Host;

/// How long one step of the question may take.
const STEP: Duration = Duration::from_secs(1);

/// What asks a Postgres for TLS: a length and a number
/// (<https://www.postgresql.org/docs/current/protocol-message-formats.html>, SSLRequest).
pub(super) const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// What a Redis answers, and a web server complains of.
const LINE: &[u8] = b"PING\r\n\r\n";

/// The first bytes of an alert of TLS: its kind, and the larger part of the version.
const TLS_ALERT: [u8; 2] = [21, 3];

/// Bytes of an answer that are looked at, and shown.
const ANSWER_BYTES: usize = 256;
const SHOWN_CHARS: usize = 60;

/// Why a server that speaks the protocol is refused all the same, by the text of its `version()`.
pub(super) fn refused_version(version: &str) -> Option<String> {
    let version = version.trim();
    // A Postgres says on which system it runs and how it was built; Aurora DSQL has a bare number.
    let bare = version.strip_prefix("PostgreSQL ").is_some_and(|rest| {
        !rest.is_empty() && rest.chars().all(|character| character.is_ascii_digit() || character == '.')
    });
    let name = match version {
        _ if version.starts_with("CockroachDB") => "CockroachDB",
        _ if bare || version.contains("DSQL") => "Aurora DSQL",
        _ if version.contains("Redshift") => "Amazon Redshift",
        _ => return None,
    };
    Some(format!(
        "the server is {name}, which speaks the protocol of Postgres and lacks what forebay needs of it (advisory locks, temporary tables, COPY within a transaction); expected a PostgreSQL"
    ))
}

/// What listens at the address if it is no Postgres; none if it is one, or if nothing can be said. Blocks for some
/// seconds at most for each host.
pub(super) fn listener(config: &Config) -> Option<String> {
    let (hosts, ports) = (config.get_hosts(), config.get_ports());
    hosts.iter().enumerate().find_map(|(at, host)| {
        let Host::Tcp(name) = host else { return None };
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let name = config.get_hostaddrs().get(at).map_or_else(|| name.clone(), ToString::to_string);
        // What reads lines waits for the end of one; a Postgres that is slow hangs up on it.
        let answer = ask(&name, port, &TLS_REQUEST).or_else(|| ask(&name, port, LINE))?;
        Some(format!("what listens at {name}:{port} is no Postgres: {}; look at host and port", kind_of(&answer)?))
    })
}

/// The first bytes that come back; none if nothing does in time.
fn ask(host: &str, port: u16, question: &[u8]) -> Option<Vec<u8>> {
    let address = (host, port).to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, STEP).ok()?;
    stream.set_read_timeout(Some(STEP)).and_then(|()| stream.set_write_timeout(Some(STEP))).ok()?;
    stream.write_all(question).ok()?;
    let mut answer = vec![0; ANSWER_BYTES];
    let bytes = stream.read(&mut answer).ok()?;
    answer.truncate(bytes);
    Some(answer)
}

/// What an answer shows of its sender; none if it may be a Postgres.
fn kind_of(answer: &[u8]) -> Option<String> {
    match answer {
        // It takes TLS or not; an old or a full one has an error.
        [] | [b'S' | b'N'] => None,
        [b'E', 0, 0, ..] => None,
        _ if answer.starts_with(&TLS_ALERT) => {
            Some("it speaks TLS from the first byte, as a web server or a TLS proxy does".into())
        }
        _ => {
            let text = String::from_utf8_lossy(answer);
            let shown: String = text.lines().next().unwrap_or_default().chars().take(SHOWN_CHARS).collect();
            Some(format!("it answered {shown:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_speaks_the_protocol_is_told_by_its_version() {
        for (version, name) in [
            ("PostgreSQL 15.14 (Debian 15.14-0+deb12u1) on x86_64-pc-linux-gnu, compiled by gcc", None),
            ("PostgreSQL 15.2-YB-2025.1.0.0-b0 on x86_64-pc-linux-gnu, compiled by clang", None),
            ("PostgreSQL 16.6 on aarch64-unknown-linux-gnu, compiled by aarch64-unknown-linux-gnu-gcc", None),
            ("", None),
            ("CockroachDB CCL v26.1.0 (x86_64-pc-linux-gnu, built 2026/02/01, go1.25)", Some("CockroachDB")),
            ("PostgreSQL 16", Some("Aurora DSQL")),
            ("PostgreSQL 16.2\n", Some("Aurora DSQL")),
            ("PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC, Redshift 1.0.12103", Some("Amazon Redshift")),
        ] {
            let refused = refused_version(version);
            assert_eq!(refused.is_some(), name.is_some(), "{version}");
            assert!(refused.is_none_or(|refused| refused.contains(name.unwrap_or_default())), "{version}");
        }
    }

    #[test]
    fn an_answer_shows_its_sender() {
        for (answer, says) in [
            (&b""[..], None),
            (b"S", None),
            (b"N", None),
            (b"E\0\0\0\x5aSFATAL\0", None),
            (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n", Some("it answered \"HTTP/1.1 400 Bad Request\"")),
            (b"-ERR unknown command\r\n", Some("it answered \"-ERR unknown command\"")),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Some("it answered \"SSH-2.0")),
            (b"J\0\0\0\n8.0.33\0", Some("it answered \"J\\0\\0\\0\"")),
            (b"\x15\x03\x01\0\x02\x02\x46", Some("it speaks TLS from the first byte")),
            (b"\x1b[2J", Some("it answered \"\\u{1b}[2J\"")),
        ] {
            let kind = kind_of(answer);
            assert_eq!(kind.is_some(), says.is_some(), "{answer:?}");
            assert!(kind.as_ref().is_none_or(|kind| kind.starts_with(says.unwrap_or_default())), "{kind:?}");
        }
    }
}
