//! `inFlightReq`: so many requests of one source at a time. A request is in flight until its
//! response's body, or its tunnel, is over.

mod open;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use self::open::Open;
use super::source::{Criterion, Fallback, SourceCriterionConfig};
use super::{Build, BuildContext};
use crate::exchange::{
    Body, BodyEnd, Context, Middleware, Next, Request, Response, ResponseFuture, on_end, ready,
};
use crate::values::BuildError;

/// Options of `inFlightReq`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InFlightReqConfig {
    /// Requests of one source at a time. Zero refuses all.
    pub amount: i64,
    /// Whom requests count for. Default: the host of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_criterion: Option<SourceCriterionConfig>,
}

impl Build for InFlightReqConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        if self.amount <= 0 {
            cx.warnings
                .push(BuildError::at("amount", "no request passes: `amount` is not above 0"));
        }
        let criterion = Criterion::build(self.source_criterion.as_ref(), Fallback::Host, cx)?;
        let settings = format!("{} {:?}", self.amount, self.source_criterion);
        Ok(Arc::new(InFlightReq {
            amount: u64::try_from(self.amount).unwrap_or_default(),
            criterion,
            refusal: Bytes::from(format!("max connections reached: {}", self.amount)),
            open: cx.carry_over(&settings, Open::default),
        }))
    }
}

struct InFlightReq {
    amount: u64,
    criterion: Criterion,
    refusal: Bytes,
    open: Arc<Open>,
}

impl Middleware for InFlightReq {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let source = self.criterion.source(cx, request.headers());
        let Some(slot) = self.open.enter(source, self.amount) else {
            let mut response = Response::new(Body::from(self.refusal.clone()));
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            return ready(response);
        };
        Box::pin(async move {
            let mut response = next.run(cx, request).await;
            on_end(&mut response, move |_: BodyEnd, _: Option<&HeaderMap>| drop(slot));
            response
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Ending, Tunnel};
    use crate::middleware::testing::{Bench, Setting, body, build, get, with};

    fn config(amount: i64) -> InFlightReqConfig {
        InFlightReqConfig { amount, source_criterion: None }
    }

    #[tokio::test]
    async fn a_slot_is_free_when_the_body_is_over() {
        let bench = Bench::answering(vec![build(&config(2)).unwrap()], |_, _| {
            Response::new(Body::from_static(b"hello"))
        });
        let first = bench.send(get("/")).await;
        let second = bench.send(get("/")).await;
        let refused = bench.send(get("/")).await;
        assert_eq!(refused.status(), 429);
        assert!(refused.headers().is_empty());
        assert_eq!(body(refused).await, "max connections reached: 2");
        assert_eq!(body(first).await, "hello");
        let third = bench.send(get("/")).await;
        assert_eq!(third.status(), 200);
        drop(second);
        assert_eq!(bench.status(get("/")).await, 200);
        drop(third);
    }

    #[tokio::test]
    async fn a_dropped_request_frees_its_slot() {
        let bench = Bench::waiting(vec![build(&config(1)).unwrap()], |call, _| {
            Box::pin(async move {
                if call == 1 {
                    std::future::pending::<()>().await;
                }
                Response::new(Body::empty())
            })
        });
        let mut stuck = bench.send(get("/"));
        let first_poll = std::future::poll_fn(|task| {
            std::task::Poll::Ready(stuck.as_mut().poll(task).is_pending())
        });
        assert!(first_poll.await);
        assert_eq!(bench.status(get("/")).await, 429);
        drop(stuck);
        assert_eq!(bench.status(get("/")).await, 200);
    }

    #[tokio::test]
    async fn a_tunnel_holds_its_slot() {
        let tunnel = Tunnel::default();
        let shared = tunnel.clone();
        let bench = Bench::answering(vec![build(&config(1)).unwrap()], move |_, _| {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.extensions_mut().insert(shared.clone());
            response
        });
        drop(bench.send(get("/")).await);
        assert_eq!(bench.status(get("/")).await, 429);
        tunnel.finish(BodyEnd { ending: Ending::Complete, bytes: 0 });
        assert_eq!(bench.status(get("/")).await, 101);
    }

    #[tokio::test]
    async fn sources_are_counted_apart_and_a_reload_keeps_the_count() {
        let setting = Setting::default();
        let config = InFlightReqConfig {
            amount: 1,
            source_criterion: Some(SourceCriterionConfig {
                request_header_name: "X-Key".into(),
                ..SourceCriterionConfig::default()
            }),
        };
        let old = Bench::new(vec![setting.build(&config).unwrap().0]);
        let new = Bench::new(vec![setting.build(&config).unwrap().0]);
        let held = old.send(with(get("/"), "x-key", "a")).await;
        assert_eq!(new.status(with(get("/"), "x-key", "a")).await, 429);
        assert_eq!(new.status(with(get("/"), "x-key", "b")).await, 200);
        drop(held);
        assert_eq!(new.status(with(get("/"), "x-key", "a")).await, 200);
    }

    #[tokio::test]
    async fn an_amount_of_zero_refuses_all_and_says_so() {
        let (middleware, warnings) = Setting::default().build(&config(0)).unwrap();
        assert_eq!(warnings.len(), 1);
        assert_eq!(Bench::new(vec![middleware]).status(get("/")).await, 429);
    }
}
