//! WebSocket frames (RFC 6455) for the demo's backends and for its client, over any stream whose
//! handshake is done. A message is never longer than [`MESSAGE_LIMIT`].

use std::io;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::time::timeout;

/// Odoo's own limit for one message.
const MESSAGE_LIMIT: usize = 1 << 20;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Which side of the connection this is: a client masks what it sends, a server does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// What the other side sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Text(String),
    Binary(Vec<u8>),
    /// The other side closes; the answer to it is already sent.
    Close,
}

/// An open WebSocket.
pub(super) struct Socket<S> {
    stream: BufReader<S>,
    side: Side,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// A socket over a stream that was just upgraded.
    pub(super) fn new(stream: S, side: Side) -> Self {
        Self { stream: BufReader::new(stream), side }
    }

    /// The next message. Pings are answered on the way, and silence of `quiet` is met with one.
    pub(super) async fn read(&mut self, quiet: Duration) -> io::Result<Message> {
        let mut message = Vec::new();
        let mut kind = None;
        loop {
            // Waiting for the first byte can be given up without losing any; a frame cannot.
            while timeout(quiet, self.stream.fill_buf()).await.is_err() {
                self.send(PING, b"").await?;
            }
            let frame = self.frame(MESSAGE_LIMIT - message.len()).await?;
            match (frame.opcode, kind) {
                (PING, _) => self.send(PONG, &frame.payload).await?,
                (PONG, _) => {}
                (CLOSE, _) => {
                    self.send(CLOSE, frame.payload.get(..2).unwrap_or_default()).await?;
                    return Ok(Message::Close);
                }
                (TEXT | BINARY, None) => {
                    kind = Some(frame.opcode);
                    message = frame.payload;
                }
                (CONTINUATION, Some(_)) => message.extend_from_slice(&frame.payload),
                _ => return Err(broken("a frame of an unknown kind, or out of its turn")),
            }
            match kind {
                Some(TEXT) if frame.last && frame.opcode < CLOSE => {
                    let text = String::from_utf8(message);
                    return text.map(Message::Text).map_err(|_| broken("text that is not UTF-8"));
                }
                Some(_) if frame.last && frame.opcode < CLOSE => {
                    return Ok(Message::Binary(message));
                }
                _ => {}
            }
        }
    }

    /// Sends a text.
    pub(super) async fn send_text(&mut self, text: &str) -> io::Result<()> {
        self.send(TEXT, text.as_bytes()).await
    }

    /// Sends bytes.
    pub(super) async fn send_binary(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send(BINARY, bytes).await
    }

    /// Says that nothing more will come: code 1000, a normal end.
    pub(super) async fn send_close(&mut self) -> io::Result<()> {
        self.send(CLOSE, &1000_u16.to_be_bytes()).await
    }

    async fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        frame.push(0x80 | opcode);
        let mask_bit = if self.side == Side::Client { 0x80 } else { 0 };
        if let Ok(length @ 0..126) = u8::try_from(payload.len()) {
            frame.push(mask_bit | length);
        } else if let Ok(length) = u16::try_from(payload.len()) {
            frame.push(mask_bit | 0x7e);
            frame.extend_from_slice(&length.to_be_bytes());
        } else {
            frame.push(mask_bit | 0x7f);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
        if self.side == Side::Client {
            let mut key = [0; 4];
            rand::fill(&mut key).map_err(|_| io::Error::other("no random numbers"))?;
            frame.extend_from_slice(&key);
            frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        } else {
            frame.extend_from_slice(payload);
        }
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    async fn frame(&mut self, limit: usize) -> io::Result<Frame> {
        let first = self.stream.read_u8().await?;
        let second = self.stream.read_u8().await?;
        if first & 0x70 != 0 {
            return Err(broken("a frame of an extension that was not agreed on"));
        }
        if (second & 0x80 != 0) != (self.side == Side::Server) {
            return Err(broken("a frame masked by the wrong side"));
        }
        let length = match second & 0x7f {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            length => u64::from(length),
        };
        let length = usize::try_from(length).ok().filter(|&length| length <= limit);
        let length = length.ok_or_else(|| broken("a message that is too long"))?;
        let mut key = [0; 4];
        if self.side == Side::Server {
            self.stream.read_exact(&mut key).await?;
        }
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await?;
        for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
            *byte ^= key;
        }
        Ok(Frame { last: first & 0x80 != 0, opcode: first & 0x0f, payload })
    }
}

