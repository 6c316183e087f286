//! One connection. A request is any number of commands sent at once; every reply is read, and where they end early it
//! is known which did not come.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Connection, ErrorKind, RedisError, Value};

use super::address::RedisUrl;

/// Messages that a server may send without having been asked, in one exchange.
const PUSHES_MAX: u32 = 100;

/// Bytes that are sent together.
const SEND_BYTES: usize = 64 * 1024;

/// Why the replies of a request end early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Break {
    /// There is no connection, or the server lets nobody in.
    NoEntry(String),
    /// No answer came in time.
    Stalled(String),
    /// The connection ended.
    Dropped(String),
    /// The server takes no more connections; those that there are go on.
    Crowded(String),
}

impl Break {
    pub(crate) fn cause(&self) -> &str {
        match self {
            Self::NoEntry(cause) | Self::Stalled(cause) | Self::Dropped(cause) | Self::Crowded(cause) => cause,
        }
    }

    /// Whether there was a connection that ended.
    pub(crate) fn was_connected(&self) -> bool {
        matches!(self, Self::Stalled(_) | Self::Dropped(_))
    }
}

/// What came of a request.
pub(crate) struct Replies {
    /// Those that came, in order.
    pub(crate) values: Vec<Value>,
    /// Why some did not.
    pub(crate) broke: Option<Break>,
}

/// A connection, or why there is none: a pool would try again and say nothing.
pub(crate) struct Wire {
    connection: Result<Connection, Break>,
    /// Login and database; they go with the first request and cost no round trip of their own.
    greeting: Vec<Cmd>,
    /// Round trips that connecting took and nobody has counted yet.
    connect_trips: u32,
    /// Of which age of its server's pool it is.
    pub(crate) generation: u64,
    is_spoiled: bool,
    is_tls: bool,
    /// No reply has come yet: the first may be about the connection, and not about a command.
    is_new: bool,
}

impl Wire {
    /// Connects. Blocks for `timeout` at most, for each address that the host's name has.
    pub(crate) fn connect(url: &RedisUrl, client: &redis::Client, timeout: Duration, generation: u64) -> Self {
        let connected = client.get_connection_with_timeout(timeout).and_then(|connection| {
            connection.set_read_timeout(Some(timeout))?;
            connection.set_write_timeout(Some(timeout))?;
            Ok(connection)
        });
        let mut greeting = Vec::new();
        if let Some((user, password)) = url.credentials() {
            let mut login = redis::cmd("AUTH");
            user.iter().for_each(|user| {
                login.arg(*user);
            });
            greeting.push(login.arg(password).take());
        }
        if url.database() != 0 {
            greeting.push(redis::cmd("SELECT").arg(url.database()).take());
        }
        Self {
            connection: connected.map_err(|error| Break::NoEntry(no_connection(&error))),
            greeting,
            connect_trips: if url.is_tls() { 2 } else { 1 },
            generation,
            is_spoiled: false,
            is_tls: url.is_tls(),
            is_new: true,
        }
    }

