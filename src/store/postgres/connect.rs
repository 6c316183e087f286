//! Making a connection, on the calling thread alone.
//!
//! The driver asks for the addresses of a host on a thread of its own, and panics if the system gives none. So they are
//! looked up here, and it is given addresses.

use std::net::{IpAddr, ToSocketAddrs};

use postgres::config::{Host, SslMode, SslNegotiation};
use postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::guard::Guard;

/// Connects; guarded, if a password must not be sent in clear. Blocks.
pub(super) fn connect(mut config: Config, tls: Option<&MakeRustlsConnect>, is_guarded: bool) -> Result<Client, Error> {
    if is_guarded && tls.is_some() {
        // Whether there is TLS the guard finds out.
        config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    }
    let connect = |config: &Config| match tls.cloned() {
        Some(tls) if is_guarded => config.connect(Guard(tls)),
        Some(tls) => config.connect(tls),
        None => config.connect(NoTls),
    };
    let Some((first, others)) = resolved(&config) else { return connect(&config) };
    others.iter().fold(connect(&first), |before, next| match before {
        Err(error) if error.code().is_none() => connect(next),
        // It is connected, or was refused by a server.
        before => before,
    })
}

/// The same with the addresses of its hosts: the first of each, then the next. None if there is nothing to look up, or if
/// something cannot be: the driver says why.
fn resolved(config: &Config) -> Option<(Config, Vec<Config>)> {
    let is_named = |host: &Host| matches!(host, Host::Tcp(name) if name.parse::<IpAddr>().is_err());
    if !config.get_hostaddrs().is_empty() || !config.get_hosts().iter().any(is_named) {
        return None;
    }
    let addresses = |host: &Host| match host {
        Host::Tcp(name) => Some((name.as_str(), 0).to_socket_addrs().ok()?.map(|found| found.ip()).collect()),
        Host::Unix(_) => None,
    };
    let of_hosts: Vec<Vec<IpAddr>> = config.get_hosts().iter().map(addresses).collect::<Option<_>>()?;
    if of_hosts.iter().any(Vec::is_empty) {
        return None;
    }
    let with = |at: usize| {
        let mut config = config.clone();
        for found in &of_hosts {
            config.hostaddr(found[at.min(found.len() - 1)]);
        }
        config
    };
    let most = of_hosts.iter().map(Vec::len).max()?;
    Some((with(0), (1..most).map(with).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_and_addresses_are_not() {
        for (given, is_resolved) in [
            ("host=127.0.0.1,::1", false),
            ("host=/run/pg", false),
            ("host=localhost,/run/pg", false),
            ("host=a.example hostaddr=127.0.0.1", false),
            ("host=nothing.invalid", false),
            ("host=localhost,127.0.0.2", true),
        ] {
            let config: Config = given.parse().expect(given);
            assert_eq!(resolved(&config).is_some(), is_resolved, "{given}");
        }
        let config: Config = "host=localhost,127.0.0.2".parse().expect("an address");
        let (first, others) = resolved(&config).expect("addresses");
        for config in others.iter().chain([&first]) {
            assert!(config.get_hostaddrs()[0].is_loopback());
            assert_eq!(config.get_hostaddrs()[1].to_string(), "127.0.0.2");
        }
    }
}
