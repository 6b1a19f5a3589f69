//! Answers that no client gets to see: of mirrors, and of a main service that another stands in for.
//!
//! Their services count them all the same, so that metrics show what services did.

use std::pin::Pin;

use http::{HeaderMap, Method};
use http_body::Body as _;
use tokio::time::Instant;

use crate::exchange::{
    BodyEnd, Context, Ending, Observation, Outcome, Protocol, Request, Response,
};

/// What is to be remembered of a request whose answer nobody sees.
pub(super) struct Unseen {
    method: Method,
    protocol: Protocol,
    request_bytes: u64,
}

impl Unseen {
    /// Looks at a request before it is sent.
    pub(super) fn of(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            protocol: Protocol::of_request(request.headers()),
            request_bytes: request.body().size_hint().lower(),
        }
    }

    /// Lets go of an answer that is not wanted.
    pub(super) fn dropped(&self, cx: &Context, response: Response) {
        self.tell(cx, response, BodyEnd { ending: Ending::Dropped, bytes: 0 });
    }

    /// Reads an answer to its end and forgets it.
    pub(super) async fn read(&self, cx: &Context, mut response: Response) {
        let ending = loop {
            let body = response.body_mut();
            let frame = std::future::poll_fn(|task| Pin::new(&mut *body).poll_frame(task));
            match frame.await {
                None => break Ending::Complete,
                Some(Ok(_)) => {}
                Some(Err(_)) => break Ending::Failed,
            }
        };
        let bytes = response.body().delivered();
        self.tell(cx, response, BodyEnd { ending, bytes });
    }

    fn tell(&self, cx: &Context, mut response: Response, end: BodyEnd) {
        let Some(outcome) = response.extensions_mut().remove::<Outcome>() else { return };
        let status = response.status();
        let grpc_status = response.headers().get("grpc-status");
        let observation = Observation {
            status,
            grpc_status: grpc_status.and_then(|value| value.to_str().ok()?.parse().ok()),
            method: &self.method,
            headers: &HeaderMap::new(),
            protocol: self.protocol,
            tls: cx.connection.tls.as_ref(),
            duration: outcome.service_start.unwrap_or_else(Instant::now).elapsed(),
            request_bytes: self.request_bytes,
            response_bytes: end.bytes,
            ending: end.ending,
            error: outcome.error,
        };
        // Its connection may serve others before anybody is told.
        drop(response);
        for observer in &outcome.observers {
            observer.observe(&observation);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::exchange::{Body, Observer};
    use crate::service::tests::context;

    type Line = (u16, String, u64, u64, Ending);

    #[derive(Default)]
    struct Seen(Mutex<Vec<Line>>);

    impl Observer for Seen {
        fn observe(&self, exchange: &Observation<'_>) {
            self.0.lock().unwrap().push((
                exchange.status.as_u16(),
                exchange.method.to_string(),
                exchange.request_bytes,
                exchange.response_bytes,
                exchange.ending,
            ));
        }
    }

    #[tokio::test]
    async fn whoever_counts_is_told() {
        let seen = Arc::new(Seen::default());
        let mut request = Request::new(Body::from_static(b"four"));
        *request.method_mut() = Method::PUT;
        let unseen = Unseen::of(&request);
        let answer = || {
            let mut response = Response::new(Body::from_static(b"hello"));
            Outcome::of(&mut response).observers.push(Arc::<Seen>::clone(&seen));
            response
        };
        unseen.dropped(&context(), answer());
        unseen.read(&context(), answer()).await;
        let put = || "PUT".to_owned();
        assert_eq!(
            *seen.0.lock().unwrap(),
            [(200, put(), 4, 0, Ending::Dropped), (200, put(), 4, 5, Ending::Complete)]
        );
        // Who left no word is told nothing.
        unseen.dropped(&context(), Response::new(Body::empty()));
        assert_eq!(seen.0.lock().unwrap().len(), 2);
    }
}
