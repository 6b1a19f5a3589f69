//! Middlewares and how they follow one another.
//!
//! A middleware that has nothing to do with the response returns `next.run(…)` itself: no
//! allocation and no extra poll. You pay for looking at the response only where you look.

use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;

use super::forwarded::ForwardedForRemoved;
use super::{Context, Handler, Request, ResponseFuture};

/// One step between a router and its service.
pub trait Middleware: Send + Sync {
    /// Answers `request` itself, or lets `next` answer it.
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a>;
}

/// The rest of a chain. `Copy`, so that `retry` can run it again.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    middlewares: &'a [Arc<dyn Middleware>],
    handler: &'a dyn Handler,
}

impl<'a> Next<'a> {
    /// Runs the next middleware, or the handler at the end.
    pub fn run(self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        if let Some((first, middlewares)) = self.middlewares.split_first() {
            return first.handle(cx, request, Next { middlewares, handler: self.handler });
        }
        if let Some(remade) = request.extensions().get::<Remade>() {
            remade.note(&request);
        }
        self.handler.handle(cx, request)
    }
}

/// In the extensions of a request: where is left what the middlewares behind somebody have made of its headers. Whoever
/// asks somebody else on the request's behalf must not show what they have taken away, nor what the client invented.
#[derive(Clone, Default)]
pub struct Remade(Arc<Mutex<(HeaderMap, bool)>>);

impl Remade {
    /// The one of this request, which begins with what it has now.
    pub fn of(request: &mut Request) -> Self {
        let remade = request.extensions_mut().get_or_insert_default::<Self>().clone();
        remade.note(request);
        remade
    }

    /// The headers that the last handler got, or without one those at the beginning, and whether `X-Forwarded-For` must
    /// not be added to them.
    pub fn headers(&self) -> (HeaderMap, bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, request: &Request) {
        let removed = request.extensions().get::<ForwardedForRemoved>().is_some();
        let noted = (request.headers().clone(), removed);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = noted;
    }
}

/// Middlewares in order, and the handler that they lead to.
pub struct Chain {
    middlewares: Box<[Arc<dyn Middleware>]>,
    handler: Arc<dyn Handler>,
}

impl Chain {
    /// A chain that runs `middlewares` in order and ends in `handler`.
    pub fn new(middlewares: Vec<Arc<dyn Middleware>>, handler: Arc<dyn Handler>) -> Self {
        Self { middlewares: middlewares.into_boxed_slice(), handler }
    }

    /// The middlewares, in order.
    pub fn middlewares(&self) -> &[Arc<dyn Middleware>] {
        &self.middlewares
    }

    /// The handler at the end.
    pub fn handler(&self) -> &Arc<dyn Handler> {
        &self.handler
    }
}

impl Handler for Chain {
    fn handle<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        Next { middlewares: &self.middlewares, handler: &*self.handler }.run(cx, request)
    }
}
