//! How much is read from a client at once, where memory has a limit, and how fast while it runs short.
//!
//! A head that never ends and a body that nobody takes look alike from here: a lot comes in, and nothing goes out.
//! While something is given up, such a connection is read from once in a second, so that what all of them bring in
//! between two looks is little, and yet none stands still.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::exchange::memory;

/// Bytes of one read. hyper doubles its buffers, up to the largest head, as long as every read fills them.
const AT_ONCE: usize = 16 << 10;
/// What a client may send before anything is sent back, without being slowed down.
const AHEAD: usize = 64 << 10;

thread_local! {
    /// The turn of the connections of this worker, while they take turns.
    static TURN: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The next turn of everybody. Whoever waits for it has to be woken.
pub(super) fn next_turn() {
    TURN.set(Some(TURN.get().map_or(0, |turn| turn.wrapping_add(1))));
}

/// Nobody takes turns any more.
pub(super) fn no_turns() {
    TURN.set(None);
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::entry_point) struct Pace {
    /// Bytes that came since something was sent.
    ahead: usize,
    /// The turn that it has had.
    turn: Option<u32>,
}

impl Pace {
    /// Something was sent.
    pub(in crate::entry_point) fn wrote(&mut self) {
        self.ahead = 0;
    }

    /// Reads from `stream`, if it is its turn.
    pub(in crate::entry_point) fn poll_read<S: AsyncRead>(
        &mut self,
        stream: Pin<&mut S>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !memory::is_limited() {
            return stream.poll_read(cx, buf);
        }
        let turn = TURN.get();
        if turn.is_some() && self.ahead >= AHEAD {
            if self.turn == turn {
                return Poll::Pending;
            }
            self.turn = turn;
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
        self.ahead = self.ahead.saturating_add(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}
