//! Traefik's servers transports: how servers are connected to, and what the workers share about it.
//!
//! A transport is built once and lives as long as a table names it. Connections belong to an
//! `Origin` of one transport, so two transports never share a connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};

use super::client_tls;
use super::idle::IdleCount;
use super::proxy::{AbsoluteForm, ForwardProxy, Proxies, ProxyKind};
use super::target::{Target, TargetScheme};
use crate::exchange::Budget;
use crate::values::{
    BuildError, FileOrContent, Files, GoDuration, Profile, Unsupported, is_default,
};

/// One entry of `http.serversTransports`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServersTransportConfig {
    /// Name that is sent as SNI and that the certificate must have. Default: the URL's host.
    #[serde(skip_serializing_if = "is_default")]
    pub server_name: String,
    /// Accept any certificate. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub insecure_skip_verify: bool,
    /// Authorities, in place of the system's.
    #[serde(rename = "rootCAs", skip_serializing_if = "Vec::is_empty")]
    pub root_cas: Vec<FileOrContent>,
    /// Certificates that we show.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<ClientCertificateConfig>,
    /// Cipher suites of TLS 1.2 by their IANA names. Default: all that are safe.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<String>,
    /// `VersionTLS12` or `VersionTLS13`. Default: `VersionTLS12`.
    #[serde(skip_serializing_if = "is_default")]
    pub min_version: String,
    /// `VersionTLS12` or `VersionTLS13`. Default: `VersionTLS13`.
    #[serde(skip_serializing_if = "is_default")]
    pub max_version: String,
    /// Idle connections kept per server. Default: 0, which means 2; negative: none.
    #[serde(skip_serializing_if = "is_default")]
    pub max_idle_conns_per_host: i64,
    /// Speak HTTP/1.1 only over TLS. Default: false.
    #[serde(rename = "disableHTTP2", skip_serializing_if = "is_default")]
    pub disable_http2: bool,
    /// URI that the server's certificate must have as an alternative name.
    #[serde(rename = "peerCertURI", skip_serializing_if = "is_default")]
    pub peer_cert_uri: String,
    /// SPIFFE identities, not served yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiffe: Option<Unsupported>,
    /// Timeouts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarding_timeouts: Option<ForwardingTimeoutsConfig>,
}

/// One certificate that we show to servers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientCertificateConfig {
    /// Certificate chain in PEM.
    pub cert_file: FileOrContent,
    /// Private key in PEM.
    pub key_file: FileOrContent,
}

/// `forwardingTimeouts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ForwardingTimeoutsConfig {
    /// For name resolution and TCP. Default: 30s; 0: none.
    pub dial_timeout: GoDuration,
    /// From the request's last byte to the head of the answer. Default: 0, none.
    pub response_header_timeout: GoDuration,
    /// How long a connection may stay idle. Default: 90s; 0: for ever.
    pub idle_conn_timeout: GoDuration,
    /// Silence after which an HTTP/2 connection is asked whether it lives. Default: 0, never.
    pub read_idle_timeout: GoDuration,
    /// How long it may take to answer that. Default: 15s.
    pub ping_timeout: GoDuration,
}

impl Default for ForwardingTimeoutsConfig {
    fn default() -> Self {
        Self {
            dial_timeout: GoDuration::from_secs(30),
            response_header_timeout: GoDuration::ZERO,
            idle_conn_timeout: GoDuration::from_secs(90),
            read_idle_timeout: GoDuration::ZERO,
            ping_timeout: GoDuration::from_secs(15),
        }
    }
}

/// The static section `serversTransport`, which becomes `default@internal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StaticServersTransportConfig {
    /// Accept any certificate. Default: false.
    pub insecure_skip_verify: bool,
    /// Authorities, in place of the system's.
    #[serde(rename = "rootCAs")]
    pub root_cas: Vec<FileOrContent>,
    /// Idle connections kept per server. Default: 200.
    pub max_idle_conns_per_host: i64,
    /// Timeouts.
    pub forwarding_timeouts: StaticForwardingTimeoutsConfig,
    /// SPIFFE identities, not served yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiffe: Option<Unsupported>,
}

/// `serversTransport.forwardingTimeouts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StaticForwardingTimeoutsConfig {
    /// For name resolution and TCP. Default: 30s; 0: none.
    pub dial_timeout: GoDuration,
    /// From the request's last byte to the head of the answer. Default: 0, none.
    pub response_header_timeout: GoDuration,
    /// How long a connection may stay idle. Default: 90s; 0: for ever.
    pub idle_conn_timeout: GoDuration,
}

impl Default for StaticForwardingTimeoutsConfig {
    fn default() -> Self {
        let timeouts = ForwardingTimeoutsConfig::default();
        Self {
            dial_timeout: timeouts.dial_timeout,
            response_header_timeout: timeouts.response_header_timeout,
            idle_conn_timeout: timeouts.idle_conn_timeout,
        }
    }
}

impl Default for StaticServersTransportConfig {
    fn default() -> Self {
        Self {
            insecure_skip_verify: false,
            root_cas: Vec::new(),
            max_idle_conns_per_host: 200,
            forwarding_timeouts: StaticForwardingTimeoutsConfig::default(),
            spiffe: None,
        }
    }
}

