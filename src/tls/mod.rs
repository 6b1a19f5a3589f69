//! TLS towards clients: certificates, options, which of them a server name gets, the handshake.
//!
//! Everything here is built once per configuration and immutable afterwards. A connection is
//! bound to the table that was current when it said hello.

mod accept;
mod certificate;
mod certificates;
mod client_auth;
mod config;
mod hello;
mod options;
mod prefixed;
mod routes;
mod sessions;
mod suites;
#[cfg(test)]
mod tests;

pub use accept::{AcceptError, Accepted, Alpn, accept, accept_hello};
pub use certificate::{CertificateInfo, LoadedCertificate};
pub use certificates::{CertificateProblem, CertificateStore, Consequence, StoreBuild};
pub use config::{
    CertificateConfig, CertificatePairConfig, ClientAuthConfig, TlsConfig, TlsOptionsConfig,
    TlsStoreConfig,
};
pub use hello::{Hello, MAX_HELLO, read_hello};
pub use options::{TlsOptions, TlsProfile};
pub use prefixed::PrefixedStream;
pub use routes::{
    BrokenOptions, OptionsConflict, OptionsRef, Selected, TlsRoutes, TlsRoutesBuilder,
};
