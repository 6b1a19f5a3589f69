//! Routers below a router (Traefik's multi-layer routing): they see the request as the middlewares
//! above have left it.

use std::sync::Arc;

use http::StatusCode;

use super::{HttpRouter, HttpRouters};
use crate::exchange::canonical::routing_path;
use crate::exchange::error::text;
use crate::exchange::view::{FlatHost, RequestView};
use crate::exchange::{Context, Handler, Outcome, Request, Response, ResponseFuture, ready};

/// Where a request goes that a router above has let through.
pub struct Below {
    routers: HttpRouters,
}

impl Below {
    /// These routers, which are in match order, best first.
    pub fn new(routers: Vec<Arc<HttpRouter>>) -> Self {
        Self { routers: HttpRouters::new(routers) }
    }

    fn find(&self, cx: &Context, request: &Request) -> Option<&Arc<HttpRouter>> {
        let path = routing_path(request.uri().path());
        let flat = request.extensions().get::<FlatHost>();
        self.routers.find(&RequestView {
            host: &cx.host,
            flat_host: flat.map(|flat| &*flat.0),
            path: &path,
            query: request.uri().query(),
            method: request.method(),
            headers: request.headers(),
            client_ip: cx.connection.peer_ip,
        })
    }
}

impl Handler for Below {
    fn handle<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        let Some(router) = self.find(cx, &request) else {
            return ready(text(StatusCode::NOT_FOUND, "404 page not found\n"));
        };
        Box::pin(async move {
            let mut response = router.chain.handle(cx, request).await;
            note(router, &mut response);
            response
        })
    }
}

/// Says in the answer which way the request took.
fn note(router: &HttpRouter, response: &mut Response) {
    let outcome = Outcome::of(response);
    outcome.observers.extend(router.metrics.clone());
    outcome.routers_below = Some(match outcome.routers_below.take() {
        None => Arc::clone(&router.name),
        Some(below) => format!("{} -> {below}", router.name).into(),
    });
}
