//! Until when the certificate of a server may be used: asked over a connection of its own, which says nothing.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::address::RedisUrl;
use crate::model::timestamp::Timestamp;

/// None if it has none that is understood, or does not answer in time. Blocks for the time-out, for each address that the
/// host's name has.
pub(crate) fn certificate_until(url: &RedisUrl, timeout: Duration) -> Option<Timestamp> {
    let named = url.named();
    let (host, port) = named.first().filter(|_| url.is_tls())?;
    let places = (host.as_str(), *port).to_socket_addrs().ok()?;
    let stream = places.into_iter().find_map(|place| TcpStream::connect_timeout(&place, timeout).ok())?;
    stream.set_read_timeout(Some(timeout)).and_then(|()| stream.set_write_timeout(Some(timeout))).ok()?;
    crate::tls::shown_until(stream, host)
}
