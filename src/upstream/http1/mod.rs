//! HTTP/1.1 as we speak it to servers: one exchange at a time over a connection that the exchange owns.
//!
//! There is no task behind a connection. Whoever waits for the answer, and later whoever reads its body, moves the
//! bytes; dropping either closes the connection. Only an exchange that is whole to its last byte on both sides gives
//! the connection back to the pool.

mod connection;
mod download;
mod encode;
mod exchange;
mod upload_rest;

pub(super) use connection::Connection;
pub(super) use exchange::{Answer, Failure, Unanswered, exchange};
