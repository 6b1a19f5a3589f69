//! The body of an answer, where memory has a limit: what the client has not taken yet is counted, and while memory is
//! scarce nobody is given more before that is taken.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::exchange::memory::{self, Held};
use crate::exchange::{Body, BodyError};

/// Less than this is not worth counting: neither in one piece nor in all.
const SMALL: usize = 2 << 10;

/// See the module.
pub(in crate::entry_point) struct Weighed {
    body: Body,
    held: Arc<Held>,
}

impl Weighed {
    /// Whether a body is to be weighed.
    pub(in crate::entry_point) fn wants(body: &Body) -> bool {
        let upper = body.size_hint().upper();
        memory::is_limited()
            && !body.is_end_stream()
            && upper.is_none_or(|upper| upper > SMALL as u64)
    }

    /// Counts `body` for `held`.
    pub(in crate::entry_point) fn body(body: Body, held: Arc<Held>) -> Body {
        Body::boxed(Self { body, held })
    }
}

impl HttpBody for Weighed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if memory::is_scarce() && !this.held.has_taken_all(cx.waker()) {
            return Poll::Pending;
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let weigh = |bytes: Bytes| if bytes.len() > SMALL { this.held.give(bytes) } else { bytes };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(weigh))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
