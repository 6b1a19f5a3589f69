//! A body that is compressed while it passes.
//!
//! Whoever waits for bytes gets them: when the source pauses, the encoder is flushed. Whoever shares
//! the worker gets his turn: after a slice of work the body steps back.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use tokio::time::Sleep;

use super::accept::Encoding;
use super::encoder::Encoder;
use crate::exchange::BodyError;
use crate::middleware::at_hand::Begun;

/// Bytes that are compressed in one go: a third of a millisecond. Brotli collects some of them first,
/// and then needs two or three.
const SLICE: usize = 32 * 1024;

/// How long a body of known length may pause before what was written of it is flushed. Traefik's
/// reverse proxy flushes as often; each flush costs a little of what compressing gains.
const PATIENCE: Duration = Duration::from_millis(100);

/// The compressed form of a body.
pub(super) struct Compressed {
    source: Begun,
    encoding: Encoding,
    /// Made when there is something to compress.
    encoder: Option<Encoder>,
    /// Read and not compressed yet.
    waiting: Bytes,
    /// Something was compressed that no flush has brought out.
    unflushed: bool,
    /// Flush at every pause, and not only at long ones.
    prompt: bool,
    patience: Option<Pin<Box<Sleep>>>,
    /// Bytes compressed since the last step back.
    work: usize,
    trailers: Option<HeaderMap>,
    over: bool,
}

impl Compressed {
    /// Compresses `source`; `prompt` says that whoever reads it may wait for every piece.
    pub(super) fn new(source: Begun, encoding: Encoding, prompt: bool) -> Self {
        Self {
            source,
            encoding,
            encoder: None,
            waiting: Bytes::new(),
            unflushed: false,
            prompt,
            patience: None,
            work: 0,
            trailers: None,
            over: false,
        }
    }

    /// Compresses one slice of what is waiting.
    fn compress(&mut self) -> std::io::Result<Bytes> {
        let size = self.waiting.len().min(SLICE);
        let slice = self.waiting.split_to(size);
        self.work += size;
        self.unflushed = true;
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => none.insert(Encoder::new(self.encoding)?),
        };
        encoder.write(&slice)
    }

    fn flush(&mut self) -> std::io::Result<Bytes> {
        self.unflushed = false;
        self.patience = None;
        self.encoder.as_mut().map_or(Ok(Bytes::new()), Encoder::flush)
    }

    /// Ends the stream. An empty body becomes a stream of nothing, for the head has promised one.
    fn finish(&mut self) -> std::io::Result<Bytes> {
        self.over = true;
        match self.encoder.take() {
            Some(encoder) => encoder.finish(),
            None => Encoder::new(self.encoding)?.finish(),
        }
    }

    /// Ready when the pause of the source is one to flush in.
    fn poll_pause(&mut self, task: &mut TaskContext<'_>) -> Poll<()> {
        if self.prompt {
            return Poll::Ready(());
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        patience.as_mut().poll(task)
    }
}

