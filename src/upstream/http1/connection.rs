//! One connection to a server, idle or owned by its exchange.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use crate::upstream::connect::Stream;
use crate::upstream::owner::Owner;
use crate::upstream::pool;
use crate::upstream::transport::Origin;

/// Idle for so long, a connection is looked at before any request goes over it.
const RESTED: Duration = Duration::from_millis(5);

/// A connection to a server. It is handed from one to the next, so it lives in a box.
pub(in crate::upstream) struct Connection {
    pub(super) stream: Stream,
    origin: Weak<Origin>,
    /// Whose it is, if it is not anybody's.
    owner: Option<Weak<Owner>>,
    max_idle: usize,
    reused: bool,
    rested: bool,
}

impl Connection {
    /// A connection that was just made.
    pub(in crate::upstream) fn new(
        stream: Stream,
        origin: &Arc<Origin>,
        max_idle: usize,
        owner: Option<&Arc<Owner>>,
    ) -> Self {
        let (origin, owner) = (Arc::downgrade(origin), owner.map(Arc::downgrade));
        Self { stream, origin, owner, max_idle, reused: false, rested: false }
    }

    /// How many of its kind may be idle.
    pub(in crate::upstream) fn max_idle(&self) -> usize {
        self.max_idle
    }

    /// Takes it away from everybody else; `None` when somebody owns it already.
    pub(super) fn become_owned(&mut self) -> Option<Arc<Owner>> {
        if self.owner.is_some() {
            return None;
        }
        let owner = Owner::new();
        self.owner = Some(Arc::downgrade(&owner));
        Some(owner)
    }

    /// Whether a request went over it before.
    pub(in crate::upstream) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Marks it as used by a request, after it was idle for so long.
    pub(in crate::upstream) fn take(&mut self, idle: Duration) {
        self.reused = true;
        self.rested = idle >= RESTED;
    }

    /// Looks for bytes, or an end, that nobody has asked for: with them it must not be used (again). `Pending` when
    /// there are none; the task is then woken when some come.
    pub(in crate::upstream) fn poll_surplus(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut scratch = [0; 64];
        let mut buf = ReadBuf::new(&mut scratch);
        match std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
            Err(error) => Poll::Ready(error),
            Ok(()) if buf.filled().is_empty() => {
                Poll::Ready(io::Error::new(io::ErrorKind::ConnectionReset, "the server closed it"))
            }
            Ok(()) => {
                Poll::Ready(io::Error::new(io::ErrorKind::InvalidData, "the server spoke unasked"))
            }
        }
    }

    /// As [`Self::poll_surplus`], right before a request is written. The reactor hears of what a server does only now
    /// and then: asking the socket itself costs a system call. Where a request may be repeated and the connection was
    /// busy a moment ago, finding it closed is rare and costs nothing but a second try.
    pub(super) fn poll_before_request(
        &mut self,
        cx: &mut Context<'_>,
        repeatable: bool,
    ) -> Poll<io::Error> {
        if self.reused && (self.rested || !repeatable) {
            self.stream.look();
        }
        self.poll_surplus(cx)
    }

    /// Puts it into the pool, if there is room for it, or closes it.
    pub(super) fn release(self: Box<Self>, now: Instant) {
        let Some(origin) = self.origin.upgrade() else { return };
        if let Some(owner) = &self.owner {
            if let Some(owner) = owner.upgrade() {
                pool::keep(&origin, Some(&owner), self, now);
            }
            return;
        }
        if origin.idle.enter(self.max_idle) && !pool::keep(&origin, None, self, now) {
            origin.idle.leave(1);
        }
    }
}
