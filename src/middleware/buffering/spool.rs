//! Whole bodies, kept: the beginning in memory, the rest in a file that has no name.
//!
//! The file is unlinked before the first byte is in it, so nothing is left behind whatever happens.
//! No worker waits for the disk: reading and writing are done on the runtime's blocking threads.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use aws_lc_rs::rand;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::exchange::memory::{Held, Keeping, is_limited, is_scarce};
use crate::exchange::{Body, BodyError};

/// Bytes of one write to the disk, or of one read.
const BLOCK: usize = 128 * 1024;

/// Bytes of one write where memory has a limit: everybody who writes collects as many.
const SMALL_BLOCK: usize = 16 * 1024;

/// How much is kept, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes in memory.
    pub(super) memory: usize,
    /// Bytes at all; `None`: as many as come.
    pub(super) most: Option<u64>,
}

/// Why a body was not kept.
#[derive(Debug)]
pub(super) enum Failure {
    TooLarge,
    Disk(io::Error),
    Source(BodyError),
}

/// A whole body, to be sent as often as needed.
#[derive(Clone)]
pub(super) struct Kept {
    memory: Bytes,
    file: Option<Arc<File>>,
    on_disk: u64,
    trailers: Option<HeaderMap>,
    /// Counts what is in memory.
    _keeping: Arc<Keeping>,
}

impl Kept {
    /// Reads all of `body`.
    /// `held` is for whom, where that is known.
    pub(super) async fn read(
        mut body: Body,
        limits: Limits,
        held: Option<Arc<Held>>,
    ) -> Result<Self, Failure> {
        let fits = |length: u64| limits.most.is_none_or(|most| length <= most);
        if !fits(body.size_hint().lower()) {
            return Err(Failure::TooLarge);
        }
        let mut memory = BytesMut::new();
        let mut keeping = Keeping::new(held);
        let mut disk: Option<Disk> = None;
        let mut length = 0;
        let mut trailers = None;
        while let Some(frame) = body.frame().await {
            let mut data = match frame.map_err(Failure::Source)?.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    trailers = frame.into_trailers().ok();
                    continue;
                }
            };
            length += data.len() as u64;
            if !fits(length) {
                return Err(Failure::TooLarge);
            }
            // Once something is on the disk, so is all that follows.
            let full = disk.is_some() || is_scarce();
            let room = if full { 0 } else { limits.memory.saturating_sub(memory.len()) };
            let before = memory.capacity();
            memory.extend_from_slice(&data.split_to(room.min(data.len())));
            keeping.grow(memory.capacity().saturating_sub(before));
            if !data.is_empty() {
                let disk = match &mut disk {
                    Some(disk) => disk,
                    none => none.insert(Disk::open().await.map_err(Failure::Disk)?),
                };
                disk.write(&data).await.map_err(Failure::Disk)?;
            }
        }
        let (file, on_disk) = match disk {
            Some(disk) => disk.finish().await.map_err(Failure::Disk)?,
            None => (None, 0),
        };
        let keeping = Arc::new(keeping);
        Ok(Self { memory: memory.freeze(), file, on_disk, trailers, _keeping: keeping })
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.memory.len() as u64 + self.on_disk
    }

    /// Whether something follows the bytes.
    pub(super) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// The body once more.
    pub(super) fn body(&self) -> Body {
        if self.file.is_none() && self.trailers.is_none() {
            return Body::from(self.memory.clone());
        }
        Body::boxed(Reader { left: self.clone(), at: 0, reading: None })
    }
}

/// A file being written.
struct Disk {
    file: Arc<File>,
    written: u64,
    waiting: BytesMut,
}

impl Disk {
    async fn open() -> io::Result<Self> {
        let file = blocking(nameless_file).await?;
        Ok(Self { file: Arc::new(file), written: 0, waiting: BytesMut::new() })
    }

    async fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(data);
        let block = if is_limited() { SMALL_BLOCK } else { BLOCK };
        if self.waiting.len() < block { Ok(()) } else { self.write_out().await }
    }

    async fn write_out(&mut self) -> io::Result<()> {
        let block = self.waiting.split().freeze();
        let (file, at) = (Arc::clone(&self.file), self.written);
        self.written += block.len() as u64;
        blocking(move || file.write_all_at(&block, at)).await
    }

    async fn finish(mut self) -> io::Result<(Option<Arc<File>>, u64)> {
        if !self.waiting.is_empty() {
            self.write_out().await?;
        }
        Ok((Some(self.file), self.written))
    }
}

