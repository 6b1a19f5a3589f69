//! The vocabulary of one request: what comes in, what goes out, and what is known of its origin.
//!
//! Facts go down by reference (`Context`), facts come up in the response (`Outcome`): nothing here
//! changes on the way, so nobody needs a lock to read it.

pub mod attempts;
pub mod body;
pub mod budget;
pub mod canonical;
pub mod chain;
mod client_subject;
pub mod context;
pub mod error;
pub mod forwarded;
pub mod memory;
pub mod observe;
pub mod open_work;
pub mod replay;
pub mod request_id;
pub mod rounds;
pub mod signal;
pub mod tunnel;
pub mod view;

use std::any::Any;
use std::pin::Pin;

pub use attempts::Attempts;
pub use body::{Body, BodyEnd, BodyError, EndHook, Ending, without_misplaced_trailers};
pub use budget::Budget;
pub use chain::{Chain, Middleware, Next, Remade};
pub use context::{ClientTls, Connection, Context, EntryPointFacts, MadeOfCertificates, Scheme};
pub use error::{Outcome, ProxyError};
pub use observe::{Observation, Observer, Protocol};
pub use open_work::{OpenWork, OpenWorkItem};
pub use replay::Replay;
pub use signal::{Signal, Told};
pub use tunnel::{Tunnel, on_end, on_end_boxed};

/// A request on its way through the proxy.
pub type Request = http::Request<Body>;
/// A response on its way back.
pub type Response = http::Response<Body>;
/// What a handler returns. Not `Send`: a request stays on the worker that accepted it.
pub type ResponseFuture<'a> = Pin<Box<dyn Future<Output = Response> + 'a>>;

/// Answers a request. Always answers: what went wrong is in the response.
pub trait Handler: Send + Sync {
    /// Answers `request`, whose origin is `cx`.
    fn handle<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a>;

    /// Itself, for whoever explains where requests go from here; `None` for an end of the way.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

/// A handler's answer that needs no waiting.
pub fn ready<'a>(response: Response) -> ResponseFuture<'a> {
    Box::pin(std::future::ready(response))
}
