//! A TCP proxy that makes a way longer, and breaks it. It knows no protocol: a *step* is what a client sends after it got
//! an answer, whatever it is; steps are counted over all connections, from 1.

#![allow(dead_code, reason = "tests and benches share it, and use different parts")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

/// What happens at a step.
#[derive(Clone)]
pub enum Break {
    /// The connection breaks before the server has seen it.
    CutBefore,
    /// The server has answered; the connection breaks before the client has seen that.
    CutAfter,
    /// The client sees so many bytes of the answer, then the connection breaks.
    CutWithin(usize),
    /// Nothing goes on any more, and nobody is told.
    Stall,
    /// The answer comes later.
    Late(Duration),
    /// Something happens before it is let through.
    Before(Arc<dyn Fn() + Send + Sync>),
}

struct Shared {
    server: u16,
    /// Of a round trip, in microseconds.
    latency: AtomicU64,
    steps: AtomicU64,
    connections: AtomicU64,
    faults: Mutex<Vec<(u64, Break)>>,
    is_stopped: AtomicBool,
    is_closed: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    /// Stalled connections wait for its end.
    life: Receiver<()>,
}

pub struct Wire {
    pub port: u16,
    shared: Arc<Shared>,
    _life: Sender<()>,
}

fn wait_until(due: Instant) {
    while let Some(rest) = due.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
        std::thread::park_timeout(rest);
    }
}

impl Wire {
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (life, end) = bounded(0);
        let shared = Arc::new(Shared {
            server,
            latency: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            faults: Mutex::default(),
            is_stopped: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            open: Mutex::default(),
            life: end,
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.is_stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(client) = client else { continue };
                if accepting.is_closed.load(Ordering::Acquire) {
                    continue;
                }
                accepting.connections.fetch_add(1, Ordering::AcqRel);
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.serve(&client));
            }
        });
        Self { port, shared, _life: life }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn set_latency(&self, round_trip: Duration) {
        self.shared.latency.store(round_trip.as_micros() as u64, Ordering::Release);
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.shared.steps.load(Ordering::Acquire)
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// Breaks the step of that number.
    pub fn break_at(&self, step: u64, fault: Break) {
        self.shared.faults.lock().expect("faults").push((step, fault));
    }

    /// Whether no fault is yet to come.
    pub fn is_spent(&self) -> bool {
        self.shared.faults.lock().expect("faults").is_empty()
    }

    /// Ends all connections, and new ones as soon as they are made; or lets them be made again.
    pub fn set_closed(&self, is_closed: bool) {
        self.shared.is_closed.store(is_closed, Ordering::Release);
        if is_closed {
            for stream in self.shared.open.lock().expect("open").drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// One connection's state, for both directions.
#[derive(Default)]
struct Way {
    /// An answer has come since the last thing that was sent.
    is_answered: AtomicBool,
    /// Bytes of the answer that may still be seen, and then none; none for no limit.
    seen: Mutex<Option<usize>>,
    late: Mutex<Option<Instant>>,
}

/// What is on its way, and when it is due.
type Parcel = (Instant, Vec<u8>);

impl Shared {
    fn half(&self) -> Duration {
        Duration::from_micros(self.latency.load(Ordering::Acquire) / 2)
    }

    fn serve(&self, client: &TcpStream) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.server)) else {
            let _ = client.shutdown(Shutdown::Both);
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        self.open.lock().expect("open").extend([client, &server].into_iter().filter_map(|one| one.try_clone().ok()));
        let way = Way { is_answered: AtomicBool::new(true), ..Way::default() };
        // Connecting takes a round trip, which the kernel has answered for us: the first bytes wait for it.
        let ready = Instant::now() + self.half() * 2;
        std::thread::scope(|scope| {
            let (up, to_server) = bounded::<Parcel>(1 << 12);
            let (down, to_client) = bounded::<Parcel>(1 << 12);
            scope.spawn(|| carry(to_server, &server, client));
            scope.spawn(|| carry(to_client, client, &server));
            scope.spawn(|| {
                let down = down;
                self.answers(&server, &down, &way);
            });
            self.requests(client, &up, &way, ready);
            // Not before what is on its way has arrived.
            drop(up);
        });
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    }

    fn requests(&self, mut client: &TcpStream, up: &Sender<Parcel>, way: &Way, ready: Instant) -> Option<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = client.read(&mut buffer).ok().filter(|count| *count > 0)?;
            if way.is_answered.swap(false, Ordering::AcqRel) && self.step(way).is_none() {
                let _ = client.shutdown(Shutdown::Both);
                return None;
            }
            let due = Instant::now().max(ready) + self.half();
            up.send((due, buffer[..count].to_vec())).ok()?;
        }
    }

    /// Counts a step; none ends the connection.
    fn step(&self, way: &Way) -> Option<()> {
        let step = self.steps.fetch_add(1, Ordering::AcqRel) + 1;
        let due = {
            let mut faults = self.faults.lock().expect("faults");
            faults.iter().position(|(at, _)| *at == step).map(|at| faults.remove(at).1)
        };
        match due {
            None => {}
            Some(Break::CutBefore) => return None,
            Some(Break::CutAfter) => *way.seen.lock().expect("seen") = Some(0),
            Some(Break::CutWithin(bytes)) => *way.seen.lock().expect("seen") = Some(bytes),
            Some(Break::Stall) => {
                // Until the proxy ends; its sender is never used.
                let _ = self.life.recv();
                return None;
            }
            Some(Break::Late(span)) => *way.late.lock().expect("late") = Some(Instant::now() + span),
            Some(Break::Before(act)) => act(),
        }
        Some(())
    }

    fn answers(&self, mut server: &TcpStream, down: &Sender<Parcel>, way: &Way) -> Option<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let mut count = server.read(&mut buffer).ok().filter(|count| *count > 0)?;
            let mut is_end = false;
            if let Some(seen) = way.seen.lock().expect("seen").as_mut() {
                is_end = count >= *seen;
                count = count.min(*seen);
                *seen -= count;
            }
            // What is on its way counts as an answer when it arrives: a client that got it may send.
            let late = way.late.lock().expect("late").take();
            let due = late.unwrap_or_else(Instant::now) + self.half();
            way.is_answered.store(true, Ordering::Release);
            down.send((due, buffer[..count].to_vec())).ok()?;
            if is_end {
                return None;
            }
        }
    }
}

/// Delivers what is due, in order; ends both sides when there is no more.
fn carry(parcels: Receiver<Parcel>, mut to: &TcpStream, from: &TcpStream) {
    for (due, bytes) in parcels {
        wait_until(due);
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}
