//! One request to one server: connections, header rules, bodies both ways, tunnels, and what
//! becomes of every failure.
//!
//! Nothing here knows of routers, services or balancing. A `Forwarder` always answers, and what
//! it learned is in the response's `Outcome`.

mod client_tls;
mod connect;
pub mod copy;
mod forwarder;
mod gunzip;
pub mod headers;
mod http1;
mod idle;
pub mod limits;
mod owner;
mod pool;
pub mod proxy;
mod relay;
mod send;
pub mod target;
pub mod transport;
mod upgrade;
mod upload;

#[cfg(test)]
mod tests;

pub use forwarder::{Forwarder, ForwarderOptions};
pub use proxy::Proxies;
pub use target::{Target, TargetScheme};
pub use transport::{
    ClientCertificateConfig, ForwardingTimeoutsConfig, ServersTransport, ServersTransportConfig,
    StaticForwardingTimeoutsConfig, StaticServersTransportConfig,
};
