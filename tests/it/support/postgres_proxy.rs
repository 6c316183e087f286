//! A TCP proxy before a Postgres server that knows enough of its protocol to count round trips and to break the
//! connection at any of them.
//!
//! A *step* is one round trip: what the client sends until the server is ready for more (`ReadyForQuery`, or
//! `CopyInResponse`). Steps are counted over all connections, from 1; connecting is none.

#![allow(dead_code, reason = "tests and benches share it, and use different parts")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

/// What happens at a step.
pub enum Fault {
    /// The connection breaks before the server has seen it.
    CutBefore,
    /// The server has answered; the connection breaks before the client has seen that.
    CutAfter,
    /// Nothing goes on any more, and nobody is told.
    Stall,
    /// The server has answered; the client sees a half of that, and then nothing.
    Half,
    /// It takes longer.
    Delay(Duration),
    /// Something happens before it is let through.
    Before(Box<dyn Fn() + Send + Sync>),
}

struct Shared {
    server: u16,
    /// Added to each round trip, in microseconds.
    latency: AtomicU64,
    steps: AtomicU64,
    connections: AtomicU64,
    fault: Mutex<Option<(u64, Fault)>>,
    is_stopped: AtomicBool,
    /// Stalled connections wait for its end.
    life: Receiver<()>,
}

pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    _life: Sender<()>,
}

/// Waits that long, and not shorter.
fn wait(span: Duration) {
    let begun = Instant::now();
    while let Some(rest) = span.checked_sub(begun.elapsed()).filter(|rest| !rest.is_zero()) {
        std::thread::park_timeout(rest);
    }
}

impl Proxy {
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (life, end) = bounded(0);
        let shared = Arc::new(Shared {
            server,
            latency: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            fault: Mutex::new(None),
            is_stopped: AtomicBool::new(false),
            life: end,
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.is_stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(client) = client else { continue };
                accepting.connections.fetch_add(1, Ordering::AcqRel);
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.serve(&client));
            }
        });
        Self { port, shared, _life: life }
    }

    /// Round trips so far.
    pub fn steps(&self) -> u64 {
        self.shared.steps.load(Ordering::Acquire)
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Acquire)
    }

    pub fn set_latency(&self, latency: Duration) {
        self.shared.latency.store(latency.as_micros() as u64, Ordering::Release);
    }

    /// Breaks the step of that number, once.
    pub fn break_at(&self, step: u64, fault: Fault) {
        *self.shared.fault.lock().expect("fault") = Some((step, fault));
    }

    /// Whether the fault is yet to come.
    pub fn is_armed(&self) -> bool {
        self.shared.fault.lock().expect("fault").is_some()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// One connection's state, for both directions.
#[derive(Default)]
struct Way {
    /// The client waits for an answer.
    is_asked: AtomicBool,
    /// That answer is not to arrive.
    is_swallowed: AtomicBool,
    /// Only a half of it is to arrive.
    is_halved: AtomicBool,
}

impl Shared {
    fn serve(&self, client: &TcpStream) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.server)) else {
            let _ = client.shutdown(Shutdown::Both);
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let way = Way::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                self.answers(&server, client, &way);
                close(client, &server);
            });
            self.requests(client, &server, &way);
            close(client, &server);
        });
    }

    fn requests(&self, mut client: &TcpStream, mut server: &TcpStream, way: &Way) -> Option<()> {
        // The first message has no type. The tests ask for no encryption.
        let mut first = vec![0; 4];
        client.read_exact(&mut first).ok()?;
        let len = u32::from_be_bytes(first[..4].try_into().ok()?) as usize;
        first.resize(len, 0);
        client.read_exact(&mut first[4..]).ok()?;
        way.is_asked.store(true, Ordering::Release);
        server.write_all(&first).ok()?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = client.read(&mut buffer).ok().filter(|count| *count > 0)?;
            if buffer[0] == b'X' && !way.is_asked.load(Ordering::Acquire) {
                server.write_all(&buffer[..count]).ok()?;
                return None;
            }
            // The client sends the next request only after the answer to the last, so a read never holds two.
            if !way.is_asked.swap(true, Ordering::AcqRel) {
                self.step(way)?;
            }
            server.write_all(&buffer[..count]).ok()?;
        }
    }

    /// Counts a step; none ends the connection.
    fn step(&self, way: &Way) -> Option<()> {
        let step = self.steps.fetch_add(1, Ordering::AcqRel) + 1;
        wait(Duration::from_micros(self.latency.load(Ordering::Acquire)));
        let due = {
            let mut fault = self.fault.lock().expect("fault");
            if fault.as_ref().is_some_and(|(at, _)| *at == step) { fault.take() } else { None }
        };
        match due.map(|(_, fault)| fault) {
            None => {}
            Some(Fault::CutBefore) => return None,
            Some(Fault::CutAfter) => way.is_swallowed.store(true, Ordering::Release),
            Some(Fault::Stall) => {
                // Until the proxy ends; its sender is never used.
                let _ = self.life.recv();
                return None;
            }
            Some(Fault::Half) => way.is_halved.store(true, Ordering::Release),
            Some(Fault::Delay(span)) => wait(span),
            Some(Fault::Before(act)) => act(),
        }
        Some(())
    }

    fn answers(&self, mut server: &TcpStream, mut client: &TcpStream, way: &Way) -> Option<()> {
        let mut head = [0; 5];
        let mut ready = Vec::new();
        loop {
            server.read_exact(&mut head).ok()?;
            let len = u32::from_be_bytes(head[1..].try_into().ok()?) as usize;
            let start = ready.len();
            ready.extend(head);
            ready.resize(start + 1 + len, 0);
            server.read_exact(&mut ready[start + 5..]).ok()?;
            let is_end = matches!(head[0], b'Z' | b'G');
            if way.is_swallowed.load(Ordering::Acquire) {
                if is_end {
                    return None;
                }
                ready.clear();
                continue;
            }
            if way.is_halved.load(Ordering::Acquire) {
                client.write_all(&ready[..ready.len() / 2]).ok()?;
                let _ = self.life.recv();
                return None;
            }
            // What ends an answer must not arrive before the next request counts as one.
            if is_end {
                way.is_asked.store(false, Ordering::Release);
            }
            if is_end || ready.len() > 1 << 15 || matches!(head[0], b'E' | b'R') {
                client.write_all(&ready).ok()?;
                ready.clear();
            }
        }
    }
}

fn close(client: &TcpStream, server: &TcpStream) {
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}