/// The value of `Sec-WebSocket-Accept` that belongs to a `Sec-WebSocket-Key`.
pub(super) fn accept_value(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// A fresh `Sec-WebSocket-Key`.
pub(super) fn new_key() -> io::Result<String> {
    let mut key = [0; 16];
    rand::fill(&mut key).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(STANDARD.encode(key))
}

struct Frame {
    last: bool,
    opcode: u8,
    payload: Vec<u8>,
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const QUIET: Duration = Duration::from_secs(45);

    fn pair() -> (Socket<DuplexStream>, Socket<DuplexStream>) {
        let (client, server) = duplex(4 << 20);
        (Socket::new(client, Side::Client), Socket::new(server, Side::Server))
    }

    #[test]
    fn the_answer_to_a_key_is_the_one_of_the_standard() {
        assert_eq!(accept_value("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_ne!(new_key().unwrap(), new_key().unwrap());
    }

    #[tokio::test]
    async fn messages_of_every_length_arrive_in_both_directions() {
        let (mut client, mut server) = pair();
        for length in [0, 1, 125, 126, 65_535, 65_536, MESSAGE_LIMIT] {
            let text = "x".repeat(length);
            client.send_text(&text).await.unwrap();
            assert_eq!(server.read(QUIET).await.unwrap(), Message::Text(text.clone()));
            server.send_binary(text.as_bytes()).await.unwrap();
            assert_eq!(client.read(QUIET).await.unwrap(), Message::Binary(text.into_bytes()));
        }
    }

    #[tokio::test]
    async fn pieces_become_one_message_with_a_ping_between_them() {
        let (client, server) = duplex(1024);
        let (mut client, mut server) = (client, Socket::new(server, Side::Server));
        let pieces: [&[u8]; 3] = [
            &[0x01, 0x82, 0, 0, 0, 0, b'a', b'b'],
            &[0x89, 0x81, 0, 0, 0, 0, b'?'],
            &[0x80, 0x81, 0, 0, 0, 0, b'c'],
        ];
        for piece in pieces {
            client.write_all(piece).await.unwrap();
        }
        assert_eq!(server.read(QUIET).await.unwrap(), Message::Text("abc".to_owned()));
        let mut pong = [0; 3];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, [0x8a, 1, b'?']);
    }

    #[tokio::test]
    async fn a_close_is_answered() {
        let (mut client, mut server) = pair();
        client.send_close().await.unwrap();
        assert_eq!(server.read(QUIET).await.unwrap(), Message::Close);
        assert_eq!(client.read(QUIET).await.unwrap(), Message::Close);
    }

    #[tokio::test]
    async fn silence_is_met_with_a_ping() {
        let (client, server) = duplex(1024);
        let mut server = Socket::new(server, Side::Server);
        let mut client = client;
        let reading = tokio::spawn(async move { server.read(Duration::from_millis(20)).await });
        let mut ping = [0; 2];
        client.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping, [0x89, 0]);
        drop(client);
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_breaks_the_rules_is_an_error() {
        let unmasked: &[u8] = &[0x81, 0x01, b'a'];
        let reserved: &[u8] = &[0xc1, 0x80, 0, 0, 0, 0];
        let orphan: &[u8] = &[0x80, 0x80, 0, 0, 0, 0];
        let huge: &[u8] = &[0x81, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1];
        let not_text: &[u8] = &[0x81, 0x81, 0, 0, 0, 0, 0xff];
        for bytes in [unmasked, reserved, orphan, huge, not_text] {
            let (mut client, server) = duplex(1024);
            let mut server = Socket::new(server, Side::Server);
            client.write_all(bytes).await.unwrap();
            let error = server.read(QUIET).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }
}
