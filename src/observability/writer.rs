//! Whole lines from many threads to one output, through one thread and a bounded queue.
//!
//! The queue is one buffer that callers append to under a lock held for a copy only; the writer
//! swaps it for an empty one and writes it at once. A full queue drops lines and counts them:
//! nobody ever waits for the disk.

use std::io::{self, Write as _};

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::thread::{Builder, JoinHandle};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes that may wait, however many lines that is.
const MAX_BYTES: usize = 32 << 20;
/// Capacity that an emptied buffer may keep.
const KEEP_BYTES: usize = 1 << 20;

/// Where lines go.
pub(super) trait Sink: Send + 'static {
    /// Writes whole lines.
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;
    /// Opens the output again, under the same name.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output.
pub(super) struct Stdout;

impl Sink for Stdout {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(lines)?;
        out.flush()
    }
}

/// The queue and its thread.
pub(super) struct LineWriter {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    written: Condvar,
    max_lines: usize,
    dropped: Arc<AtomicU64>,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    lines: usize,
    reopen: bool,
    closed: bool,
    waiting: bool,
    /// Lines and commands taken, and how many of them are done.
    taken: u64,
    done: u64,
}

impl LineWriter {
    /// Starts the thread. `failed` hears of the first error of every row of errors.
    pub(super) fn start(
        name: &str,
        mut sink: impl Sink,
        max_lines: usize,
        failed: fn(&io::Error),
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            max_lines: max_lines.max(1),
            dropped: Arc::default(),
        });
        let theirs = Arc::clone(&shared);
        let thread =
            Builder::new().name(name.to_owned()).spawn(move || theirs.run(&mut sink, failed))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Hands over one line, which ends with a newline. Never waits for the output.
    pub(super) fn push(&self, line: &[u8]) {
        let mut queue = self.shared.lock();
        let full = queue.lines >= self.shared.max_lines
            || queue.bytes.len().saturating_add(line.len()) > MAX_BYTES;
        if full || queue.closed {
            drop(queue);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes.extend_from_slice(line);
        queue.lines += 1;
        queue.taken += 1;
        self.shared.wake(queue);
    }

    /// Opens the output again behind the lines handed over so far.
    pub(super) fn reopen(&self) {
        let mut queue = self.shared.lock();
        if !queue.closed {
            queue.reopen = true;
            queue.taken += 1;
            self.shared.wake(queue);
        }
    }

    /// Waits until everything handed over so far is written.
    pub(super) fn flush(&self) {
        let mut queue = self.shared.lock();
        let target = queue.taken;
        while queue.done < target {
            queue = self.shared.written.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes what is left and ends the thread; later lines are dropped.
    pub(super) fn close(&self) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        self.shared.wake(queue);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The thread has nothing to say, and cannot have panicked in a way that matters here.
            drop(thread.join());
        }
    }

    /// The number of lines dropped, shared.
    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.dropped)
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        if waiting {
            self.filled.notify_one();
        }
    }

    fn run(&self, sink: &mut impl Sink, failed: fn(&io::Error)) {
        let mut batch = Vec::new();
        let mut failing = false;
        let mut done = 0;
        loop {
            let mut queue = self.lock();
            queue.done = done;
            self.written.notify_all();
            while queue.bytes.is_empty() && !queue.reopen && !queue.closed {
                queue.waiting = true;
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let lines = std::mem::take(&mut queue.lines);
            let reopen = std::mem::take(&mut queue.reopen);
            let last = queue.closed && queue.bytes.is_empty();
            done = queue.taken;
            std::mem::swap(&mut batch, &mut queue.bytes);
            drop(queue);

            let mut result = if batch.is_empty() { Ok(()) } else { sink.write(&batch) };
            if result.is_err() {
                self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
            }
            if reopen {
                result = result.and(sink.reopen());
            }
            match result {
                Err(error) if !failing => {
                    failing = true;
                    failed(&error);
                }
                Err(_) => {}
                Ok(()) => failing = false,
            }
            batch.clear();
            batch.shrink_to(KEEP_BYTES);
            if last {
                self.lock().done = done;
                self.written.notify_all();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    struct Gated {
        entered: SyncSender<()>,
        gate: Receiver<()>,
        seen: Arc<Mutex<Vec<u8>>>,
    }

    impl Sink for Gated {
        fn write(&mut self, lines: &[u8]) -> io::Result<()> {
            self.entered.send(()).ok();
            self.gate.recv().ok();
            self.seen.lock().unwrap().extend_from_slice(lines);
            Ok(())
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_close_writes_the_rest() {
        let (entered, has_entered) = sync_channel(8);
        let (open, gate) = sync_channel(8);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Gated { entered, gate, seen: Arc::clone(&seen) };
        let writer = LineWriter::start("test", sink, 2, |_| {}).unwrap();
        writer.push(b"1\n");
        has_entered.recv().unwrap();
        for line in [b"2\n", b"3\n", b"4\n", b"5\n"] {
            writer.push(line);
        }
        assert_eq!(writer.dropped().load(Ordering::Relaxed), 2);
        open.send(()).unwrap();
        open.send(()).unwrap();
        writer.close();
        assert_eq!(&*seen.lock().unwrap(), b"1\n2\n3\n");
        writer.push(b"late\n");
        assert_eq!(writer.dropped().load(Ordering::Relaxed), 3);
        writer.reopen();
        writer.flush();
    }

    struct Failing;

    impl Sink for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<()> {
            Err(io::Error::other("disk full"))
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let writer = LineWriter::start("test", Failing, 10, |_| {}).unwrap();
        writer.push(b"1\n");
        writer.flush();
        assert_eq!(writer.dropped().load(Ordering::Relaxed), 1);
    }
}
