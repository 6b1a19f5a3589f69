//! Random requests at the proxy and at a second reader of HTTP, which was written for this from RFC 9110, 9112 and
//! 9113 and shares no code with the first: they have to agree on what a request is, where it ends, for which host and
//! path it is, and what of it a backend gets.
//!
//! Half of the requests are what a client may send, the other half are those with something wrong in them. They come
//! in pieces of any size, and several on one connection. One run uses the same seed each time, another a new one;
//! what fails is told with its seed, and with the shortest bytes that still fail.
//!
//! - `DOORWARD_DIFFERENTIAL=1000000` in the environment: so many requests of each kind, on as many connections at once
//!   as there are cores. `cargo test --release --test differential -- --nocapture` tells the counts.
//! - `DOORWARD_DIFFERENTIAL_SEED=…`: with this seed.

#![expect(clippy::items_after_statements, reason = "a table stands where it is used")]

#[cfg(test)]
mod generate;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod inside;
#[cfg(test)]
#[path = "../../src/wire/tests/pieces.rs"]
mod pieces;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod run;
#[cfg(test)]
mod sockets;
