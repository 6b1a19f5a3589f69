//! How much is read from a client at once, where memory has a limit.
//!
//! hyper's buffers grow as long as every read fills them, so reads are kept small. A head is kept until it is whole: one
//! that is long when there is no room for it ends its connection, for nobody needs such a head.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::exchange::memory::{self, Held};

/// Bytes of one read. hyper doubles its buffers, up to the largest head, as long as every read fills them.
const AT_ONCE: usize = 16 << 10;
/// A head that is longer is long.
pub(in crate::entry_point) const LONG: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(in crate::entry_point) struct Pace {
    kind: Kind,
    /// Bytes that came since something was sent.
    ahead: usize,
}

#[derive(Debug)]
enum Kind {
    Http1(Option<Arc<Held>>),
    /// A body may come as long as the window is open, and opening it again is something that is sent.
    Http2 {
        window: usize,
        held: Option<Arc<Held>>,
    },
}

impl Pace {
    /// For a connection that `held` is held for, where that is counted.
    pub(in crate::entry_point) fn http1(held: Option<&Arc<Held>>) -> Self {
        Self { kind: Kind::Http1(held.cloned()), ahead: 0 }
    }

    /// For a connection of HTTP/2 with this window.
    pub(in crate::entry_point) fn http2(window: u32, held: Option<&Arc<Held>>) -> Self {
        let window = usize::try_from(window).unwrap_or(usize::MAX);
        Self { kind: Kind::Http2 { window, held: held.cloned() }, ahead: 0 }
    }

    /// Something was sent.
    pub(in crate::entry_point) fn wrote(&mut self) {
        if self.ahead == 0 {
            return;
        }
        self.ahead = 0;
        if let Kind::Http2 { held: Some(held), .. } = &self.kind {
            held.set_ahead(0);
        }
    }

    /// Reads from `stream`.
    pub(in crate::entry_point) fn poll_read<S: AsyncRead>(
        &mut self,
        stream: Pin<&mut S>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !memory::is_limited() {
            return stream.poll_read(cx, buf);
        }
        let before = buf.filled().len();
        if buf.remaining() <= AT_ONCE {
            ready!(stream.poll_read(cx, buf))?;
        } else {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(AT_ONCE));
            ready!(stream.poll_read(cx, &mut part))?;
            let count = part.filled().len();
            buf.advance(count);
        }
        let count = buf.filled().len() - before;
        self.ahead = self.ahead.saturating_add(count);
        let head = match &self.kind {
            Kind::Http1(None) => 0,
            Kind::Http1(Some(held)) => held.arrived(count),
            Kind::Http2 { window, held } => {
                if let Some(held) = held {
                    held.set_ahead(self.ahead);
                }
                self.ahead.saturating_sub(*window)
            }
        };
        if head > LONG && memory::is_scarce() {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        Poll::Ready(Ok(()))
    }
}
