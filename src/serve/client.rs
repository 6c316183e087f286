//! One connection: what is read and written of it, bounded in bytes and in time.
//!
//! Nothing here waits: each step does what can be done at once. Who takes longer than a request may take is dropped.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::request::{self, HEAD_BYTES_MAX, Request};
use super::response::Response;
use super::routes::{Answer, refusal};

/// How long the head of a request may take, from its first byte on.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a connection may be silent before its first request, and between two of them.
const FIRST_TIME: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(90);
/// How long the store is waited for.
const STORE_TIME: Duration = Duration::from_secs(2);
/// How long an answer may take to be taken.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// How long what a client still sends is thrown away, so that it gets the answer that ends its connection.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// How much of it.
const LINGER_BYTES: usize = 1024 * 1024;

/// What is read at once, and how often in one step.
const READ_BYTES: usize = 8 * 1024;
const READS_MAX: usize = 4;
/// Requests that one step answers of a client that sends many at once.
const REQUESTS_MAX: usize = 8;

/// A connection.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    state: State,
    /// What was read and not used yet.
    unused: Vec<u8>,
    /// When what it does has to be over.
    deadline: Instant,
}

enum State {
    Reading,
    /// The answer waits for the store.
    Asking(Box<Request>),
    Writing {
        out: Outgoing,
        keeps_alive: bool,
    },
    /// It got its last answer; how much of what it sends is still thrown away.
    Lingering {
        left: usize,
    },
    Closed,
}

/// An answer on its way.
struct Outgoing {
    head: Vec<u8>,
    body: Arc<[u8]>,
    at: usize,
}

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    ToRead,
    ToWrite,
    ForStore,
    Closed,
}

/// Whom to drop first where there are too many, the first first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Lingering,
    Idle,
    Slow,
    Served,
}

impl Client {
    pub(super) fn new(stream: TcpStream, now: Instant) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        // An answer is one write, or a few large ones.
        stream.set_nodelay(true)?;
        Ok(Self { stream, state: State::Reading, unused: Vec::new(), deadline: now + FIRST_TIME })
    }

    pub(super) fn waits(&self) -> Waits {
        match self.state {
            State::Reading | State::Lingering { .. } => Waits::ToRead,
            State::Asking(_) => Waits::ForStore,
            State::Writing { .. } => Waits::ToWrite,
            State::Closed => Waits::Closed,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whom to drop first, and of equal ones the earliest.
    pub(super) fn rank(&self) -> (Rank, Instant) {
        let rank = match self.state {
            State::Lingering { .. } | State::Closed => Rank::Lingering,
            State::Reading if self.unused.is_empty() => Rank::Idle,
            State::Reading => Rank::Slow,
            State::Asking(_) | State::Writing { .. } => Rank::Served,
        };
        (rank, self.deadline)
    }

    /// Bytes of a body that is on its way.
    pub(super) fn outgoing_bytes(&self) -> usize {
        match &self.state {
            State::Writing { out, .. } => out.body.len(),
            _ => 0,
        }
    }

    /// Does what can be done at once. `answer` gets a request, and whether it has waited for the store for long enough.
    pub(super) fn step(&mut self, now: Instant, answer: &mut dyn FnMut(&Request, bool) -> Answer) {
        for _ in 0..REQUESTS_MAX {
            match &mut self.state {
                State::Reading => match self.read_request(now) {
                    Some(request) => self.state = State::Asking(request),
                    None if matches!(self.state, State::Reading) => return self.check(now),
                    None => {}
                },
                State::Asking(request) => {
                    let (is_head, keeps_alive) = (request.is_head, request.keeps_alive);
                    match answer(request, now >= self.deadline) {
                        Answer::Ready(response) => self.begin(&response, is_head, keeps_alive, now),
                        Answer::Later => return,
                    }
                }
                State::Writing { .. } => {
                    if !self.write(now) {
                        return self.check(now);
                    }
                }
                State::Lingering { .. } => {
                    self.linger();
                    return self.check(now);
                }
                State::Closed => return,
            }
        }
    }

    /// Drops who takes too long. An answer that waits for the store is given as late as it is.
    fn check(&mut self, now: Instant) {
        if now >= self.deadline {
            self.state = State::Closed;
        }
    }

    /// Reads until a request is whole. None: there is more to come, or another state.
    fn read_request(&mut self, now: Instant) -> Option<Box<Request>> {
        for reads in 0..=READS_MAX {
            if !self.unused.is_empty() {
                match request::read(&self.unused) {
                    request::Read::Whole(request, len) => {
                        self.unused.drain(..len);
                        self.deadline = now + STORE_TIME;
                        return Some(request);
                    }
                    request::Read::Refused(why) => {
                        self.begin(&refusal(why), false, false, now);
                        return None;
                    }
                    request::Read::Partial => {}
                }
            }
            if reads == READS_MAX {
                return None;
            }
            let begins = self.unused.is_empty();
            match self.fill() {
                Some(0) => {
                    self.state = State::Closed;
                    return None;
                }
                Some(_) if begins => self.deadline = now + HEAD_TIME,
                Some(_) => {}
                None => return None,
            }
        }
        None
    }

    /// Reads what is there; how much, or none for now. An error is the end.
    fn fill(&mut self) -> Option<usize> {
        let mut buffer = [0; READ_BYTES];
        let room = HEAD_BYTES_MAX.saturating_sub(self.unused.len()).clamp(1, READ_BYTES);
        match self.stream.read(&mut buffer[..room]) {
            Ok(len) => {
                self.unused.extend_from_slice(&buffer[..len]);
                Some(len)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => None,
            Err(_) => Some(0),
        }
    }

    fn begin(&mut self, response: &Response, is_head: bool, keeps_alive: bool, now: Instant) {
        let body = if is_head || response.status == 304 { Arc::default() } else { Arc::clone(&response.body) };
        let out = Outgoing { head: response.head(keeps_alive), body, at: 0 };
        self.state = State::Writing { out, keeps_alive };
        self.deadline = now + ANSWER_TIME;
    }

    /// Writes what can be taken; false if that is not all of it.
    fn write(&mut self, now: Instant) -> bool {
        let State::Writing { out, keeps_alive } = &mut self.state else { return true };
        loop {
            let rest = match out.at.checked_sub(out.head.len()) {
                None => &out.head[out.at..],
                Some(at) => &out.body[at..],
            };
            if rest.is_empty() {
                break;
            }
            match self.stream.write(rest) {
                Ok(0) => self.state = State::Closed,
                Ok(len) => {
                    out.at += len;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => self.state = State::Closed,
            }
            return true;
        }
        self.state = match keeps_alive {
            true => {
                self.deadline = now + if self.unused.is_empty() { KEEP_ALIVE } else { HEAD_TIME };
                State::Reading
            }
            false => {
                self.deadline = now + LINGER_TIME;
                self.unused = Vec::new();
                match self.stream.shutdown(Shutdown::Write) {
                    Ok(()) => State::Lingering { left: LINGER_BYTES },
                    Err(_) => State::Closed,
                }
            }
        };
        true
    }

    /// Throws away what comes: a connection that is closed over it might lose the answer.
    fn linger(&mut self) {
        let State::Lingering { left } = &mut self.state else { return };
        let mut buffer = [0; READ_BYTES];
        for _ in 0..READS_MAX {
            match self.stream.read(&mut buffer) {
                Ok(len @ 1..) if *left > len => *left -= len,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
                Ok(_) | Err(_) => {
                    self.state = State::Closed;
                    return;
                }
            }
        }
    }
}