    /// Whether it must not be used again: it broke, or a late reply could still come.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.is_spoiled || self.connection.is_err()
    }

    /// Whether there never was a connection.
    pub(crate) fn has_failed(&self) -> bool {
        self.connection.is_err()
    }

    /// Round trips that connecting took; 0 from the second time on.
    pub(crate) fn take_connect_trips(&mut self) -> u32 {
        std::mem::take(&mut self.connect_trips)
    }

    /// Sends the commands at once and reads their replies; `heard` is told each as it comes. Blocks no longer than the
    /// time-out while nothing comes.
    pub(crate) fn exchange(
        &mut self,
        commands: &mut dyn Iterator<Item = Cmd>,
        heard: &mut dyn FnMut(&Value),
    ) -> Replies {
        match self.try_exchange(commands, heard) {
            Ok(replies) => {
                self.is_spoiled |= replies.broke.is_some();
                replies
            }
            Err(broke) => {
                self.is_spoiled = true;
                Replies { values: Vec::new(), broke: Some(broke) }
            }
        }
    }

    fn try_exchange(
        &mut self,
        commands: &mut dyn Iterator<Item = Cmd>,
        heard: &mut dyn FnMut(&Value),
    ) -> Result<Replies, Break> {
        let connection = self.connection.as_mut().map_err(|broke| broke.clone())?;
        let greetings = self.greeting.len();
        let mut all = self.greeting.drain(..).chain(commands);
        // What the server said before it hung up may explain why, so its replies are read even then.
        let has_to_shake_hands = self.is_new && self.is_tls;
        let (sent, count) = send(connection, &mut all, has_to_shake_hands)?;
        let mut values = Vec::with_capacity(count.saturating_sub(greetings));
        let (mut read, mut pushed) = (0, 0);
        while read < count {
            match connection.recv_response() {
                // Nobody asked for any; a server that goes on with them answers nothing.
                Ok(Value::Push { .. }) if pushed < PUSHES_MAX => {
                    pushed += 1;
                    continue;
                }
                Ok(Value::Push { .. }) => {
                    let broke = Break::Dropped("it sends what nobody asked for".into());
                    return Ok(Replies { values, broke: Some(broke) });
                }
                Ok(reply) => {
                    if let Value::ServerError(error) = &reply {
                        if let Some(broke) = door_text(error).filter(|_| self.is_new) {
                            return Err(broke);
                        }
                        if read < greetings {
                            return Err(Break::NoEntry(login_text(error)));
                        }
                    }
                    if read >= greetings {
                        heard(&reply);
                        values.push(reply);
                    }
                }
                Err(error) => {
                    let broke = match self.is_new && !self.is_tls {
                        true => unanswered(sent.as_ref().err().unwrap_or(&error), &error),
                        false => broke(sent.as_ref().err().unwrap_or(&error)),
                    };
                    return Ok(Replies { values, broke: Some(broke) });
                }
            }
            read += 1;
            self.is_new = false;
        }
        Ok(Replies { values, broke: sent.err().map(|error| broke(&error)) })
    }
}

/// Sends commands as they are made, so that the server begins with the first while the last is not there yet. Returns
/// how many were begun; or why both sides do not come to speak TLS, which they do with the first byte.
fn send(
    connection: &mut Connection,
    commands: &mut dyn Iterator<Item = Cmd>,
    mut has_to_shake_hands: bool,
) -> Result<(Result<(), RedisError>, usize), Break> {
    let mut bytes = Vec::with_capacity(SEND_BYTES * 2);
    let mut count = 0;
    for command in commands {
        command.write_packed_command(&mut bytes);
        count += 1;
        if std::mem::take(&mut has_to_shake_hands) && !bytes.is_empty() {
            connection.send_packed_command(&bytes[..1]).map_err(|error| no_tls(&error))?;
            bytes.remove(0);
        }
        if bytes.len() >= SEND_BYTES {
            if let Err(error) = connection.send_packed_command(&bytes) {
                return Ok((Err(error), count));
            }
            bytes.clear();
        }
    }
    let sent = if bytes.is_empty() { Ok(()) } else { connection.send_packed_command(&bytes) };
    Ok((sent, count))
}

/// Why a server and we do not come to speak TLS. What it says without TLS cannot be read, so nothing is waited for.
fn no_tls(error: &RedisError) -> Break {
    const ADVICE: &str = "if this port is one without TLS, write redis:// and not rediss://";
    // The driver gives the error of the socket behind an Arc.
    let shared = error.source().and_then(|source| source.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let io = shared.and_then(|shared| shared.downcast_ref::<std::io::Error>());
    match io.and_then(std::io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => {
            Break::NoEntry("it does not answer in TLS: write redis:// and not rediss://".into())
        }
        Some(refused) => Break::NoEntry(format!("no TLS connection: {refused}{}", certificate_advice(refused))),
        None if error.is_timeout() => Break::NoEntry(format!("it does not begin to speak TLS in time; {ADVICE}")),
        None => Break::Dropped(format!("the connection broke before TLS was spoken: {error}; {ADVICE}")),
    }
}

/// What to do about a certificate that is refused.
fn certificate_advice(refused: &rustls::Error) -> &'static str {
    match refused {
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            "; give the certificate of the authority that has signed it: ?sslrootcert=FILE in the address"
        }
        // The error behind it is of a crate that is not ours to name.
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(inner))
            if inner.0.to_string().contains("CaUsedAsEndEntity") =>
        {
            "; it is the certificate of an authority: give the server one of its own that this authority has signed"
        }
        _ => "",
    }
}

