//! Copies bytes both ways between two streams until both directions have ended.
//!
//! An idle pair holds no buffer: bytes pass through one scratch buffer per worker, and only what
//! a slow reader does not take at once is kept aside, and counted. What was read is passed on, also when the other
//! direction fails. Whoever goes on saying nothing after the other has gone does not hold the pair for ever.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::exchange::memory::{self, Held, Keeping};

const SCRATCH: usize = 64 * 1024;
/// How long what was read may take to be written after the other direction has failed.
const LEAVING: Duration = Duration::from_mins(1);
/// What has come until then is not known to be there before the worker has looked at its sockets once more.
const LAST_LOOK: Duration = Duration::from_millis(20);
/// So many times longer is it waited for a server that has said its last and takes nothing.
const SLOW: u32 = 10;
/// What is read at once while memory is scarce, for that much may have to be kept.
const LITTLE: usize = 4 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Copies both ways. The end of one direction is passed on as an end of writing. A failure of either ends both, once
/// what is at hand is written; and so does `a` if it pauses for longer than `patience` after `b` has said its last.
/// What either side does not take is kept for `held`. Returns the bytes from `a` to `b` and from `b` to `a`.
pub(crate) async fn both_ways<A, B>(
    mut a: A,
    mut b: B,
    patience: Option<Duration>,
    held: Option<&Arc<Held>>,
) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let direction = || Direction { counted: Keeping::new(held.cloned()), ..Direction::default() };
    let (mut forth, mut back) = (direction(), direction());
    let mut alone: Option<Alone> = None;
    let mut leaving: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        forth.poll(cx, Pin::new(&mut a), Pin::new(&mut b));
        back.poll(cx, Pin::new(&mut b), Pin::new(&mut a));
        // Nobody takes anything any more who fails to say anything.
        forth.over |= back.is_unreadable;
        back.over |= forth.is_unreadable;
        if !forth.over || !back.over {
            let has_failed = forth.failure.is_some() || back.failure.is_some();
            if has_failed && leaving.is_none() {
                leaving = Some(Box::pin(sleep(LAST_LOOK)));
            }
            if let Some(leaving) = &mut leaving {
                ready!(leaving.as_mut().poll(cx));
                if !forth.is_leaving {
                    (forth.is_leaving, back.is_leaving) = (true, true);
                    leaving.as_mut().reset(Instant::now() + LEAVING);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            } else if let Some(patience) = patience.filter(|_| back.over) {
                let patience = if forth.is_waiting() { patience * SLOW } else { patience };
                let alone = alone.get_or_insert_with(|| Alone::since(forth.progress(), patience));
                ready!(alone.poll(cx, forth.progress(), patience));
            } else {
                return Poll::Pending;
            }
        }
        let failure = forth.failure.take().or_else(|| back.failure.take());
        Poll::Ready(failure.map_or(Ok((forth.copied, back.copied)), Err))
    })
    .await
}

/// Waits for a side that the other one has left: a connection that was closed looks like one on which nothing more is
/// said, until something is written to it.
struct Alone {
    progress: (u64, bool),
    sleep: Pin<Box<Sleep>>,
}

impl Alone {
    fn since(progress: (u64, bool), patience: Duration) -> Self {
        Self { progress, sleep: Box::pin(sleep(patience)) }
    }

    /// Ready when there was no progress for so long.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        progress: (u64, bool),
        patience: Duration,
    ) -> Poll<()> {
        if self.progress != progress {
            self.progress = progress;
            self.sleep.as_mut().reset(Instant::now() + patience);
        }
        self.sleep.as_mut().poll(cx)
    }
}

/// Turns that one direction may take before the other tasks of the worker get theirs.
const MAX_TURNS: usize = 16;

#[derive(Default)]
struct Direction {
    /// What was read and not taken yet, from `sent` on.
    kept: Vec<u8>,
    counted: Keeping,
    sent: usize,
    unflushed: bool,
    read_over: bool,
    over: bool,
    copied: u64,
    failure: Option<io::Error>,
    /// It was the reading that failed.
    is_unreadable: bool,
    /// Nothing is read any more that is not at hand.
    is_leaving: bool,
}

impl Direction {
    /// Whether something that was read is not written yet.
    fn is_waiting(&self) -> bool {
        !self.over && (!self.kept.is_empty() || self.unflushed)
    }

    /// How many bytes were written, and whether more of them wait.
    fn progress(&self) -> (u64, bool) {
        let rest = self.kept.len().saturating_sub(self.sent) as u64;
        (self.copied - rest, self.is_waiting())
    }

    /// Goes on until it is over, one way or another.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: Pin<&mut R>, to: Pin<&mut W>)
    where
        R: AsyncRead,
        W: AsyncWrite,
    {
        if !self.over
            && let Poll::Ready(result) = self.advance(cx, from, to)
        {
            self.over = true;
            if let Err(error) = result {
                self.failure.get_or_insert(error);
            }
        }
    }

