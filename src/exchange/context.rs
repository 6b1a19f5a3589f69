//! What is known of one request's origin: its connection, entry point, client and canonical host.
//!
//! Made once at the entry point, immutable afterwards, cheap to clone for what outlives a request.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::client_subject;
use super::open_work::OpenWork;

/// How the client's connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Clear text.
    Http,
    /// TLS terminated here.
    Https,
}

impl Scheme {
    /// The scheme as it is written in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What of an entry point's configuration the inner layers may look at.
#[derive(Clone, Debug, Default)]
pub struct EntryPointFacts {
    /// Name of the entry point, as configured.
    pub name: Arc<str>,
    /// Leave `X-Forwarded-For` without the peer's address
    /// (`forwardedHeaders.notAppendXForwardedFor`).
    pub not_append_forwarded_for: bool,
    /// Behave as Traefik does, also where it is unsafe or wrong: see `core.profile`.
    pub exact: bool,
    /// Behave as the `hardened` profile asks: see `core.profile`.
    pub hardened: bool,
    /// Bodies of requests have a time for all of them, and so need no rate that nobody asked for.
    pub slow_bodies: bool,
    /// Remember what headers servers sent: the access log wants some of them.
    pub origin_headers: bool,
    /// The header that carries [`Context::request_id`] (`requestId.header`).
    pub request_id: Option<HeaderName>,
}

/// What TLS said about the client's connection.
#[derive(Debug, Default)]
pub struct ClientTls {
    /// `TLS 1.2` or `TLS 1.3` in Traefik's spelling for logs: `1.2`, `1.3`.
    pub version: &'static str,
    /// IANA name of the cipher suite.
    pub cipher: &'static str,
    /// Server name that the client asked for, lower-case; empty without SNI.
    pub server_name: Box<str>,
    /// Name of the TLS options that this connection was made with.
    pub options: Arc<str>,
    /// The client's certificate chain, leaf first, as DER; empty when it sent none.
    pub certificates: Vec<rustls_pki_types::CertificateDer<'static>>,
    /// What has been made of them.
    pub made: MadeOfCertificates,
    /// What [`ClientTls::subject`] has found.
    pub subject: OnceLock<Option<Box<str>>>,
}

impl ClientTls {
    /// The subject of the client's certificate, as Go writes it.
    pub fn subject(&self) -> Option<&str> {
        let leaf = self.certificates.first()?;
        self.subject.get_or_init(|| client_subject::of(leaf).map(String::into_boxed_str)).as_deref()
    }
}

/// Header values made of a client's certificates, which stay the same as long as the connection.
#[derive(Debug, Default)]
pub struct MadeOfCertificates {
    made: Mutex<SmallVec<[(u64, HeaderValue); 2]>>,
}

impl MadeOfCertificates {
    /// Of more makers than these the oldest are forgotten: each reload makes new ones.
    const MOST: usize = 16;

    /// What `maker`, a number that nobody else has, has made before or makes now.
    pub fn by(
        &self,
        maker: u64,
        make: impl FnOnce() -> Option<HeaderValue>,
    ) -> Option<HeaderValue> {
        let mut known = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = known.iter().find(|(by, _)| *by == maker) {
            return Some(value.clone());
        }
        let value = make()?;
        if known.len() >= Self::MOST {
            known.remove(0);
        }
        known.push((maker, value.clone()));
        Some(value)
    }
}

/// One client connection.
pub struct Connection {
    /// The entry point that accepted it.
    pub entry_point: Arc<EntryPointFacts>,
    /// The client's address, after PROXY protocol.
    pub peer: SocketAddr,
    /// The client's IP address with IPv4-mapped IPv6 unmapped.
    pub peer_ip: IpAddr,
    /// `peer_ip` prepared as a header value.
    pub peer_ip_text: HeaderValue,
    /// Our address.
    pub local: SocketAddr,
    /// What TLS said, for a connection that it protects.
    pub tls: Option<ClientTls>,
    /// When the connection was accepted.
    pub opened: Instant,
    /// Work that outlives requests (tunnels), which a shutdown waits for and then cuts.
    pub work: OpenWork,
    /// What `upstream` keeps for this connection alone; nothing, as long as it wants nothing.
    pub own: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Connection {
    /// Whether TLS protects the connection.
    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }
}

/// The origin of one request. Nothing in it changes on the request's way.
#[derive(Clone)]
pub struct Context {
    /// The client's connection.
    pub connection: Arc<Connection>,
    /// Canonical host: lower-case, without port and trailing dot; empty when there is none.
    pub host: Box<str>,
    /// The authority as the client wrote it (`Host`, `:authority` or absolute-form).
    pub authority: Option<HeaderValue>,
    /// When the head of the request was complete.
    pub start: Instant,
    /// Name of the request, where the entry point gives names (`requestId`).
    pub request_id: Option<HeaderValue>,
}

impl Context {
    /// The header that names the request, as the entry point has set it.
    pub fn naming_header(&self) -> Option<(&HeaderName, &HeaderValue)> {
        self.connection.entry_point.request_id.as_ref().zip(self.request_id.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a connection that outlives reload after reload.
    #[test]
    fn the_latest_makers_are_remembered() {
        let made = MadeOfCertificates::default();
        let value = |maker: u64| HeaderValue::from(maker);
        for reload in 0..100 {
            for maker in [2 * reload, 2 * reload + 1] {
                assert_eq!(made.by(maker, || Some(value(maker))), Some(value(maker)));
                assert_eq!(made.by(maker, || None), Some(value(maker)), "{maker} is remembered");
            }
        }
        assert_eq!(made.made.lock().unwrap().len(), MadeOfCertificates::MOST);
        assert_eq!(made.by(0, || None), None, "the oldest are forgotten");
        assert_eq!(made.by(200 - MadeOfCertificates::MOST as u64, || None), Some(value(184)));
    }
}
