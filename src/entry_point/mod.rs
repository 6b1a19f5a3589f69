//! Entry points: listening, and what arrives there. (Not "server": that word is a backend here.)
//!
//! Invariant: whatever a client sends becomes either a refusal or one canonical request.

pub mod cname;
pub mod connection;
mod cork;
mod deadline;
mod exchange;
mod frames;
mod guard;
pub mod head;
pub mod http;
pub mod listener;
mod overload;
mod paced;
pub mod proxy_protocol;
mod reply;
mod rest;
mod shortage;
mod stream;
#[cfg(test)]
mod tests;
pub mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue};

pub use cname::{Flattener, HostResolverConfig};
pub use guard::{Guard, Open};
pub use overload::{Overload, OverloadSettings, Watch};
pub use shortage::Shortage;

use crate::exchange::canonical::{FieldLimits, TargetRules, UnderscoreStrategy};
use crate::exchange::forwarded::TrustedSources;
use crate::exchange::{EntryPointFacts, Observer};
use crate::observability::access_log::AccessLog;
use crate::observability::metrics::Metrics;
use crate::router::LiveTable;
use crate::wire::BodyTimeout;

/// One entry point, ready to serve.
pub struct EntryPoint {
    /// Position in the static configuration, and in every routing table.
    pub position: usize,
    /// What inner layers may know.
    pub facts: Arc<EntryPointFacts>,
    /// Where to listen.
    pub address: SocketAddr,
    /// Share the port with other processes.
    pub reuse_port: bool,
    /// Peers whose forwarded headers count.
    pub trusted: TrustedSources,
    /// Names that survive although the client lists them in `Connection`.
    pub connection_headers: Vec<HeaderName>,
    /// Header with the name of each request, where requests get names.
    pub request_id: Option<HeaderName>,
    /// Peers whose PROXY protocol header counts; `None`: no PROXY protocol.
    pub proxy_protocol: Option<TrustedSources>,
    /// How targets are rewritten.
    pub target: TargetRules,
    /// What becomes of header names with `_`.
    pub underscores: UnderscoreStrategy,
    /// Whether every other character that aliases `-` counts like `_`.
    pub aliases: bool,
    /// Whether a request must come over the TLS options of its host, whatever its router says.
    pub strict_tls_options: bool,
    /// Size of request heads.
    pub limits: FieldLimits,
    /// Timeouts of client connections.
    pub timeouts: Timeouts,
    /// Requests per connection; 0: no limit.
    pub keep_alive_max_requests: u64,
    /// Age of a connection after which it is closed; `None`: no limit.
    pub keep_alive_max_time: Option<Duration>,
    /// Streams per HTTP/2 connection.
    pub http2_max_concurrent_streams: u32,
    /// Size of the HPACK table that clients may use.
    pub http2_max_decoder_table: u32,
    /// Requests at this entry point in metrics, when they are wanted.
    pub metrics: Option<Arc<dyn Observer>>,
    /// Stages of shutdown.
    pub life_cycle: LifeCycle,
    /// Whether its sockets cannot accept.
    pub shortage: Shortage,
}

/// Timeouts of client connections; `None` means never.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a whole request, and for the first bytes of a connection.
    pub read: Option<Duration>,
    /// How `read` applies to bodies.
    pub body: BodyTimeout,
    /// From the head of a request to the end of its response.
    pub write: Option<Duration>,
    /// Between requests.
    pub idle: Option<Duration>,
}

/// Stages of shutdown (Traefik `transport.lifeCycle`).
#[derive(Debug, Clone, Copy)]
pub struct LifeCycle {
    /// How long to go on accepting.
    pub request_accept_grace: Duration,
    /// How long to wait for running requests then.
    pub grace: Duration,
}

/// What all entry points and workers share.
pub struct Shared {
    /// The running table.
    pub table: LiveTable,
    /// Counters that belong to no router.
    pub metrics: Arc<Metrics>,
    /// Where requests are written down.
    pub access_log: Option<Arc<AccessLog>>,
    /// The machine's host name, for `X-Forwarded-Server`.
    pub server_name: HeaderValue,
    /// Finds what hosts are aliases of, where that is switched on.
    pub cname: Option<Arc<Flattener>>,
    /// Sees to what clients may take.
    pub guard: Arc<Guard>,
    /// What is given up when resources run short, where that is switched on.
    pub overload: Option<Arc<Overload>>,
}

impl Shared {
    /// Whether little is to wait in the kernel for a client, so that its taking can be watched or memory be saved.
    pub fn watches_sending(&self) -> bool {
        let saves = self.overload.as_ref().is_some_and(|overload| overload.saves_unsent());
        saves || self.guard.limits().stall.is_some()
    }
}
