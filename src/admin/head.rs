//! What a client has really sent as the head of its request. The HTTP library drops a
//! `Content-Length` beside a `Transfer-Encoding`, which RFC 9112 6.1 takes for an attack.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The first bytes of a connection, up to the empty line or `MOST` bytes.
#[derive(Clone, Default)]
pub struct Head(Arc<Mutex<Vec<u8>>>);

/// A connection whose head is kept.
pub struct Listened<S> {
    stream: S,
    head: Head,
    is_over: bool,
}

/// A longer head is not read either.
const MOST: usize = 32 << 10;
/// Ends of a head: a line may end without its CR.
const ENDS: [&[u8]; 2] = [b"\n\r\n", b"\n\n"];

impl Head {
    /// A connection whose head is kept here.
    pub fn of<S>(&self, stream: S) -> Listened<S> {
        Listened { stream, head: self.clone(), is_over: false }
    }

    /// Whether there is a field of this name, which is in lower case.
    pub fn has(&self, field: &str) -> bool {
        let head = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        head.split(|&byte| byte == b'\n').skip(1).any(|line| {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            name.len() < line.len() && name.trim_ascii().eq_ignore_ascii_case(field.as_bytes())
        })
    }

    /// Keeps what belongs to the head; returns whether it is over.
    fn keep(&self, bytes: &[u8]) -> bool {
        let mut head = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        head.extend_from_slice(bytes);
        // Empty lines before a request are passed over.
        let before = head.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        head.drain(..before);
        let from = head.len().saturating_sub(bytes.len() + 2);
        let tail = head.get(from..).unwrap_or_default();
        let ends = ENDS.map(|end| tail.windows(end.len()).position(|window| window == end));
        let end = ends.into_iter().flatten().min();
        if let Some(end) = end {
            head.truncate(from + end);
        }
        end.is_some() || head.len() > MOST
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listened<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if !this.is_over && matches!(polled, Poll::Ready(Ok(()))) {
            this.is_over = this.head.keep(buffer.filled().get(before..).unwrap_or_default());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listened<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn fields_are_found_in_the_head_and_not_behind_it() {
        let text = b"\r\n\r\nPUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nCONTENT-length:3\r\n\r\n3\r\nhost: \r\n";
        for size in [1, 7, 1000] {
            let head = Head::default();
            let mut stream = head.of(tokio_test_stream(text, size));
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, text);
            assert!(head.has("content-length") && head.has("transfer-encoding"), "{size}");
            assert!(!head.has("host") && !head.has("put / http/1.1"), "{size}");
        }
    }

    fn tokio_test_stream(text: &'static [u8], size: usize) -> impl AsyncRead + Unpin {
        let (mut writer, reader) = tokio::io::duplex(size);
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            writer.write_all(text).await.unwrap();
        });
        reader
    }
}
