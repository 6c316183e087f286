//! The one thread that serves all clients: it waits until one of them can be read or written, and never for one alone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use super::client::{Client, Rank, Waits};
use super::listen::{ListenError, Listening};
use super::of_run::RunSubject;
use super::of_seeder::{SeederSubject, WatchedSeeder};
use super::response::Response;
use super::routes::{Answer, Service};
use super::stored::Stored;
use super::subject::Subject;
use super::warnings::Warnings;
use crate::model::wait::pause;
use crate::run::Watched;

/// Connections at once. One more takes the place of the one that has been silent for longest.
pub const CLIENTS_MAX: usize = 128;

/// Connections that are taken in one turn.
const ACCEPTS_MAX: usize = 32;

/// Bytes of bodies on their way at most; beyond, only small answers are given.
const OUTGOING_BYTES_MAX: usize = 64 * 1024 * 1024;
const SMALL_BYTES: usize = 64 * 1024;

/// Where the system gives no connection, how long none is asked for.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The thread may be at work for one part in so many of the time, and for so long at once: a flood of requests must not
/// take the cores from the run.
const WORK_PART: u32 = 10;
const WORK_SAVED_MAX: Duration = Duration::from_millis(250);

/// How long the end of the server may take: for answers on their way, and for its thread.
const FLUSH_MAX: Duration = Duration::from_millis(100);
const END_MAX: Duration = Duration::from_secs(1);

/// A server at work. It ends when this is dropped, which may block for a moment.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    wake: UnixStream,
    done: Receiver<()>,
}

impl Serving {
    /// Starts the thread.
    fn start(
        listening: Listening,
        warnings: Warnings,
        subject: impl FnOnce(UnixStream, Duration) -> Box<dyn Subject>,
    ) -> std::io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let address = listening.address();
        let Listening { listener, gate, stall, .. } = listening;
        let service = Service::new(subject(wake.try_clone()?, stall), warnings, gate);
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, done) = bounded::<()>(1);
        let server = Server {
            listener,
            woken,
            service,
            clients: Vec::new(),
            stop: Arc::clone(&stop),
            accept_at: Instant::now(),
            saved: WORK_SAVED_MAX,
            saved_at: Instant::now(),
        };
        std::thread::Builder::new()
            .name("forebay-serve".into())
            .spawn(move || {
                server.run();
                drop(ended);
            })
            .map_err(|error| std::io::Error::new(error.kind(), format!("cannot start a thread: {error}")))?;
        Ok(Self { address, stop, wake, done })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // If it is full, the thread is awake already.
        let _ = (&self.wake).write(&[0]);
        // A thread that does not end in time ends with the process.
        let _ = self.done.recv_timeout(END_MAX);
    }
}

impl Listening {
    /// Serves a pipeline, from before its run until what this returns is dropped. `warnings` are shown with it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn serve(self, watched: Watched, warnings: Warnings) -> Result<Serving, ListenError> {
        let subject = |wake, stall| {
            let stored = Stored::new(watched.store.as_ref(), &watched.pipeline, wake);
            Box::new(RunSubject::new(watched, stored, stall)) as Box<dyn Subject>
        };
        Serving::start(self, warnings, subject).map_err(ListenError::Start)
    }

    /// Serves a seeder in the same way.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn serve_seeder(self, seeder: WatchedSeeder, warnings: Warnings) -> Result<Serving, ListenError> {
        let subject = |_, stall| Box::new(SeederSubject::new(seeder, stall)) as Box<dyn Subject>;
        Serving::start(self, warnings, subject).map_err(ListenError::Start)
    }
}

struct Server {
    listener: TcpListener,
    woken: UnixStream,
    service: Service,
    clients: Vec<Client>,
    stop: Arc<AtomicBool>,
    /// When connections are taken again.
    accept_at: Instant,
    /// Time for work that was not used.
    saved: Duration,
    saved_at: Instant,
}

