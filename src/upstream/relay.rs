//! The body of an HTTP/2 answer on its way to the client, and what must happen when it is over.
//!
//! An answer that is over while its request's body still goes on ends the upload: the stream is
//! reset.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::StreamPermit;
use super::upload::UploadState;
use crate::exchange::{Body, BodyError};

/// What happens when an answer is over: on drop.
#[derive(Default)]
pub(super) struct AtEnd {
    pub(super) upload: Option<Arc<UploadState>>,
    /// The stream that is counted until the end.
    pub(super) permit: Option<StreamPermit>,
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.stop();
        }
    }
}

/// The body of an answer.
pub(super) fn relay(body: Incoming, mut at_end: AtEnd) -> Body {
    if at_end.upload.as_ref().is_some_and(|upload| upload.is_over()) {
        at_end.upload = None;
    }
    if body.is_end_stream() || (at_end.upload.is_none() && at_end.permit.is_none()) {
        return Body::from(body);
    }
    Body::boxed(Relay { body, at_end: Some(at_end) })
}

struct Relay {
    body: Incoming,
    at_end: Option<AtEnd>,
}

impl HttpBody for Relay {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx).map_err(BodyError::Connection);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            this.at_end = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
