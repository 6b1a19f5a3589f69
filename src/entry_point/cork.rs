//! Collects what is written in one turn of a connection's task, to write it in one go.
//!
//! The HTTP/2 codec writes, and flushes, each DATA frame by itself: over TLS that is one record and one system call per
//! answer. Here a flush only asks for one; the task calls [`Cork::pull`] when its turn is over. What is kept is bounded,
//! and a client that takes nothing is waited for as before.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::Ledger;
use super::guard::Limit;
use super::overload::Pace;

/// Bytes that are kept before they are written after all.
const LIMIT: usize = 64 * 1024;
/// How much of what a client still sends is read behind the last words to it.
const MAX_UNREAD: usize = 1 << 20;

thread_local! {
    /// A buffer is full in one turn and empty in the next, so one serves the connections of a worker.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The stream, as the codec has it.
pub(super) struct Corked<S>(Rc<RefCell<Core<S>>>);

/// The stream, as the connection's task has it.
pub(super) struct Cork<S>(Rc<RefCell<Core<S>>>);

struct Core<S> {
    stream: S,
    out: Vec<u8>,
    at: usize,
    unflushed: bool,
    /// Since when the client has taken nothing.
    blocked: Option<Instant>,
    /// What the client brings, where it counts.
    ledger: Option<Ledger>,
    pace: Pace,
}

/// Puts a cork on `stream`, which is read at this pace, and through which only so much comes in as `ledger` has room for.
pub(super) fn cork<S>(stream: S, ledger: Option<Ledger>, pace: Pace) -> (Corked<S>, Cork<S>) {
    let (out, blocked) = (Vec::new(), None);
    let core = Core { stream, out, at: 0, unflushed: false, blocked, ledger, pace };
    let core = Rc::new(RefCell::new(core));
    (Corked(Rc::clone(&core)), Cork(core))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Cork<S> {
    /// Writes what was collected. When the client does not take all of it, the task is woken when it does; then it has
    /// to call again.
    pub(super) fn pull(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let core = &mut *self.0.borrow_mut();
        if let Some(ledger) = &mut core.ledger {
            ledger.next_turn();
        }
        core.poll_empty(cx)
    }

    /// What the client has to be done with next, and until when: so long may it take nothing of what there is for it,
    /// and so long may it take for a head.
    pub(super) fn due(
        &self,
        stall: Option<Duration>,
        head: Option<Duration>,
    ) -> Option<(Instant, Limit)> {
        let core = self.0.borrow();
        let answer = core.blocked.zip(stall).map(|(since, stall)| (since + stall, Limit::Answer));
        // While nothing can be written, nothing is read either.
        let reads = core.ledger.as_ref().filter(|_| core.blocked.is_none());
        let begun = reads.and_then(Ledger::head_since);
        let head = begun.zip(head).map(|(since, head)| (since + head, Limit::RequestHead));
        answer.into_iter().chain(head).min_by_key(|(until, _)| *until)
    }

    /// Nothing more comes in, because the client has come to this limit.
    pub(super) fn spend(&self, limit: Limit) {
        if let Some(ledger) = &mut self.0.borrow_mut().ledger {
            ledger.spend(limit);
        }
    }

    /// What the client has used up, if that is why nothing more comes in.
    pub(super) fn spent(&self) -> Option<Limit> {
        self.0.borrow().ledger.as_ref()?.spent()
    }

    /// Says why it ends, and ends it; to be polled when nobody else has it any more. What the client still sends is read
    /// for a moment, so that it gets to know and no reset.
    pub(super) fn poll_farewell(&self, cx: &mut Context<'_>, farewell: &mut Farewell) -> Poll<()> {
        let core = &mut *self.0.borrow_mut();
        if let Farewell::Due = farewell {
            if let Some(words) = core.ledger.as_ref().and_then(Ledger::farewell) {
                core.out.extend_from_slice(&words);
                core.unflushed = true;
            }
            *farewell = Farewell::Begun;
        }
        if let Farewell::Begun = farewell {
            if ready!(core.poll_empty(cx)).is_err()
                || ready!(Pin::new(&mut core.stream).poll_shutdown(cx)).is_err()
            {
                return Poll::Ready(());
            }
            *farewell = Farewell::Said(MAX_UNREAD);
        }
        let Farewell::Said(left) = farewell else { return Poll::Ready(()) };
        let mut scratch = [0; 4096];
        while *left > 0 {
            let mut buf = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut core.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
            *left = left.saturating_sub(buf.filled().len());
        }
        Poll::Ready(())
    }
}

/// How far the last words to a client have come.
pub(super) enum Farewell {
    Due,
    Begun,
    /// So much may still be read.
    Said(usize),
}

impl<S: AsyncWrite + Unpin> Core<S> {
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.out.get(self.at..) {
            let written = Pin::new(&mut self.stream).poll_write(cx, rest);
            let written = ready!(self.took(written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += written;
        }
        self.at = 0;
        let mut spare = std::mem::take(&mut self.out);
        if spare.capacity() > 0 {
            spare.clear();
            SPARE.set(spare);
        }
        Poll::Ready(Ok(()))
    }

    fn leaves(&mut self, bytes: &[u8]) {
        if let Some(ledger) = &mut self.ledger {
            ledger.leaves(bytes);
        }
    }

    /// Takes note of what the client has taken.
    fn took(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => drop(self.blocked.get_or_insert_with(Instant::now)),
            Poll::Ready(result) => {
                let was_blocked = self.blocked.take().is_some();
                if let (Some(ledger), Ok(bytes)) = (&mut self.ledger, result) {
                    ledger.delivered(*bytes);
                    if was_blocked {
                        ledger.restart_head();
                    }
                }
            }
        }
        written
    }

    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_collect(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.out.len() + length > LIMIT && !self.out.is_empty() {
            ready!(self.poll_out(cx))?;
        }
        self.unflushed = true;
        self.pace.wrote();
        if self.out.is_empty() && length > LIMIT / 2 {
            let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
            let mut bytes = ready!(self.took(written))?;
            let written = bytes;
            for slice in slices {
                let taken = bytes.min(slice.len());
                self.leaves(slice.get(..taken).unwrap_or_default());
                bytes -= taken;
            }
            return Poll::Ready(Ok(written));
        }
        if self.out.capacity() == 0 {
            self.out = SPARE.take();
        }
        for slice in slices {
            self.out.extend_from_slice(slice);
            self.leaves(slice);
        }
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let core = &mut *self.0.borrow_mut();
        let Some(ledger) = &mut core.ledger else {
            return core.pace.poll_read(Pin::new(&mut core.stream), cx, buf);
        };
        if ledger.has_enough() {
            // Others first, also the requests that came in just now.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(core.pace.poll_read(Pin::new(&mut core.stream), cx, buf))?;
        let left = ledger.take(buf.filled_mut().get_mut(before..).unwrap_or_default());
        let Some(left) = left else {
            let error = io::Error::other("the client sends too much that is no request");
            return Poll::Ready(Err(error));
        };
        buf.set_filled(before + left);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_collect(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_collect(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let core = &mut *self.0.borrow_mut();
        ready!(core.poll_empty(cx))?;
        Pin::new(&mut core.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes `room` bytes and notes what each write brought.
    #[derive(Default)]
    struct Client {
        writes: Vec<usize>,
        received: Vec<u8>,
        room: usize,
        flushes: usize,
        unread: usize,
    }

    impl AsyncRead for Client {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let count = self.unread.min(buf.remaining());
            self.unread -= count;
            buf.put_slice(&vec![7; count]);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Client {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.room == 0 {
                return Poll::Pending;
            }
            let taken = buf.len().min(self.room);
            self.room -= taken;
            self.writes.push(taken);
            self.received.extend_from_slice(&buf[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn many_writes_become_one() {
        let mut cx = Context::from_waker(Waker::noop());
        let client = Client { room: usize::MAX, ..Client::default() };
        let (mut stream, pull) = cork(client, None, Pace::http2(0, None));
        for _ in 0..3 {
            for _ in 0..10 {
                assert!(Pin::new(&mut stream).poll_write(&mut cx, &[7; 1000]).is_ready());
                assert!(Pin::new(&mut stream).poll_flush(&mut cx).is_ready());
            }
            assert!(pull.pull(&mut cx).is_ready());
        }
        assert!(pull.pull(&mut cx).is_ready());
        let kept = pull.0.borrow();
        assert_eq!(kept.stream.writes, [10_000; 3]);
        assert_eq!(kept.stream.flushes, 3);
        assert_eq!(kept.out.capacity(), 0, "an idle connection keeps no buffer");
    }

    #[test]
    fn nothing_is_lost_or_kept_without_bound() {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut stream, pull) = cork(Client::default(), None, Pace::http2(0, None));
        let mut sent = Vec::new();
        for number in 0..1_000_u32 {
            let part = vec![number.to_le_bytes()[0]; 1000];
            let Poll::Ready(taken) = Pin::new(&mut stream).poll_write(&mut cx, &part) else {
                break;
            };
            sent.extend_from_slice(&part[..taken.unwrap()]);
        }
        assert!((LIMIT - 1000..=LIMIT).contains(&sent.len()), "{}", sent.len());
        assert!(pull.pull(&mut cx).is_pending());
        pull.0.borrow_mut().stream.room = 100;
        assert!(pull.pull(&mut cx).is_pending());
        pull.0.borrow_mut().stream.room = usize::MAX;
        let tail = vec![9; LIMIT];
        let large = [IoSlice::new(b"head"), IoSlice::new(&tail)];
        let Poll::Ready(taken) = Pin::new(&mut stream).poll_write_vectored(&mut cx, &large) else {
            panic!("there is room");
        };
        sent.extend_from_slice(&[b"head".as_slice(), &tail].concat()[..taken.unwrap()]);
        assert!(Pin::new(&mut stream).poll_shutdown(&mut cx).is_ready());
        assert!(pull.0.borrow().stream.received == sent);
    }
    /// A socket that is closed with bytes unread is reset, and the last words are lost.
    #[test]
    fn what_a_client_still_sends_is_read_behind_the_last_words() {
        let mut cx = Context::from_waker(Waker::noop());
        for (unread, left) in [(5_000, 0), (MAX_UNREAD + 5_000, 5_000)] {
            let client = Client { room: usize::MAX, unread, ..Client::default() };
            let (_, pull) = cork(client, None, Pace::http2(0, None));
            assert!(pull.poll_farewell(&mut cx, &mut Farewell::Due).is_ready());
            assert!(pull.0.borrow().stream.unread.abs_diff(left) < 4096, "{unread}");
        }
    }
}
