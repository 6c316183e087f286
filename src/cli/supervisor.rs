//! What a supervisor such as systemd is told, over the socket that it names (`NOTIFY_SOCKET`): sd_notify(3).
//!
//! Each message is one datagram. A supervisor that does not listen holds nobody up: what it has no room for is not told.

use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The way to the supervisor.
pub(super) struct Supervisor {
    socket: UnixDatagram,
    address: SocketAddr,
    /// Within what time it wants to hear that the run goes on, if it does.
    pub(super) watchdog: Option<Duration>,
}

impl Supervisor {
    /// The supervisor that the environment names; none if there is none.
    pub(super) fn from_environment() -> Option<Self> {
        let name = std::env::var("NOTIFY_SOCKET").ok().filter(|name| !name.is_empty())?;
        let found = address_of(&name).and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(Self { socket, address, watchdog: watchdog() })
        });
        found.inspect_err(|error| tracing::warn!("NOTIFY_SOCKET={name}: {error}; the supervisor is told nothing")).ok()
    }

    /// Tells it something: assignments, one a line. Does not block.
    pub(super) fn tell(&self, text: &str) {
        if let Err(error) = self.socket.send_to_addr(text.as_bytes(), &self.address) {
            tracing::debug!("the supervisor was not told: {error}");
        }
    }

    /// Says that settings are read again, and since when.
    pub(super) fn tell_reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }
}

fn address_of(name: &str) -> std::io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        None if name.starts_with('/') => SocketAddr::from_pathname(name),
        _ => Err(std::io::Error::other("expected a path, or @ and a name")),
    }
}

/// Within what time a supervisor wants to hear of this process.
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_other = number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|micros| *micros > 0 && !is_other).map(Duration::from_micros)
}