    fn advance<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut R>,
        mut to: Pin<&mut W>,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead,
        W: AsyncWrite,
    {
        for _ in 0..MAX_TURNS {
            ready!(self.poll_kept(cx, to.as_mut()))?;
            if self.read_over {
                return to.as_mut().poll_shutdown(cx);
            }
            let turn = BUFFER
                .with_borrow_mut(|buffer| self.turn(cx, from.as_mut(), to.as_mut(), buffer))?;
            if turn.is_pending() {
                if self.unflushed && to.as_mut().poll_flush(cx)?.is_ready() {
                    self.unflushed = false;
                }
                if self.is_leaving {
                    self.read_over = true;
                    continue;
                }
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once and writes as much of it as is taken.
    fn turn<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: Pin<&mut R>,
        mut to: Pin<&mut W>,
        buffer: &mut [u8],
    ) -> io::Result<Poll<()>>
    where
        R: AsyncRead,
        W: AsyncWrite,
    {
        let most = if memory::is_scarce() { LITTLE } else { SCRATCH };
        let mut buf = ReadBuf::new(buffer.get_mut(..most).unwrap_or_default());
        match from.poll_read(cx, &mut buf) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => {
                self.failure = Some(error);
                self.is_unreadable = true;
                self.read_over = true;
                return Ok(Poll::Ready(()));
            }
        }
        let mut rest = buf.filled();
        if rest.is_empty() {
            self.read_over = true;
            return Ok(Poll::Ready(()));
        }
        self.copied += rest.len() as u64;
        while !rest.is_empty() {
            let Poll::Ready(taken) = to.as_mut().poll_write(cx, rest)? else {
                self.kept.extend_from_slice(rest);
                self.counted.grow(rest.len());
                break;
            };
            rest = tail(rest, taken)?;
            self.unflushed = true;
        }
        Ok(Poll::Ready(()))
    }

    fn poll_kept<W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut to: Pin<&mut W>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.kept.get(self.sent..) {
            let taken = ready!(to.as_mut().poll_write(cx, rest))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += taken;
            self.unflushed = true;
        }
        if self.sent > 0 {
            self.kept = Vec::new();
            self.counted.let_go();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }
}

fn tail(bytes: &[u8], taken: usize) -> io::Result<&[u8]> {
    match bytes.get(taken..) {
        Some(rest) if taken > 0 => Ok(rest),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    /// G-46: who is left alone has its time from its last byte on, and whoever waits for an answer has any.
    #[tokio::test(flavor = "local", start_paused = true)]
    async fn whoever_is_left_alone_holds_nothing_for_ever() {
        for (patience, expected) in [(Some(PATIENCE), true), (None, false)] {
            let (mut client, a) = duplex(64);
            let (b, mut server) = duplex(64);
            let copying = tokio::task::spawn_local(both_ways(a, b, patience, None));
            client.write_all(b"hello").await.unwrap();
            server.shutdown().await.unwrap();
            for _ in 0..5 {
                sleep(Duration::from_secs(59)).await;
                assert!(!copying.is_finished());
                client.write_all(b"more").await.unwrap();
            }
            sleep(Duration::from_secs(61)).await;
            assert_eq!(copying.is_finished(), expected);
        }
        let (mut client, a) = duplex(64);
        let (b, mut server) = duplex(64);
        let copying = tokio::task::spawn_local(both_ways(a, b, Some(PATIENCE), None));
        client.shutdown().await.unwrap();
        sleep(PATIENCE * 100).await;
        server.write_all(b"late").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(copying.await.unwrap().unwrap(), (0, 4));
    }

    #[tokio::test(flavor = "local")]
    async fn what_a_side_does_not_take_is_counted_until_it_does() {
        let (mut client, a) = duplex(100);
        let (b, mut server) = duplex(1000);
        let held = Held::new(true);
        let counting = Arc::clone(&held);
        let copying = tokio::task::spawn_local(async move {
            both_ways(a, b, Some(PATIENCE), Some(&counting)).await
        });
        server.write_all(&[7; 900]).await.unwrap();
        server.shutdown().await.unwrap();
        while held.bytes() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(held.bytes(), 800);
        client.read_exact(&mut [0; 900]).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(copying.await.unwrap().unwrap(), (0, 900));
        assert_eq!(held.bytes(), 0);
    }

    #[tokio::test(flavor = "local")]
    async fn both_directions_and_half_closes() {
        let (mut client, a) = duplex(64);
        let (b, mut server) = duplex(64);
        let copying = tokio::task::spawn_local(both_ways(a, b, Some(PATIENCE), None));
        let big: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let sent = big.clone();
        let uploading = tokio::task::spawn_local(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, big);
        server.write_all(b"after your end").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(uploading.await.unwrap(), "after your end");
        assert_eq!(copying.await.unwrap().unwrap(), (300_000, 14));
    }

    /// Takes nothing, and says nothing.
    struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// F-21: what a server has said reaches a client that is slow to take it, although nothing reaches the server; what
    /// a client has said reaches a server that is slow; and whoever takes nothing any more is let go at once.
    #[tokio::test(flavor = "local", start_paused = true)]
    async fn what_was_read_is_written_before_the_end() {
        let (mut client, a) = duplex(64);
        let (b, mut server) = duplex(64);
        let copying = tokio::task::spawn_local(both_ways(a, b, Some(PATIENCE), None));
        server.write_all(&[b'x'; 150]).await.unwrap();
        drop(server);
        client.write_all(b"too late").await.unwrap();
        sleep(LEAVING / 2).await;
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, [b'x'; 150]);
        assert!(copying.await.unwrap().is_err());

        let (mut client, a) = duplex(64);
        let (b, mut server) = duplex(64);
        let copying = tokio::task::spawn_local(both_ways(a, b, Some(PATIENCE), None));
        server.shutdown().await.unwrap();
        client.write_all(&[b'x'; 150]).await.unwrap();
        sleep(PATIENCE * 2).await;
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert_eq!((received.len(), copying.await.unwrap().unwrap()), (150, (150, 0)));

        let (a, mut server) = duplex(64);
        let start = Instant::now();
        let copying = tokio::task::spawn_local(both_ways(Broken, a, None, None));
        server.write_all(b"hello").await.unwrap();
        assert!(copying.await.unwrap().is_err() && start.elapsed() < LEAVING);
    }
}
