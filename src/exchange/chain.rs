//! Middlewares and how they follow one another.
//!
//! A middleware that has nothing to do with the response returns `next.run(…)` itself: no
//! allocation and no extra poll. You pay for looking at the response only where you look.

use std::sync::Arc;

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
        match self.middlewares.split_first() {
            Some((first, middlewares)) => {
                first.handle(cx, request, Next { middlewares, handler: self.handler })
            }
            None => self.handler.handle(cx, request),
        }
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