impl Server {
    /// Contract of the server's thread. In: connections, and bytes that wake it. Out: answers. Reads what a run or a seeder
    /// has counted, and what `stored` knows; writes nothing else. Ends: when it is told to.
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.wait(None);
            let before = worked();
            self.turn(Instant::now(), true);
            self.pay(worked().saturating_sub(before));
        }
        let until = Instant::now() + FLUSH_MAX;
        let is_writing = |clients: &[Client]| clients.iter().any(|client| client.waits() == Waits::ToWrite);
        while is_writing(&self.clients) && Instant::now() < until {
            self.wait(Some(until));
            self.turn(Instant::now(), false);
        }
    }

    /// One turn: takes connections, and does for each client what can be done at once.
    fn turn(&mut self, now: Instant, accepts: bool) {
        let mut bytes = [0; 64];
        while self.woken.read(&mut bytes).is_ok_and(|len| len == bytes.len()) {}
        self.service.look(now);
        if accepts {
            self.accept(now);
        }
        let mut outgoing: usize = self.clients.iter().map(Client::outgoing_bytes).sum();
        let service = &mut self.service;
        for client in &mut self.clients {
            client.step(now, &mut |request, is_late| match service.answer(request, now, is_late) {
                Answer::Ready(response) => {
                    let bytes = response.body.len();
                    if bytes > SMALL_BYTES && outgoing + bytes > OUTGOING_BYTES_MAX {
                        let busy =
                            Response::refused(503, "too many large answers are on their way; ask again in a moment");
                        return busy.with("Retry-After", 1).into();
                    }
                    outgoing += bytes;
                    response.into()
                }
                Answer::Later => Answer::Later,
            });
        }
        self.clients.retain(|client| client.waits() != Waits::Closed);
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_MAX {
            if now < self.accept_at {
                return;
            }
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if self.clients.len() >= CLIENTS_MAX && !self.drop_one() {
                        return;
                    }
                    // One that cannot be set up is gone already.
                    self.clients.extend(Client::new(stream, now));
                }
                Err(error) => match error.kind() {
                    std::io::ErrorKind::WouldBlock => return,
                    std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::Interrupted => {}
                    _ => self.accept_at = now + ACCEPT_PAUSE,
                },
            }
        }
    }

    /// Drops whoever can best be spared; false if all of them are being served.
    fn drop_one(&mut self) -> bool {
        let ranked = self.clients.iter().enumerate().map(|(at, client)| (client.rank(), at));
        match ranked.min() {
            Some(((rank, _), at)) if rank < Rank::Served => {
                self.clients.swap_remove(at);
                true
            }
            _ => false,
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, until: Option<Instant>) {
        let now = Instant::now();
        let deadlines = self.clients.iter().map(Client::deadline);
        let first = deadlines.chain([self.service.next_look()]).chain(until).min();
        let span = first.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)).max(Duration::from_millis(1));
        let mut polled = Vec::with_capacity(self.clients.len() + 2);
        polled.push(PollFd::new(&self.woken, PollFlags::IN));
        if now >= self.accept_at {
            polled.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        for client in &self.clients {
            match client.waits() {
                Waits::ToRead => polled.push(PollFd::new(&client.stream, PollFlags::IN)),
                Waits::ToWrite => polled.push(PollFd::new(&client.stream, PollFlags::OUT)),
                // It is woken.
                Waits::ForStore | Waits::Closed => {}
            }
        }
        let timeout = match span.as_secs() {
            0 => Timespec { tv_sec: 0, tv_nsec: span.subsec_nanos().into() },
            _ => Timespec { tv_sec: 1, tv_nsec: 0 },
        };
        // A signal ends the wait early, and any other error comes again: the span above bounds how often.
        if poll(&mut polled, Some(&timeout)).is_err() {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Pays for the work of a turn, and waits if too much was done.
    fn pay(&mut self, worked: Duration) {
        let now = Instant::now();
        let earned = now.saturating_duration_since(self.saved_at) / WORK_PART;
        self.saved_at = now;
        self.saved = (self.saved + earned).min(WORK_SAVED_MAX);
        match self.saved.checked_sub(worked) {
            Some(left) => self.saved = left,
            None => {
                let owed = (worked - self.saved).min(WORK_SAVED_MAX);
                self.saved = Duration::ZERO;
                // What is woken for waits as long: it is a flood.
                pause(owed * WORK_PART, || self.stop.load(Ordering::Relaxed));
                self.saved_at = Instant::now();
            }
        }
    }
}

/// How long this thread has been at work: time in which others had the core is none of its.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