impl From<&StaticServersTransportConfig> for ServersTransportConfig {
    fn from(section: &StaticServersTransportConfig) -> Self {
        let timeouts = &section.forwarding_timeouts;
        Self {
            insecure_skip_verify: section.insecure_skip_verify,
            root_cas: section.root_cas.clone(),
            max_idle_conns_per_host: section.max_idle_conns_per_host,
            spiffe: section.spiffe,
            forwarding_timeouts: Some(ForwardingTimeoutsConfig {
                dial_timeout: timeouts.dial_timeout,
                response_header_timeout: timeouts.response_header_timeout,
                idle_conn_timeout: timeouts.idle_conn_timeout,
                ..ForwardingTimeoutsConfig::default()
            }),
            ..Self::default()
        }
    }
}

/// Timeouts as the code wants them: `None` is no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) dial: Option<Duration>,
    pub(super) response_header: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) read_idle: Option<Duration>,
    pub(super) ping: Duration,
}

impl From<&ForwardingTimeoutsConfig> for Timeouts {
    fn from(config: &ForwardingTimeoutsConfig) -> Self {
        Self {
            dial: config.dial_timeout.positive(),
            response_header: config.response_header_timeout.positive(),
            idle: config.idle_conn_timeout.positive(),
            read_idle: config.read_idle_timeout.positive(),
            ping: config.ping_timeout.positive().unwrap_or(Duration::from_secs(15)),
        }
    }
}

/// Go's default when `maxIdleConnsPerHost` is zero.
const DEFAULT_IDLE: usize = 2;

/// How to connect to servers: one servers transport, built.
pub struct ServersTransport {
    name: Arc<str>,
    pub(super) timeouts: Timeouts,
    pub(super) max_idle: usize,
    pub(super) tls: Arc<ClientConfig>,
    /// The same without an offer of HTTP/2, for upgrades.
    pub(super) tls_http1: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    verifies_native: bool,
    proxies: Proxies,
    exact: bool,
    origins: Mutex<HashMap<OriginKey, Weak<Origin>>>,
}

impl ServersTransport {
    /// Builds the transport `name`. What is left out without harm goes to `warnings`.
    pub fn build(
        name: &str,
        config: &ServersTransportConfig,
        files: &dyn Files,
        profile: Profile,
        warnings: &mut Vec<BuildError>,
    ) -> Result<Self, BuildError> {
        if config.spiffe.is_some() {
            return Err(BuildError::unsupported("spiffe"));
        }
        let mut tls = client_tls::build(config, files, warnings);
        if profile == Profile::Exact
            && let Err(error) = tls
        {
            // Traefik keeps the transport and falls back to verifying against the system's CAs.
            let message = format!("{}; using the default TLS settings", error.message);
            warnings.push(BuildError::at(error.option, message));
            tls = client_tls::build(&ServersTransportConfig::default(), files, warnings);
        }
        let tls = tls?;
        let http2 = !config.disable_http2;
        let with_protocols = |protocols: &[&[u8]]| {
            let mut config = tls.config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        let tls_http1 = with_protocols(&[b"http/1.1"]);
        Ok(Self {
            name: name.into(),
            timeouts: Timeouts::from(&config.forwarding_timeouts.clone().unwrap_or_default()),
            max_idle: match usize::try_from(config.max_idle_conns_per_host) {
                Ok(0) => DEFAULT_IDLE,
                Ok(limit) => limit,
                Err(_) => 0,
            },

            tls: if http2 { with_protocols(&[b"h2", b"http/1.1"]) } else { Arc::clone(&tls_http1) },
            tls_http1,
            server_name: tls.server_name,
            verifies_native: tls.verifies_native,
            proxies: Proxies::default(),
            exact: profile == Profile::Exact,
            origins: Mutex::default(),
        })
    }

    /// The same through these proxies. Without them, every server is reached directly.
    #[must_use]
    pub fn through(mut self, proxies: &Proxies) -> Self {
        self.proxies = proxies.clone();
        self
    }

    /// The name of the transport.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the workers share about the server of `target`.
    pub(super) fn origin(&self, target: &Target) -> Arc<Origin> {
        let proxy = self.proxies.to(target);
        let tls_proxy = proxy.as_ref().is_some_and(|proxy| proxy.kind == ProxyKind::Https);
        if (target.scheme() == TargetScheme::Https || tls_proxy) && self.verifies_native {
            // Reading the system's authorities takes long: here, and not in the first handshake.
            client_tls::load_native_roots();
        }
        let key: OriginKey = (target.scheme(), target.host().into(), target.port());
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = origins.get(&key).and_then(Weak::upgrade) {
            return origin;
        }
        origins.retain(|_, origin| origin.strong_count() > 0);
        let server_name = self
            .server_name
            .clone()
            .or_else(|| ServerName::try_from(target.host().to_owned()).ok());
        let origin = Arc::new(Origin {
            id: NEXT_ORIGIN.fetch_add(1, Ordering::Relaxed),
            scheme: target.scheme(),
            host: target.host().into(),
            port: target.port(),
            server_name,
            absolute: proxy.as_deref().and_then(|proxy| AbsoluteForm::to(target, proxy)),
            proxy,
            idle: IdleCount::default(),
            in_vain: AtomicU32::new(0),
            streams: Arc::new(AtomicUsize::new(USUAL_STREAMS)),
            refusals: (!self.exact).then(Budget::default),
        });
        origins.insert(key, Arc::downgrade(&origin));
        origin
    }
}

impl std::fmt::Debug for ServersTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServersTransport").field("name", &self.name).finish_non_exhaustive()
    }
}

