//! HTTP/1 on the wire: a strict gate in front of hyper's server, and the decoder of what backends answer.
//! hyper's parser is lenient; what a message is, and where it ends, is decided here (RFC 9112). The invariant: hyper is
//! given whole, validated heads and validated body bytes only, so that it can never see another message than we do.

pub mod authority;
mod bytes_class;
mod chunk;
mod control;
mod head;
mod held;
mod request;
mod response;
mod timer;

#[cfg(test)]
mod tests;

pub use authority::{Authority, AuthorityError};
pub use bytes_class::is_token;
pub use control::{GateControl, GateLimit, InFlight, Rejection};
pub use head::{FRAGMENT, HeadLimits};
pub use request::{BodyTimeout, GateTimeouts, RequestGate};
pub use response::{FinalHead, Part, ResponseBody, ResponseDecoder, Scanned, response_fields};
pub use timer::LazySleep;