impl HttpBody for Compressed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if this.over {
                return Poll::Ready(this.trailers.take().map(|map| Ok(Frame::trailers(map))));
            }
            let written = if this.waiting.is_empty() {
                match Pin::new(&mut this.source).poll_frame(task) {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => {
                            this.waiting = data;
                            continue;
                        }
                        Err(frame) => {
                            this.trailers = frame.into_trailers().ok();
                            this.finish()
                        }
                    },
                    Poll::Ready(Some(Err(error))) => {
                        this.over = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                    Poll::Ready(None) => this.finish(),
                    Poll::Pending => {
                        this.work = 0;
                        if !this.unflushed {
                            return Poll::Pending;
                        }
                        ready!(this.poll_pause(task));
                        this.flush()
                    }
                }
            } else if this.work >= SLICE {
                this.work = 0;
                task.waker().wake_by_ref();
                return Poll::Pending;
            } else {
                this.compress()
            };
            match written {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Err(error) => {
                    this.over = true;
                    return Poll::Ready(Some(Err(BodyError::Source(Box::new(error)))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::super::encoder::decode;
    use super::*;
    use crate::exchange::Body;

    const ALL: [Encoding; 3] = [Encoding::Gzip, Encoding::Brotli, Encoding::Zstd];

    type Frames = mpsc::Sender<Result<Frame<Bytes>, BodyError>>;

    /// A body that is fed by hand.
    fn fed(encoding: Encoding, prompt: bool) -> (Frames, Compressed) {
        let (sender, receiver) = mpsc::channel(8);
        let frames = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|frame| (frame, receiver))
        });
        let source = Begun::nothing_of(Body::boxed(StreamBody::new(Box::pin(frames))));
        (sender, Compressed::new(source, encoding, prompt))
    }

    async fn feed(sender: &Frames, text: &'static str) {
        sender.send(Ok(Frame::data(Bytes::from_static(text.as_bytes())))).await.unwrap();
    }

    async fn next(body: &mut Compressed) -> Bytes {
        body.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test]
    async fn each_event_comes_through_before_the_next_is_there() {
        for encoding in ALL {
            let (sender, mut body) = fed(encoding, true);
            let mut sent = Vec::new();
            let mut told = String::new();
            for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
                feed(&sender, event).await;
                told += event;
                while decode::part(encoding, &sent) != told.as_bytes() {
                    sent.extend_from_slice(&next(&mut body).await);
                }
            }
            drop(sender);
            sent.extend_from_slice(&body.collect().await.unwrap().to_bytes());
            assert_eq!(decode::whole(encoding, &sent).unwrap(), told.as_bytes(), "{encoding:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_known_length_is_flushed_in_long_pauses_only() {
        let (sender, mut body) = fed(Encoding::Brotli, false);
        feed(&sender, "a little").await;
        let start = Instant::now();
        let first = next(&mut body).await;
        assert_eq!(start.elapsed(), PATIENCE);
        assert_eq!(decode::part(Encoding::Brotli, &first), b"a little");
        feed(&sender, " more").await;
        drop(sender);
        let rest = body.collect().await.unwrap().to_bytes();
        let whole = [first, rest].concat();
        assert_eq!(decode::whole(Encoding::Brotli, &whole).unwrap(), b"a little more");
    }

    #[tokio::test]
    async fn a_large_piece_is_compressed_slice_by_slice() {
        let mut noise = vec![0_u8; 10 * SLICE];
        aws_lc_rs::rand::fill(&mut noise).unwrap();
        let (sender, body) = fed(Encoding::Zstd, true);
        sender.send(Ok(Frame::data(Bytes::from(noise.clone())))).await.unwrap();
        drop(sender);
        let mut body = std::pin::pin!(body);
        let (mut sent, mut steps_back) = (Vec::new(), 0);
        loop {
            let frame = std::future::poll_fn(|task| Poll::Ready(body.as_mut().poll_frame(task)));
            match frame.await {
                Poll::Pending => {
                    steps_back += 1;
                    tokio::task::yield_now().await;
                }
                Poll::Ready(Some(frame)) => {
                    sent.extend_from_slice(&frame.unwrap().into_data().unwrap());
                }
                Poll::Ready(None) => break,
            }
        }
        assert!(steps_back >= 9, "{steps_back}");
        assert_eq!(decode::whole(Encoding::Zstd, &sent).unwrap(), noise);
    }

    #[tokio::test]
    async fn trailers_and_failures_come_through() {
        let (sender, body) = fed(Encoding::Gzip, true);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        feed(&sender, "text").await;
        sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
        let collected = body.collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "7");
        let sent = collected.to_bytes();
        assert_eq!(decode::whole(Encoding::Gzip, &sent).unwrap(), b"text");

        let (sender, body) = fed(Encoding::Gzip, true);
        feed(&sender, "text").await;
        sender.send(Err(BodyError::Timeout)).await.unwrap();
        assert!(matches!(body.collect().await, Err(BodyError::Timeout)));
    }

    #[tokio::test]
    async fn nothing_becomes_a_stream_of_nothing() {
        for encoding in ALL {
            let (sender, body) = fed(encoding, true);
            drop(sender);
            let sent = body.collect().await.unwrap().to_bytes();
            assert_eq!(decode::whole(encoding, &sent).unwrap(), b"");
        }
    }
}
