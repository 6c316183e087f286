//! A password in clear goes over no connection that others could read, unless the address says so.
//!
//! With `sslmode=prefer` the connection is encrypted if the server can. Whoever answers that it cannot may also ask for the
//! password in clear, and the driver would send it. So to other machines we ask for TLS ourselves, as the driver's way of
//! encrypting, and look at what an unencrypted server asks for before the driver sees it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::stranger::TLS_REQUEST;

/// What is said instead of a password.
const REFUSED: &str = "the server asks for the password in clear, and the connection is not encrypted, so it is not sent; \
                       sslmode=verify-full in the address encrypts it, sslmode=disable says that it may be sent so";

/// Makes connections that are encrypted if the server can, and guarded if not. For the driver they are always encrypted.
#[derive(Clone)]
pub(super) struct Guard(pub(super) MakeRustlsConnect);

type Encrypted<S> = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;
type Encrypt<S> = <MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect;

impl<S> MakeTlsConnect<S> for Guard
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = GuardedStream<Encrypted<S>, S>;
    type TlsConnect = GuardConnect<S>;
    type Error = <MakeRustlsConnect as MakeTlsConnect<S>>::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<GuardConnect<S>, Self::Error> {
        MakeTlsConnect::<S>::make_tls_connect(&mut self.0, domain).map(GuardConnect)
    }
}

pub(super) struct GuardConnect<S>(Encrypt<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static;

impl<S> TlsConnect<S> for GuardConnect<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = GuardedStream<Encrypted<S>, S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Stream>> + Send>>;

    fn connect(self, mut stream: S) -> Self::Future {
        Box::pin(async move {
            stream.write_all(&TLS_REQUEST).await?;
            match stream.read_u8().await? {
                b'S' => Ok(GuardedStream::Encrypted(self.0.connect(stream).await?)),
                b'N' => Ok(GuardedStream::Plain(stream, Watch::default())),
                // An error, of a server that is too busy to say more.
                _ => Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the server does not answer whether it has TLS",
                )),
            }
        })
    }
}

/// A connection, encrypted or watched.
pub(super) enum GuardedStream<E, S> {
    Encrypted(E),
    Plain(S, Watch),
}

/// Looks at what the server sends until it has let us in.
#[derive(Debug, Default)]
pub(super) struct Watch {
    is_over: bool,
    /// The beginning of a message: its kind, its length, and what it asks for.
    head: Vec<u8>,
    /// Bytes that are left of a message that says nothing of passwords.
    left: u32,
}

/// Bytes of a message's kind and length, and with the number of what is asked for
/// (<https://www.postgresql.org/docs/current/protocol-message-formats.html>, AuthenticationCleartextPassword).
const HEAD: usize = 5;
const ASKED_HEAD: usize = 9;
const LET_IN: u32 = 0;
const IN_CLEAR: u32 = 3;

impl Watch {
    /// Says whether the server asks for a password in clear.
    fn asks_in_clear(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while let Some((first, behind)) = rest.split_first().filter(|_| !self.is_over) {
            if self.left > 0 {
                let some = rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= u32::try_from(some).unwrap_or(self.left);
                rest = &rest[some..];
                continue;
            }
            self.head.push(*first);
            rest = behind;
            let number =
                |from: usize| self.head[from..].iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte));
            match (self.head.first(), self.head.len()) {
                (Some(b'R'), ASKED_HEAD) => {
                    let (len, asked) = (number(1), number(HEAD));
                    if asked == IN_CLEAR {
                        return true;
                    }
                    self.is_over = asked == LET_IN;
                    self.left = len.saturating_sub(8);
                    self.head.clear();
                }
                (Some(kind), HEAD) if *kind != b'R' => {
                    self.left = number(1).saturating_sub(4);
                    self.head.clear();
                }
                _ => {}
            }
        }
        false
    }
}

impl<E, S> AsyncRead for GuardedStream<E, S>
where
    E: AsyncRead + Unpin,
    S: AsyncRead + Unpin,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Encrypted(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Plain(stream, watch) => {
                let before = buf.filled().len();
                let read = Pin::new(stream).poll_read(cx, buf);
                match watch.asks_in_clear(&buf.filled()[before..]) {
                    // It stays so: trying again is of no use.
                    true => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, REFUSED))),
                    false => read,
                }
            }
        }
    }
}

impl<E, S> AsyncWrite for GuardedStream<E, S>
where
    E: AsyncWrite + Unpin,
    S: AsyncWrite + Unpin,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Encrypted(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Plain(stream, _) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl<E, S> TlsStream for GuardedStream<E, S>
where
    E: TlsStream + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn channel_binding(&self) -> ChannelBinding {
        match self {
            Self::Encrypted(stream) => stream.channel_binding(),
            Self::Plain(..) => ChannelBinding::none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message: its kind, and what is in it.
    fn sent(kind: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 4).expect("a length").to_be_bytes();
        [&[kind][..], &len, body].concat()
    }

    #[test]
    fn a_password_in_clear_is_seen_however_it_is_asked_for() {
        let asked = |number: u32| sent(b'R', &number.to_be_bytes());
        let notice = sent(b'N', b"SNOTICE\0R\0\0\0\x08\0\0\0\x03\0");
        let md5 = sent(b'R', &[0, 0, 0, 5, 1, 2, 3, 4]);
        for (messages, is_refused) in [
            (vec![asked(3)], true),
            (vec![notice.clone(), asked(3)], true),
            (vec![md5.clone(), asked(3)], true),
            (vec![notice, md5, asked(0)], false),
            // What comes once we are in asks for nothing.
            (vec![asked(0), asked(3)], false),
            (vec![sent(b'E', b"SFATAL\0\0")], false),
        ] {
            let bytes = messages.concat();
            for step in 1..=bytes.len() {
                let mut watch = Watch::default();
                let is_seen = bytes.chunks(step).any(|piece| watch.asks_in_clear(piece));
                assert_eq!(is_seen, is_refused, "{messages:?} by {step}");
            }
        }
    }
}
