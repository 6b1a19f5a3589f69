//! Reads a ClientHello without deciding anything.
//!
//! What rustls read is what decides, and the very bytes are kept for those who pass them through.
//! At most 16 KiB, in pieces of any size, until a deadline.

use std::fmt;
use std::io;

use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::accept::AcceptError;

/// The most that is read in search of a ClientHello.
pub const MAX_HELLO: usize = 16 * 1024;

/// What one read asks for: post-quantum hellos have some 1800 bytes.
const PIECE: usize = 2048;

/// A complete ClientHello.
pub struct Hello {
    pub(super) accepted: rustls::server::Accepted,
    raw: Bytes,
    /// How much of `raw` rustls has taken.
    taken: usize,
    server_name: Option<Box<str>>,
}

impl Hello {
    /// The server's name: lower-case, without a trailing dot.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Whether the client offers `protocol`.
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.accepted.client_hello().alpn().is_some_and(|mut all| all.any(|one| one == protocol))
    }

    /// All that was read from the client, for a connection that is passed through.
    pub fn into_raw(self) -> Bytes {
        self.raw
    }

    /// The hello and what was read behind it.
    pub(super) fn into_parts(self) -> (rustls::server::Accepted, Option<Box<str>>, Bytes) {
        // A slice would keep the whole buffer for as long as the connection lives.
        let rest = if self.taken == self.raw.len() {
            Bytes::new()
        } else {
            self.raw.slice(self.taken.min(self.raw.len())..)
        };
        (self.accepted, self.server_name, rest)
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Reads the ClientHello that `prefix`, read before, and `stream` hold.
///
/// What is no ClientHello is answered with an alert.
pub async fn read_hello<S>(
    stream: &mut S,
    prefix: Bytes,
    deadline: Instant,
) -> Result<Hello, AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout_at(deadline, read(stream, prefix)).await.unwrap_or(Err(AcceptError::HelloTimeout))
}

async fn read<S>(stream: &mut S, prefix: Bytes) -> Result<Hello, AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut raw = BytesMut::from(prefix);
    let mut taken = 0;
    loop {
        while let Some(mut rest) = raw.get(taken..).filter(|rest| !rest.is_empty()) {
            taken += acceptor.read_tls(&mut rest).map_err(AcceptError::Io)?;
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    let server_name = accepted.client_hello().server_name().map(|name| {
                        name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into()
                    });
                    return Ok(Hello { accepted, raw: raw.freeze(), taken, server_name });
                }
                Ok(None) => {}
                Err((error, mut alert)) => {
                    let mut bytes = Vec::new();
                    if alert.write_all(&mut bytes).is_ok() {
                        send(stream, &bytes).await;
                    }
                    return Err(AcceptError::from_hello(error));
                }
            }
        }
        let room = MAX_HELLO.saturating_sub(raw.len());
        if room == 0 {
            send(stream, &alert(DECODE_ERROR)).await;
            return Err(AcceptError::HelloTooLarge);
        }
        raw.reserve(room.min(PIECE));
        if (&mut *stream).take(room as u64).read_buf(&mut raw).await.map_err(AcceptError::Io)? == 0
        {
            let eof = io::ErrorKind::UnexpectedEof;
            return Err(if raw.is_empty() {
                AcceptError::Closed
            } else {
                AcceptError::Io(eof.into())
            });
        }
    }
}

/// `decode_error` (RFC 8446, 6.2).
const DECODE_ERROR: u8 = 50;
/// `unrecognized_name` (RFC 6066, 3).
pub(super) const UNRECOGNIZED_NAME: u8 = 112;

/// A fatal alert in clear text, as it answers a ClientHello.
pub(super) fn alert(description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description]
}

/// Sends what the client should know before the connection ends. It may be gone already.
pub(super) async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) {
    if stream.write_all(bytes).await.is_ok() {
        let _ = stream.flush().await;
    }
}
