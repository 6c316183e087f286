//! A client of HTTP that can also be a bad one: what it sends is what a test says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value as Json;

use super::WAIT;

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A line of the head, by its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A connection.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(WAIT)).expect("a setting");
    stream.set_write_timeout(Some(WAIT)).expect("a setting");
    stream
}

/// `GET` of a path, with further lines of the head.
pub fn get_with(address: SocketAddr, path: &str, lines: &str) -> Reply {
    let mut stream = connect(address);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n").expect("a request");
    rest(&mut stream)
}

pub fn get(address: SocketAddr, path: &str) -> Reply {
    get_with(address, path, "")
}

/// Whatever is sent, and the answer to it.
pub fn send(address: SocketAddr, bytes: &[u8]) -> Reply {
    let mut stream = connect(address);
    // It may have its answer before it has sent all.
    let _ = stream.write_all(bytes);
    rest(&mut stream)
}

/// What comes until the connection ends, as one answer.
pub fn rest(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    // What came before a reset counts.
    let _ = stream.read_to_end(&mut bytes);
    parse(&bytes).map_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)), |(reply, _)| reply)
}

/// The first answer of what came, and how many bytes it has.
pub fn parse(bytes: &[u8]) -> Option<(Reply, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let reply = Reply { status, head, body: Vec::new() };
    let len: usize = reply.header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    let body = bytes.get(end + 4..).unwrap_or_default();
    let body = body[..len.min(body.len())].to_vec();
    let whole = end + 4 + body.len();
    Some((Reply { body, ..reply }, whole))
}
