//! One connection. A request is any number of commands sent at once; every reply is read, and where they end early it
//! is known which did not come.

use std::time::Duration;

use redis::{Cmd, Connection, RedisError, Value};

use super::address::RedisUrl;

/// Why the replies of a request end early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Break {
    /// There is no connection, or the server lets nobody in.
    NoEntry(String),
    /// No answer came in time.
    Stalled(String),
    /// The connection ended.
    Dropped(String),
}

impl Break {
    pub(super) fn cause(&self) -> &str {
        match self {
            Self::NoEntry(cause) | Self::Stalled(cause) | Self::Dropped(cause) => cause,
        }
    }
}

/// What came of a request.
pub(super) struct Exchange {
    /// The replies that came, in order.
    pub(super) replies: Vec<Value>,
    /// Why some did not.
    pub(super) broke: Option<Break>,
}

/// A connection, or why there is none: a pool would try again and say nothing.
pub(super) struct Wire {
    connection: Result<Connection, Break>,
    /// Login and database; they go with the first request and cost no round trip of their own.
    greeting: Vec<Cmd>,
    /// Round trips that connecting took and nobody has counted yet.
    connect_trips: u32,
    /// Of which age of its server's pool it is.
    pub(super) generation: u64,
    is_spoiled: bool,
}

impl Wire {
    /// Connects. Blocks for `timeout` at most, for each address that the host's name has.
    pub(super) fn connect(url: &RedisUrl, client: &redis::Client, timeout: Duration, generation: u64) -> Self {
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
        }
    }

    /// Whether it must not be used again: it broke, or a late reply could still come.
    pub(super) fn is_spoiled(&self) -> bool {
        self.is_spoiled || self.connection.is_err()
    }

    /// Says that it must not be used again.
    pub(super) fn spoil(&mut self) {
        self.is_spoiled = true;
    }

    /// Round trips that connecting took; 0 from the second time on.
    pub(super) fn take_connect_trips(&mut self) -> u32 {
        std::mem::take(&mut self.connect_trips)
    }

    /// Sends the commands at once and reads their replies. Blocks for the time-out at most for each of them.
    pub(super) fn exchange(&mut self, commands: &[Cmd]) -> Exchange {
        match self.try_exchange(commands) {
            Ok(exchange) => {
                self.is_spoiled |= exchange.broke.is_some();
                exchange
            }
            Err(broke) => {
                self.is_spoiled = true;
                Exchange { replies: Vec::new(), broke: Some(broke) }
            }
        }
    }

    fn try_exchange(&mut self, commands: &[Cmd]) -> Result<Exchange, Break> {
        let connection = self.connection.as_mut().map_err(|broke| broke.clone())?;
        let mut bytes = Vec::with_capacity(commands.iter().map(packed_len).sum());
        self.greeting.iter().chain(commands).for_each(|command| command.write_packed_command(&mut bytes));
        // What the server said before it hung up may explain why; it is read below.
        let sent = connection.send_packed_command(&bytes);
        drop(bytes);
        for _ in self.greeting.drain(..) {
            match connection.recv_response() {
                Ok(Value::ServerError(error)) => return Err(Break::NoEntry(login_text(&error))),
                Ok(_) => {}
                Err(error) => return Err(broke(&sent.err().unwrap_or(error))),
            }
        }
        let mut replies = Vec::with_capacity(commands.len());
        while replies.len() < commands.len() {
            match connection.recv_response() {
                Ok(Value::Push { .. }) => {}
                Ok(reply) => replies.push(reply),
                Err(error) => {
                    let broke = broke(sent.as_ref().err().unwrap_or(&error));
                    return Ok(Exchange { replies, broke: Some(broke) });
                }
            }
        }
        Ok(Exchange { replies, broke: None })
    }
}

fn packed_len(command: &Cmd) -> usize {
    command
        .args_iter()
        .map(|argument| if let redis::Arg::Simple(bytes) = argument { bytes.len() + 16 } else { 16 })
        .sum()
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

/// What a server says of a login: without the words of the login.
fn login_text(error: &redis::ServerError) -> String {
    format!("it refused the login: {}", server_text(error))
}

/// What a server says, as it says it.
pub(super) fn server_text(error: &redis::ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}
