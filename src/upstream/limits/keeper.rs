//! The first step of a router's chain, or of a service's: it sees to the limits that its owner has set.
//!
//! It stands in front of every middleware, so what reads a body reads a limited one. Routers below each other share one
//! watch over the client's body and the total time, which the innermost has the last word about.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use http::StatusCode;
use http_body::Body as _;
use tokio::time::Instant;

use super::Limits;
use super::body::{Received, delivered_by};
use crate::exchange::error::Later;
use crate::exchange::{
    Body, Context, Middleware, Next, Outcome, Protocol, ProxyError, Request, Response,
    ResponseFuture,
};
use crate::wire::LazySleep;

/// Sees to the limits of a router or of a service.
pub struct Keeper {
    limits: Limits,
    owner: Owner,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Router,
    Service,
}

impl Keeper {
    /// For a router.
    pub fn of_router(limits: Limits) -> Self {
        Self { limits, owner: Owner::Router }
    }

    /// For a service.
    pub fn of_service(limits: Limits) -> Self {
        Self { limits, owner: Owner::Service }
    }
}

/// In the extensions of a request: what it is watched for.
#[derive(Clone, Default)]
pub(in crate::upstream) struct Watch {
    routers: Option<Arc<Meter>>,
    /// First byte and pauses of answers, which who talks to the server sees to.
    pub(in crate::upstream) answer: AnswerLimits,
    pub(in crate::upstream) later: Later,
}

/// The part of limits that is kept where the server's bytes come in.
#[derive(Clone, Copy, Default)]
pub(in crate::upstream) struct AnswerLimits {
    pub(in crate::upstream) first_byte: super::Limit<std::time::Duration>,
    pub(in crate::upstream) idle: super::Limit<std::time::Duration>,
}

impl Watch {
    /// Whether a body is announced as longer than routers allow. What reads bodies on the way sees it as well; whoever
    /// is about to connect to a server looks first.
    pub(in crate::upstream) fn refuses(&self, body: &Body) -> bool {
        let most = self.routers.as_ref().and_then(|meter| meter.limits().max_bytes.flatten());
        most.is_some_and(|most| body.size_hint().lower() > most)
    }
}

impl AnswerLimits {
    fn say(&mut self, limits: &Limits) {
        self.first_byte = limits.first_byte.or(self.first_byte);
        self.idle = limits.idle.or(self.idle);
    }
}

/// Limits in force for one exchange, which routers below may change.
pub(super) struct Meter {
    limits: Mutex<Limits>,
    start: Instant,
}

impl Meter {
    pub(super) fn new(limits: Limits, start: Instant) -> Self {
        Self { limits: Mutex::new(limits), start }
    }

    pub(super) fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, limits: Limits) {
        let mut said = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        *said = limits.or(*said);
    }

    fn until(&self) -> Option<Instant> {
        Some(self.start + self.limits().total.flatten()?)
    }
}

impl Middleware for Keeper {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        mut request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let mut limits = self.limits.for_request(cx, &request);
        let above = request.extensions().get::<Watch>().and_then(|watch| watch.routers.clone());
        match (&above, self.owner) {
            (Some(above), Owner::Router) => above.say(limits),
            (Some(above), Owner::Service) => limits = limits.without(above.limits()),
            (None, _) => {}
        }
        if limits.is_empty() {
            return next.run(cx, request);
        }
        let watch = request.extensions_mut().get_or_insert_default::<Watch>();
        watch.answer.say(&limits);
        let later = Arc::clone(&watch.later);
        let start = match self.owner {
            Owner::Router if above.is_some() => return next.run(cx, request),
            Owner::Service if limits.are_of_answers() => return next.run(cx, request),
            Owner::Router => cx.start,
            Owner::Service => Instant::now(),
        };
        let meter = Arc::new(Meter::new(limits, start));
        if self.owner == Owner::Router {
            watch.routers = Some(Arc::clone(&meter));
        }
        Box::pin(keep(meter, later, cx, request, next))
    }
}

impl Limits {
    /// What is left of them for this request: a rate that nobody asked for is for bodies that could be slow for ever.
    fn for_request(self, cx: &Context, request: &Request) -> Self {
        let spared = self.has_default_rate()
            && (request.body().is_end_stream()
                || cx.connection.entry_point.slow_bodies
                || Protocol::of_request(request.headers()) == Protocol::Grpc);
        if spared { Self { rate: None, ..self } } else { self }
    }
}

/// Runs the rest of the chain within the limits.
async fn keep(
    meter: Arc<Meter>,
    later: Later,
    cx: &Context,
    request: Request,
    next: Next<'_>,
) -> Response {
    let request = request.map(|body| Received::body(body, &meter, &later));
    let mut answer = next.run(cx, request);
    let mut timer = LazySleep::default();
    let answered = poll_fn(|task| match answer.as_mut().poll(task) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => timer.poll(task, meter.until(), None).map(|()| None),
    });
    let Some(mut response) = answered.await else {
        // Whatever is being done for it ends here.
        drop(answer);
        return ProxyError::TotalTimeout.into_response();
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    let until = meter.until();
    if let Some(until) = until {
        let body = std::mem::take(response.body_mut());
        *response.body_mut() = delivered_by(body, until, &later);
    }
    let outcome = Outcome::of(&mut response);
    outcome.until = [outcome.until, until].into_iter().flatten().min();
    outcome.later = Some(later);
    response
}
