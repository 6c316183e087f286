//! Where the server listens, and who may ask: decided and bound before the run begins.

use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use super::access::{Access, Gate};
use crate::model::text::{plain, shown_path};
use crate::model::whole_text::read_text;

/// Bytes of a token at least: a shorter one can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Bytes of a token at most: it has to fit in the head of a request.
const TOKEN_BYTES_MAX: usize = 1024;
/// Bytes of its file.
const FILE_BYTES_MAX: usize = 64 * 1024;

impl Access {
    /// The token that a file holds, without blanks and line ends around it. Blocks while it reads.
    ///
    /// # Errors
    /// The file cannot be read, or holds no usable token.
    pub fn token_of(file: &Path) -> Result<Self, ListenError> {
        let refused = |cause: String| ListenError::Token { file: shown_path(file), cause };
        let opened = std::fs::File::open(file).map_err(|error| refused(error.to_string()))?;
        let text = read_text(opened, FILE_BYTES_MAX).map_err(|error| refused(error.to_string()))?;
        let token = text.trim();
        if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len())
            || !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(refused(format!(
                "expected a token of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} visible ASCII characters, and nothing else; \
                 make one with: openssl rand -hex 32"
            )));
        }
        Ok(Self::Token(token.to_owned()))
    }
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// It is no address.
    #[error("--listen {0:?}: expected HOST:PORT, such as 127.0.0.1:9464")]
    Address(String),
    /// Others than this machine could reach it, and nothing says that they may.
    #[error(
        "--listen {0}: other machines reach this address, and nothing says that they may ask; give --listen-token-file FILE, \
         or --listen-open if whoever reaches it may see all of it"
    )]
    NotLocal(String),
    /// The token cannot be used.
    #[error("--listen-token-file {file}: {cause}")]
    Token {
        /// The file.
        file: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The system refuses the address.
    #[error("--listen {address}: {cause}{}", hint(cause))]
    Bind {
        /// The address.
        address: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The system gives no thread or no socket.
    #[error("--listen: cannot start the server: {0}")]
    Start(std::io::Error),
}

impl ListenError {
    /// Whether what was asked for is wrong, and not what the system had to say.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Bind { .. } | Self::Start(_))
    }
}

fn hint(cause: &std::io::Error) -> &'static str {
    match cause.kind() {
        std::io::ErrorKind::AddrInUse => "; another program listens there: end it, or give another port",
        std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need the right to bind them",
        _ => "",
    }
}

/// What the server is to do.
#[derive(Debug, Clone)]
pub struct Listen {
    address: String,
    access: Access,
    stall: Duration,
}

impl Listen {
    /// Listens at `HOST:PORT`; port 0 is one that the system chooses.
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), access: Access::Local, stall: STALL }
    }

    /// Who may ask. Defaults to whoever is on this machine.
    #[must_use]
    pub fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// For how long nothing may have moved, although there is work, until `/health` says so. Defaults to 60 s.
    #[must_use]
    pub fn stall(self, stall: Duration) -> Self {
        Self { stall, ..self }
    }

    /// Takes the address, so that it is certain before the run begins. Nobody is served yet. May block for a name server.
    ///
    /// # Errors
    /// It is no address, others reach it and nothing says that they may, or it is taken.
    pub fn bind(self) -> Result<Listening, ListenError> {
        let shown = plain(&self.address).into_owned();
        let has_port = self.address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && !port.is_empty());
        let found = self.address.to_socket_addrs().ok().filter(|_| has_port);
        let found: Vec<SocketAddr> = found.map(Iterator::collect).unwrap_or_default();
        if found.is_empty() {
            return Err(ListenError::Address(shown));
        }
        let is_local = found.iter().all(|address| is_loopback(address.ip()));
        if !is_local && self.access == Access::Local {
            return Err(ListenError::NotLocal(shown));
        }
        let bound = TcpListener::bind(&found[..]).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        });
        let (address, listener) = bound.map_err(|cause| ListenError::Bind { address: shown, cause })?;
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        let gate = Gate::new(self.access, is_local.then(|| host.to_owned()));
        Ok(Listening { listener, address, gate, stall: self.stall })
    }
}

/// See [`Listen::stall`].
const STALL: Duration = Duration::from_secs(60);

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
        }
    }
}

/// An address that is taken, and at which nobody is served yet.
#[derive(Debug)]
pub struct Listening {
    pub(super) listener: TcpListener,
    address: SocketAddr,
    pub(super) gate: Gate,
    pub(super) stall: Duration,
}

impl Listening {
    /// The address, with its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_addresses_than_loopback_want_a_word() {
        for local in ["127.0.0.1:0", "localhost:0", "127.8.0.1:0"] {
            let listening = Listen::at(local).bind().expect(local);
            assert_ne!(listening.address().port(), 0);
        }
        for remote in ["0.0.0.0:0", "[::]:0"] {
            let refused = Listen::at(remote).bind().expect_err(remote);
            assert!(refused.is_usage() && refused.to_string().contains("--listen-open"), "{refused}");
        }
        Listen::at("0.0.0.0:0").access(Access::Open).bind().expect("it is open");
    }

    #[test]
    fn what_is_no_address_or_is_taken_is_told() {
        for wrong in ["", "9464", ":9464", "localhost", "localhost:", "127.0.0.1:99999", "no host:1"] {
            let refused = Listen::at(wrong).bind().expect_err(wrong);
            assert!(matches!(refused, ListenError::Address(_)), "{wrong}: {refused}");
        }
        let first = Listen::at("127.0.0.1:0").bind().expect("a port");
        let taken = Listen::at(first.address().to_string()).bind().expect_err("it is taken");
        assert!(!taken.is_usage() && taken.to_string().contains("another program listens there"), "{taken}");
    }

    #[test]
    fn a_token_is_the_whole_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        std::fs::write(&file, "  0123456789abcdef\n").expect("a file");
        assert_eq!(Access::token_of(&file).expect("a token"), Access::Token("0123456789abcdef".into()));
        for wrong in ["", "short", "0123456789abcdef 0123", "0123456789abcdé0"] {
            std::fs::write(&file, wrong).expect("a file");
            assert!(Access::token_of(&file).expect_err(wrong).is_usage());
        }
        assert!(Access::token_of(&folder.path().join("none")).is_err());
    }
}