/// Why the first reply of a connection without TLS does not come, although there was a connection: `failed` first, and
/// then reading.
fn unanswered(failed: &RedisError, reading: &RedisError) -> Break {
    if reading.kind() == ErrorKind::Parse {
        return Break::NoEntry(
            "it does not answer as Redis does; if this port is one with TLS, write rediss:// and not redis://".into(),
        );
    }
    match broke(failed) {
        Break::Dropped(_) => Break::Dropped(
            "it closes the connection before it answers; if this port is one with TLS, write rediss:// and not redis://"
                .into(),
        ),
        other => other,
    }
}

fn broke(error: &RedisError) -> Break {
    if error.is_timeout() {
        return Break::Stalled("no answer came in time".into());
    }
    Break::Dropped(format!("the connection broke: {error}"))
}

fn no_connection(error: &RedisError) -> String {
    if error.is_timeout() {
        return "it did not accept a connection in time".into();
    }
    format!("no connection: {error}")
}

/// What a server says of a login or a database: without the words of the login.
fn login_text(error: &redis::ServerError) -> String {
    format!("it refused the login or the database: {}", server_text(error))
}

/// What a server says at the door, before any command.
fn door_text(error: &redis::ServerError) -> Option<Break> {
    let text = server_text(error);
    if text.contains("max number of clients") {
        return Some(Break::Crowded(text));
    }
    // The second is said before a request is looked at that is too large for somebody unknown.
    if error.code() == "NOAUTH" || text.contains("unauthenticated") {
        return Some(Break::NoEntry(format!("it wants a password: {text}")));
    }
    (error.code() == "DENIED").then_some(Break::NoEntry(text))
}

/// Stands for the code of an error that refuses to run any script.
pub(crate) const NO_EVAL: &str = "NOEVAL";

/// How far into a message its subject stands at most; behind it may be a script's text, or data.
const SUBJECT_BYTES: usize = 100;

/// The code of an error; [`NO_EVAL`] if it refuses to run any script.
pub(crate) fn code_of(error: &redis::ServerError) -> &str {
    let subject: String = error.details().unwrap_or_default().chars().take(SUBJECT_BYTES).collect();
    let subject = subject.to_lowercase();
    let has = |words: &[&str]| subject.split(|byte: char| !byte.is_alphanumeric()).any(|word| words.contains(&word));
    match has(&["command", "commands"]) && has(&["eval", "evalsha"]) && matches!(error.code(), "ERR" | "NOPERM") {
        true => NO_EVAL,
        false => error.code(),
    }
}

/// What a server says, as it says it; and what to do, where that is the same for everybody.
pub(crate) fn server_text(error: &redis::ServerError) -> String {
    let text = match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    };
    // Behind it the script names the key, which is not at fault.
    let all = || text.split(".: ").next().unwrap_or_default().trim_end_matches('.');
    match code_of(error) {
        NO_EVAL => "it does not allow the command EVAL, and all that forebay does there is done by scripts: allow it \
                    (ACL SETUSER … +eval +evalsha), or give an address that leads past the proxy which forbids it"
            .to_owned(),
        "READONLY" => format!("{}; give the address of the primary: this server is its replica", all()),
        "OOM" => format!("{}; raise it, or let a maxmemory-policy other than noeviction make room", all()),
        _ => text,
    }
}
