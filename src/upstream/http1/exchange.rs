//! One request and its answer: sends and reads at the same time, until the head of the answer is there.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{CONNECTION, HeaderMap};
use http::{Method, StatusCode};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use super::connection::Connection;
use super::download::{Download, Half, Source};
use super::encode::{Sending, Stopped};
use super::upload_rest::upload_rest;
use crate::exchange::{Body, Response};
use crate::tls::PrefixedStream;
use crate::upstream::connect::Stream;
use crate::upstream::owner::{Owner, is_bound_by};
use crate::upstream::proxy::AbsoluteForm;
use crate::upstream::upload::Upload;
use crate::wire::{FinalHead, HeadLimits, Part, ResponseDecoder, Scanned, response_fields};

/// Bytes that are read at once: a TLS record.
const SCRATCH: usize = 16 * 1024;

thread_local! {
    /// Where a worker reads into before it knows how much there is: what waits holds no buffer.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Reads once, and gives what was read to `take`; an empty slice is the end of the stream.
pub(super) fn poll_read_with<S: AsyncRead + Unpin, T>(
    cx: &mut Context<'_>,
    stream: &mut S,
    take: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<T>> {
    READ.with_borrow_mut(|scratch| {
        let mut buf = ReadBuf::new(scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(take(buf.filled())))
    })
}

/// An answer.
pub(in crate::upstream) struct Answer {
    pub(in crate::upstream) response: Response,
    /// When its head was there.
    pub(in crate::upstream) at: Instant,
    /// The connection, when the server has switched protocols.
    pub(in crate::upstream) switched: Option<Box<PrefixedStream<Stream>>>,
    /// Set when it made its connection somebody's own, for whoever that is. Where nobody is, it is closed.
    pub(in crate::upstream) owner: Option<Arc<Owner>>,
}

/// Why there is no answer.
pub(in crate::upstream) struct Unanswered {
    pub(in crate::upstream) failure: Failure,
    /// Whether a byte of the request may have reached the server.
    pub(in crate::upstream) written: bool,
    /// Whether a byte of an answer has come.
    pub(in crate::upstream) replied: bool,
    /// Whether the request is as it was: nothing of its body is gone.
    pub(in crate::upstream) intact: bool,
}

/// What an exchange fails for.
#[derive(Debug, thiserror::Error)]
pub(in crate::upstream) enum Failure {
    /// The connection.
    #[error("the connection failed: {0}")]
    Connection(io::Error),
    /// What the server says is not HTTP.
    #[error("the answer is malformed: {0}")]
    Invalid(&'static str),
    /// The request's body.
    #[error("the request's body failed, or is not what was announced")]
    Upload,
}

/// Sends `request` over `connection` and waits for the head of the answer. `repeatable` is set when it may be sent
/// again should the connection turn out to be closed. What is left of the body when the head has come is taken out of
/// the request, and sent while the answer is read.
pub(in crate::upstream) async fn exchange(
    mut connection: Box<Connection>,
    request: &mut http::Request<Upload>,
    absolute: Option<&AbsoluteForm>,
    upgrade: bool,
    repeatable: bool,
) -> Result<Answer, Unanswered> {
    // What comes before the request must not be taken for its answer, however busy this task was.
    let surplus = unconstrained(poll_fn(|cx| {
        Poll::Ready(match connection.poll_before_request(cx, repeatable) {
            Poll::Ready(error) => Some(error),
            Poll::Pending => None,
        })
    }));
    if let Some(error) = surplus.await {
        return Err(Unanswered {
            failure: Failure::Connection(error),
            written: false,
            replied: false,
            intact: true,
        });
    }
    let mut sending = Sending::new(request, absolute);
    let mut receiving = Receiving::new(request.method(), upgrade);
    let received = poll_fn(|cx| {
        match sending.poll(cx, &mut connection.stream, request.body_mut()) {
            Poll::Ready(Err(Stopped::Connection(error))) => {
                return Poll::Ready(Err(Failure::Connection(error)));
            }
            Poll::Ready(Err(Stopped::Body)) => return Poll::Ready(Err(Failure::Upload)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        receiving.poll(cx, &mut connection.stream, request.body())
    })
    .await;
    match received {
        Ok(received) => Ok(received.answer(connection, sending, request.body_mut(), upgrade)),
        Err(failure) => Err(Unanswered {
            failure,
            written: sending.is_written(),
            replied: receiving.replied,
            intact: !sending.took_body(),
        }),
    }
}

/// The head of an answer being read.
struct Receiving {
    decoder: ResponseDecoder,
    /// An incomplete head.
    held: BytesMut,
    replied: bool,
}

/// The head of an answer, and what was read behind it.
struct Received {
    head: FinalHead,
    fields: HeaderMap,
    behind: Bytes,
}

impl Receiving {
    fn new(method: &Method, upgrade: bool) -> Self {
        let decoder = ResponseDecoder::new(method, upgrade, HeadLimits::default());
        Self { decoder, held: BytesMut::new(), replied: false }
    }

    fn poll<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        upload: &Upload,
    ) -> Poll<Result<Received, Failure>> {
        loop {
            let read = ready!(poll_read_with(cx, stream, |read| self.take(read, upload)));
            if let Some(received) = read.map_err(Failure::Connection)?? {
                return Poll::Ready(Ok(received));
            }
        }
    }

    fn take(&mut self, read: &[u8], upload: &Upload) -> Result<Option<Received>, Failure> {
        if read.is_empty() {
            let reason =
                if self.replied { "closed inside the answer" } else { "closed unanswered" };
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, reason);
            return Err(Failure::Connection(error));
        }
        self.replied = true;
        if self.held.is_empty() {
            let mut at = 0;
            while let Some(rest @ [_, ..]) = read.get(at..) {
                match self.scan(rest, upload)? {
                    Step::Skip(len) => at += len,
                    Step::Wait => {
                        self.held.extend_from_slice(rest);
                        break;
                    }
                    Step::Done(head) => {
                        return Ok(Some(Received::new(head, Bytes::copy_from_slice(rest))));
                    }
                }
            }
            return Ok(None);
        }
        self.held.extend_from_slice(read);
        while !self.held.is_empty() {
            let bytes = std::mem::take(&mut self.held);
            match self.scan(&bytes, upload) {
                Ok(Step::Skip(len)) => {
                    self.held = bytes;
                    self.held.advance(len);
                }
                Ok(Step::Wait) => {
                    self.held = bytes;
                    break;
                }
                Ok(Step::Done(head)) => return Ok(Some(Received::new(head, bytes.freeze()))),
                Err(failure) => return Err(failure),
            }
        }
        Ok(None)
    }

    fn scan(&mut self, data: &[u8], upload: &Upload) -> Result<Step, Failure> {
        match self.decoder.scan(data).map_err(Failure::Invalid)? {
            Scanned::Partial => Ok(Step::Wait),
            Scanned::Interim { len, status } => {
                if status == StatusCode::CONTINUE
                    && let Some(state) = upload.state()
                {
                    state.release();
                }
                Ok(Step::Skip(len))
            }
            Scanned::Final(head) => Ok(Step::Done(head)),
        }
    }
}

enum Step {
    /// An interim head of so many bytes.
    Skip(usize),
    Wait,
    Done(FinalHead),
}

impl Received {
    /// `read` starts with the head.
    fn new(head: FinalHead, mut read: Bytes) -> Self {
        let fields = response_fields(&read.split_to(head.len.min(read.len())));
        Self { head, fields, behind: read }
    }

    /// Whether the server keeps the connection open (RFC 9112, 9.3).
    fn is_persistent(&self) -> bool {
        let says = |what: &str| {
            self.fields.get_all(CONNECTION).iter().any(|line| {
                line.as_bytes()
                    .split(|&byte| byte == b',')
                    .any(|token| token.trim_ascii().eq_ignore_ascii_case(what.as_bytes()))
            })
        };
        !says("close") && (!self.head.http10 || says("keep-alive"))
    }

    fn answer(
        self,
        mut connection: Box<Connection>,
        sending: Sending,
        upload: &mut Upload,
        upgrade: bool,
    ) -> Answer {
        let bound = is_bound_by(&self.fields);
        let owner = if bound { connection.become_owned() } else { None };
        Answer { owner, ..self.answer_over(connection, sending, upload, upgrade) }
    }

    fn answer_over(
        self,
        connection: Box<Connection>,
        sending: Sending,
        upload: &mut Upload,
        upgrade: bool,
    ) -> Answer {
        let at = Instant::now();
        let persistent = self.is_persistent();
        let Self { head, fields, mut behind } = self;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = head.status;
        *response.headers_mut() = fields;
        if upgrade && head.status == StatusCode::SWITCHING_PROTOCOLS {
            let stream = PrefixedStream::new(behind, connection.stream);
            return Answer { response, at, switched: Some(Box::new(stream)), owner: None };
        }
        let mut body = head.body;
        if sending.is_over() {
            if body.left().is_some_and(|left| left == behind.len() as u64) {
                // Most answers come in one piece.
                if persistent {
                    connection.release(at);
                }
                *response.body_mut() = Body::from(behind);
                return Answer { response, at, switched: None, owner: None };
            }
            let source = Source::Whole { connection, persistent };
            *response.body_mut() = Download::body(source, body, behind);
            return Answer { response, at, switched: None, owner: None };
        }
        // The rest of the request is sent as long as the answer goes on, and the connection not used again.
        let upload = std::mem::replace(upload, Upload::empty());
        let Some(state) = upload.state().cloned() else {
            return Answer { response, at, switched: None, owner: None };
        };
        if body.left().is_some_and(|left| left <= behind.len() as u64) {
            if let Ok(Part::Data(data)) = body.take(&mut behind) {
                *response.body_mut() = Body::from(data);
            }
            return Answer { response, at, switched: None, owner: None };
        }
        let (read, write) = tokio::io::split(connection.stream);
        let writes = tokio::task::spawn_local(upload_rest(sending, write, upload)).abort_handle();
        let half = Half { stream: read, upload: state, writes };
        *response.body_mut() = Download::body(Source::Half(half), body, behind);
        Answer { response, at, switched: None, owner: None }
    }
}