async fn blocking<T, F>(work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// A file in the folder for temporary ones that only we can open, and then nobody any more.
fn nameless_file() -> io::Result<File> {
    loop {
        let mut number = [0; 8];
        rand::fill(&mut number).map_err(|_| io::Error::other("no randomness"))?;
        let name = format!("doorward-{:016x}", u64::from_ne_bytes(number));
        let path = std::env::temp_dir().join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        match options.open(&path) {
            Ok(file) => {
                fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// What is left to be sent of a kept body.
struct Reader {
    left: Kept,
    /// How much of the file has been read.
    at: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Reader {
    fn poll_file(&mut self, task: &mut TaskContext<'_>) -> Poll<io::Result<Bytes>> {
        let size = usize::try_from(self.left.on_disk).map_or(BLOCK, |left| left.min(BLOCK));
        let Some(file) = self.left.file.as_ref().filter(|_| size > 0) else {
            return Poll::Ready(Ok(Bytes::new()));
        };
        let at = self.at;
        let reading = self.reading.get_or_insert_with(|| {
            let file = Arc::clone(file);
            spawn_blocking(move || {
                let mut block = vec![0; size];
                file.read_exact_at(&mut block, at)?;
                Ok(Bytes::from(block))
            })
        });
        let read = ready!(Pin::new(reading).poll(task)).map_err(io::Error::other).flatten();
        self.reading = None;
        if let Ok(block) = &read {
            self.at += block.len() as u64;
            self.left.on_disk -= block.len() as u64;
        }
        Poll::Ready(read)
    }
}

impl HttpBody for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if !this.left.memory.is_empty() {
            let memory = std::mem::take(&mut this.left.memory);
            return Poll::Ready(Some(Ok(Frame::data(memory))));
        }
        match ready!(this.poll_file(task)) {
            Ok(block) if block.is_empty() => {
                Poll::Ready(this.left.trailers.take().map(|map| Ok(Frame::trailers(map))))
            }
            Ok(block) => Poll::Ready(Some(Ok(Frame::data(block)))),
            Err(error) => Poll::Ready(Some(Err(BodyError::Source(Box::new(error))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.length() == 0 && self.left.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.left.has_trailers() {
            // With a length there would be no place for them in HTTP/1.1.
            return SizeHint::default();
        }
        SizeHint::with_exact(self.left.length())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    const SMALL: Limits = Limits { memory: 10, most: None };

    fn pieces(pieces: Vec<Vec<u8>>) -> Body {
        let frames = pieces.into_iter().map(|piece| Ok(Frame::data(Bytes::from(piece))));
        Body::boxed(StreamBody::new(stream::iter(frames)))
    }

    async fn bytes(body: Body) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn what_is_kept_can_be_had_again_and_again() {
        for (count, size) in [(0, 0), (1, 5), (2, 5), (3, 5), (7, 50_000), (3, 300_000)] {
            let parts: Vec<Vec<u8>> = (0..count).map(|at| vec![at; size]).collect();
            let whole = parts.concat();
            let kept = Kept::read(pieces(parts), SMALL, None).await.unwrap();
            assert_eq!(kept.length(), whole.len() as u64);
            assert_eq!(kept.file.is_some(), whole.len() > 10);
            for _ in 0..3 {
                let body = kept.body();
                assert_eq!(body.size_hint().exact(), Some(whole.len() as u64));
                assert_eq!(bytes(body).await, whole);
            }
        }
    }

    #[tokio::test]
    async fn two_readers_do_not_disturb_each_other() {
        let kept = Kept::read(pieces(vec![vec![7; 400_000]]), SMALL, None).await.unwrap();
        let (mut one, mut other) = (kept.body(), kept.body());
        drop(kept);
        let mut read = 0;
        while let Some(frame) = one.frame().await {
            read += frame.unwrap().into_data().unwrap().len();
            other.frame().await.unwrap().unwrap();
        }
        assert_eq!(read, 400_000);
        assert!(other.frame().await.is_none());
    }

    #[tokio::test]
    async fn no_more_than_the_limit() {
        let limits = Limits { memory: 4, most: Some(10) };
        for (parts, fits) in [(vec![5, 5], true), (vec![5, 6], false), (vec![11], false)] {
            let body = pieces(parts.into_iter().map(|size| vec![b'x'; size]).collect());
            let kept = Kept::read(body, limits, None).await;
            assert_eq!(kept.is_ok(), fits);
        }
        // A length that is known is not read.
        let kept = Kept::read(Body::from(Bytes::from_static(b"01234567890")), limits, None).await;
        assert!(matches!(kept, Err(Failure::TooLarge)));
    }

    #[tokio::test]
    async fn trailers_follow_the_bytes() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [Ok(Frame::data(Bytes::from_static(b"text"))), Ok(Frame::trailers(trailers))];
        let body = Body::boxed(StreamBody::new(stream::iter(frames)));
        let kept = Kept::read(body, SMALL, None).await.unwrap();
        assert!(kept.has_trailers());
        let collected = kept.body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(collected.to_bytes(), "text");
    }

    #[tokio::test]
    async fn a_source_that_fails_is_no_body() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"text"))), Err(BodyError::Timeout)];
        let body = Body::boxed(StreamBody::new(stream::iter(frames)));
        let failure = Kept::read(body, SMALL, None).await.err().unwrap();
        assert!(matches!(failure, Failure::Source(BodyError::Timeout)));
    }

    #[test]
    fn the_file_has_no_name() {
        let file = nameless_file().unwrap();
        file.write_all_at(b"secret", 0).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&file.metadata().unwrap()), 0);
    }
}