type OriginKey = (TargetScheme, Box<str>, u16);

static NEXT_ORIGIN: AtomicU64 = AtomicU64::new(0);

/// One server as one transport connects to it.
#[derive(Debug)]
pub(super) struct Origin {
    /// Unique in the process: the key of the workers' pools.
    pub(super) id: u64,
    pub(super) scheme: TargetScheme,
    pub(super) host: Box<str>,
    pub(super) port: u16,
    /// The name to ask for and to verify; `None` when the host cannot be one.
    pub(super) server_name: Option<ServerName<'static>>,
    /// What stands on the way to it.
    pub(super) proxy: Option<Arc<ForwardProxy>>,
    /// Set where requests are told to the proxy and not sent through a tunnel.
    pub(super) absolute: Option<AbsoluteForm>,
    /// Idle connections of all workers together.
    pub(super) idle: IdleCount,
    /// How many uploads in a row have waited for a 100 in vain.
    pub(super) in_vain: AtomicU32,
    /// How many streams of HTTP/2 it allowed on a connection when it was last asked: what a new one begins
    /// with, until the server has spoken there.
    pub(super) streams: Arc<AtomicUsize>,
    /// What it may be asked again that it has refused without a word; `None`: anything.
    pub(super) refusals: Option<Budget>,
}

/// How many streams a server of HTTP/2 is taken to allow that has said nothing yet (RFC 9113, 6.5.2: it should not be fewer).
pub(super) const USUAL_STREAMS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::Disk;

    fn build(config: &ServersTransportConfig) -> Result<ServersTransport, BuildError> {
        ServersTransport::build("test", config, &Disk, Profile::Safe, &mut Vec::new())
    }

    #[test]
    fn options_have_traefiks_names() {
        let config: ServersTransportConfig = serde_json::from_str(
            r#"{"serverName": "odoo", "insecureSkipVerify": true, "rootCAs": ["/ca.pem"],
                "certificates": [{"certFile": "/c.pem", "keyFile": "/k.pem"}],
                "cipherSuites": ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
                "minVersion": "VersionTLS12", "maxVersion": "VersionTLS13",
                "maxIdleConnsPerHost": 7, "disableHTTP2": true, "peerCertURI": "spiffe://a/b",
                "forwardingTimeouts": {"dialTimeout": "1s", "responseHeaderTimeout": "2s",
                  "idleConnTimeout": "3s", "readIdleTimeout": "4s", "pingTimeout": "5s"}}"#,
        )
        .unwrap();
        assert_eq!(config.root_cas.len(), 1);
        assert!(config.disable_http2);
        assert_eq!(config.peer_cert_uri, "spiffe://a/b");
        let timeouts = config.forwarding_timeouts.unwrap();
        assert_eq!(timeouts.read_idle_timeout, GoDuration::from_secs(4));
    }

    #[test]
    fn the_static_section_keeps_two_hundred_idle_connections() {
        let config = ServersTransportConfig::from(&StaticServersTransportConfig::default());
        let transport = build(&config).unwrap();
        assert_eq!(transport.max_idle, 200);
        assert_eq!(transport.timeouts.dial, Some(Duration::from_secs(30)));
        assert_eq!(transport.timeouts.response_header, None);
        assert_eq!(transport.timeouts.idle, Some(Duration::from_secs(90)));
    }

    #[test]
    fn idle_limits_of_zero_and_less() {
        for (configured, want) in [(0, 2), (-1, 0), (5, 5)] {
            let config = ServersTransportConfig {
                max_idle_conns_per_host: configured,
                ..ServersTransportConfig::default()
            };
            assert_eq!(build(&config).unwrap().max_idle, want);
        }
    }

    #[test]
    fn what_cannot_be_served_is_an_error() {
        let config = ServersTransportConfig {
            spiffe: Some(Unsupported),
            ..ServersTransportConfig::default()
        };
        assert_eq!(build(&config).unwrap_err().option, "spiffe");
    }

    #[test]
    fn one_server_is_one_origin_of_a_transport() {
        let transport = build(&ServersTransportConfig::default()).unwrap();
        let other = build(&ServersTransportConfig::default()).unwrap();
        let origin = |transport: &ServersTransport, url: &str| {
            transport.origin(&Target::parse(url).unwrap())
        };
        let first = origin(&transport, "http://a:80/x");
        assert_eq!(origin(&transport, "http://a/y").id, first.id);
        assert_ne!(origin(&transport, "h2c://a/y").id, first.id);
        assert_ne!(origin(&other, "http://a").id, first.id);
    }
}
