//! `entryPoints`: where Doorward listens, and what it asks of every request there.
//!
//! The structs keep what is written; [`EntryPointConfig::complete`] fills in what the profile decides, so that the
//! API shows the values that are used.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};

use crate::exchange::canonical::{EncodedCharactersConfig, UnderscoreStrategy};
use crate::router::{RouterObservabilityConfig, RouterTlsConfig};
use crate::upstream::limits::RequestBodyConfig;
use crate::values::{GoDuration, Profile, is_default};

/// One entry of `entryPoints`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EntryPointConfig {
    /// `[host]:port[/tcp]`. Required. `/udp` is not served yet.
    #[serde(skip_serializing_if = "is_default")]
    pub address: String,
    /// Let routers of users receive `/.well-known/acme-challenge/` and `acme-tls/1`.
    #[serde(rename = "allowACMEByPass", skip_serializing_if = "is_default")]
    pub allow_acme_by_pass: bool,
    /// Several processes may listen at the address (`SO_REUSEPORT`).
    #[serde(skip_serializing_if = "is_default")]
    pub reuse_port: bool,
    /// Routers without `entryPoints` go here, and to no entry point without this option.
    #[serde(skip_serializing_if = "is_default")]
    pub as_default: bool,
    /// Times and counts of connections.
    pub transport: TransportConfig,
    /// The PROXY protocol. Absent: it is not spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolConfig>,
    /// Whose `X-Forwarded-*` headers are believed.
    pub forwarded_headers: ForwardedHeadersConfig,
    /// What holds for every HTTP request.
    pub http: HttpConfig,
    /// HTTP/2.
    pub http2: Http2Config,
    /// Means nothing at a TCP entry point; read because Traefik's reference writes it everywhere.
    pub udp: UdpConfig,
    /// What is observed of routers that do not say it themselves.
    pub observability: RouterObservabilityConfig,
}

/// `transport`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TransportConfig {
    /// The stages of stopping.
    pub life_cycle: LifeCycleConfig,
    /// How long a client may take.
    pub responding_timeouts: RespondingTimeoutsConfig,
    /// Age at which a connection is closed after its answer. Default: 0, never.
    #[serde(skip_serializing_if = "is_default")]
    pub keep_alive_max_time: GoDuration,
    /// Requests after which a connection is closed. Default: 0, never.
    #[serde(skip_serializing_if = "is_default")]
    pub keep_alive_max_requests: i64,
}

/// `transport.lifeCycle`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LifeCycleConfig {
    /// How long new requests are still taken when the process is to stop. Default: 0.
    #[serde(skip_serializing_if = "is_default")]
    pub request_accept_grace_timeout: GoDuration,
    /// How long running requests may take after that. Default: 10s.
    #[serde(skip_serializing_if = "is_default")]
    pub grace_time_out: GoDuration,
}

impl Default for LifeCycleConfig {
    fn default() -> Self {
        Self {
            request_accept_grace_timeout: GoDuration::ZERO,
            grace_time_out: GoDuration::from_secs(10),
        }
    }
}

/// `transport.respondingTimeouts`; 0 is no limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RespondingTimeoutsConfig {
    /// For the whole request with its body. Default: 60s; where it is not written, and the profile is not `exact`, it
    /// is for the head, and for each pause between two reads of the body.
    #[serde(skip_serializing_if = "is_zero", serialize_with = "or_a_minute")]
    pub read_timeout: Option<GoDuration>,
    /// From the end of the request's head to the end of the answer. Default: 0.
    #[serde(skip_serializing_if = "is_default")]
    pub write_timeout: GoDuration,
    /// For an idle connection. Default: 180s.
    #[serde(skip_serializing_if = "is_default")]
    pub idle_timeout: GoDuration,
}

impl Default for RespondingTimeoutsConfig {
    fn default() -> Self {
        Self {
            read_timeout: None,
            write_timeout: GoDuration::ZERO,
            idle_timeout: GoDuration::from_secs(180),
        }
    }
}

/// `readTimeout` when it is not written.
const READ_TIMEOUT: GoDuration = GoDuration::from_secs(60);

impl RespondingTimeoutsConfig {
    /// `readTimeout`, written or not.
    pub fn read_timeout(&self) -> GoDuration {
        self.read_timeout.unwrap_or(READ_TIMEOUT)
    }
}

#[expect(clippy::ref_option, reason = "serde passes fields by reference")]
fn is_zero(written: &Option<GoDuration>) -> bool {
    *written == Some(GoDuration::ZERO)
}

#[expect(clippy::ref_option, reason = "serde passes fields by reference")]
fn or_a_minute<S: Serializer>(
    written: &Option<GoDuration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    written.unwrap_or(READ_TIMEOUT).serialize(serializer)
}

/// `proxyProtocol`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyProtocolConfig {
    /// Believe anyone.
    #[serde(skip_serializing_if = "is_default")]
    pub insecure: bool,
    /// Addresses and ranges that are believed.
    #[serde(rename = "trustedIPs", skip_serializing_if = "Vec::is_empty")]
    pub trusted_ips: Vec<String>,
}

/// `forwardedHeaders`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ForwardedHeadersConfig {
    /// Believe anyone.
    #[serde(skip_serializing_if = "is_default")]
    pub insecure: bool,
    /// Addresses and ranges that are believed.
    #[serde(rename = "trustedIPs", skip_serializing_if = "Vec::is_empty")]
    pub trusted_ips: Vec<String>,
    /// Headers that reach middlewares although the client's `Connection` names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connection: Vec<String>,
    /// Do not add the peer to `X-Forwarded-For`.
    #[serde(skip_serializing_if = "is_default")]
    pub not_append_x_forwarded_for: bool,
}

/// `http` of an entry point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpConfig {
    /// Send every request elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirections: Option<RedirectionsConfig>,
    /// Middlewares in front of those of every router, as `name@provider`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub middlewares: Vec<String>,
    /// TLS for every router that has no `tls` of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RouterTlsConfig>,
    /// Escaped characters that a path may carry. Default: all; none under `hardened`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoded_characters: Option<EncodedCharactersConfig>,
    /// Forward `;` in a query as `%3B` and not as `&`.
    #[serde(skip_serializing_if = "is_default")]
    pub encode_query_semicolons: bool,
    /// Remove `.`, `..` and doubled slashes from paths. Default: true.
    pub sanitize_path: bool,
    /// Most bytes of a request's head. Default: 1048576; 65536 under `hardened`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_header_bytes: Option<i64>,
    /// Most header fields of a request; Traefik has no such limit. Default: 1000; 100 under `hardened`; at
    /// most 16384.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_header_fields: Option<i64>,
    /// What happens to headers with `_` in their name. Default: `keep`; `delete` under `hardened`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underscore_headers_strategy: Option<UnderscoreStrategy>,
    /// How much clients may send, for routers that do not say: Doorward's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body: Option<RequestBodyConfig>,
    /// Give every request a name: Doorward's own. Absent: the client's `X-Request-Id` passes as any other header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestIdConfig>,
}

/// `http.requestId`: Doorward's own. The name goes to the server, to the client, and into the access log as
/// `RequestId`; that of a peer whose `X-Forwarded-*` headers are believed is kept, if it has 128 visible ASCII
/// characters at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestIdConfig {
    /// Header that has the name, of requests and answers. Default: `X-Request-Id`.
    pub header: String,
}

impl Default for RequestIdConfig {
    fn default() -> Self {
        Self { header: "X-Request-Id".to_owned() }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            redirections: None,
            middlewares: Vec::new(),
            tls: None,
            encoded_characters: None,
            encode_query_semicolons: false,
            sanitize_path: true,
            max_header_bytes: None,
            max_header_fields: None,
            underscore_headers_strategy: None,
            request_body: None,
            request_id: None,
        }
    }
}

impl HttpConfig {
    /// Most bytes of a request's head.
    pub fn max_header_bytes(&self) -> usize {
        limit(self.max_header_bytes, MAX_HEADER_BYTES)
    }

    /// Most header fields of a request.
    pub fn max_header_fields(&self) -> usize {
        limit(self.max_header_fields, MAX_HEADER_FIELDS)
    }

    /// What happens to headers with `_` in their name.
    pub fn underscore_headers_strategy(&self) -> UnderscoreStrategy {
        self.underscore_headers_strategy.unwrap_or_default()
    }
}

/// Traefik's limit of a request's head.
const MAX_HEADER_BYTES: i64 = 1 << 20;
/// Far above what any client sends, and below the size at which header maps get slow.
const MAX_HEADER_FIELDS: i64 = 1000;
/// More than this, a request could hold more names than the `http` crate's map does.
pub const MOST_HEADER_FIELDS: usize = 1 << 14;
const HARDENED_MAX_HEADER_BYTES: i64 = 64 << 10;
const HARDENED_MAX_HEADER_FIELDS: i64 = 100;

/// Go takes zero and less as "the default".
fn limit(value: Option<i64>, default: i64) -> usize {
    let value = value.filter(|&value| value > 0).unwrap_or(default);
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// `http.redirections`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RedirectionsConfig {
    /// To another entry point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_point: Option<RedirectEntryPointConfig>,
}

/// `http.redirections.entryPoint`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RedirectEntryPointConfig {
    /// Name of an entry point, or `:port`. Required.
    #[serde(skip_serializing_if = "is_default")]
    pub to: String,
    /// Scheme of the new URL. Default: `https`.
    #[serde(skip_serializing_if = "is_default")]
    pub scheme: String,
    /// 301 and 308, not 302 and 307. Default: true.
    pub permanent: bool,
    /// Priority of the router that redirects. Default: 9223372036854775806.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i64,
}

impl Default for RedirectEntryPointConfig {
    fn default() -> Self {
        Self {
            to: String::new(),
            scheme: "https".to_owned(),
            permanent: true,
            priority: i64::MAX - 1,
        }
    }
}

/// `http2`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Http2Config {
    /// Streams that one connection may have open. Default, and 0: 250.
    #[serde(skip_serializing_if = "is_default")]
    pub max_concurrent_streams: i32,
    /// Bytes of the table that request headers are read with. Default, and 0: 4096.
    #[serde(skip_serializing_if = "is_default")]
    pub max_decoder_header_table_size: i32,
    /// Bytes of the table that answers are written with. Only the default, 4096, is served.
    #[serde(skip_serializing_if = "is_default")]
    pub max_encoder_header_table_size: i32,
}

impl Default for Http2Config {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 250,
            max_decoder_header_table_size: 4096,
            max_encoder_header_table_size: 4096,
        }
    }
}

/// `udp`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UdpConfig {
    /// Lifetime of an idle session. Default: 3s.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: GoDuration,
}

impl Default for UdpConfig {
    fn default() -> Self {
        Self { timeout: GoDuration::from_secs(3) }
    }
}

impl EntryPointConfig {
    /// An entry point at an address, with every default.
    pub fn at(address: &str) -> Self {
        Self { address: address.to_owned(), ..Self::default() }
    }

    /// Fills in what depends on the profile, and what an entry point means by an unset option.
    pub fn complete(&mut self, profile: Profile) {
        let hardened = profile == Profile::Hardened;
        let (bytes, fields) = if hardened {
            (HARDENED_MAX_HEADER_BYTES, HARDENED_MAX_HEADER_FIELDS)
        } else {
            (MAX_HEADER_BYTES, MAX_HEADER_FIELDS)
        };
        self.http.max_header_bytes.get_or_insert(bytes);
        self.http.max_header_fields.get_or_insert(fields);
        self.http.underscore_headers_strategy.get_or_insert(if hardened {
            UnderscoreStrategy::Delete
        } else {
            UnderscoreStrategy::Keep
        });
        if hardened {
            let characters = self.http.encoded_characters.get_or_insert_default();
            for allowed in [
                &mut characters.allow_encoded_slash,
                &mut characters.allow_encoded_back_slash,
                &mut characters.allow_encoded_null_character,
                &mut characters.allow_encoded_semicolon,
                &mut characters.allow_encoded_percent,
                &mut characters.allow_encoded_question_mark,
                &mut characters.allow_encoded_hash,
            ] {
                allowed.get_or_insert(false);
            }
        }
        let observed = &mut self.observability;
        for option in [&mut observed.access_logs, &mut observed.metrics, &mut observed.tracing] {
            option.get_or_insert(true);
        }
        observed.trace_verbosity.get_or_insert_with(|| "minimal".to_owned());
    }
}

/// The last part of an entry point's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP, the default.
    Tcp,
    /// UDP.
    Udp,
}

/// An entry point's address, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// An IP address or a name; empty for every address of the machine.
    pub host: String,
    /// The port; 0 lets the system choose.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// A text that is no address of an entry point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid address `{text}`: {reason}")]
pub struct AddressError {
    text: String,
    reason: &'static str,
}

impl Address {
    /// The address without its protocol, as it is given to the resolver.
    pub fn host_port(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = |reason| AddressError { text: text.to_owned(), reason };
        let (place, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((place, name)) if name.eq_ignore_ascii_case("tcp") => (place, Protocol::Tcp),
            Some((place, name)) if name.eq_ignore_ascii_case("udp") => (place, Protocol::Udp),
            Some(_) => return Err(error("after the `/` stands `tcp` or `udp`")),
        };
        let Some((host, port)) = place.rsplit_once(':') else {
            return Err(error("write `host:port`, or `:port` for every address of the machine"));
        };
        let port = port.parse().map_err(|_| error("the port is not a number up to 65535"))?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner,
            None if host.contains(':') => return Err(error("an IPv6 address stands in brackets")),
            None => host,
        };
        if host.contains(|c: char| c.is_whitespace() || matches!(c, '[' | ']' | '@')) {
            return Err(error("the host is not valid"));
        }
        Ok(Self { host: host.to_owned(), port, protocol })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host_port())?;
        if self.protocol == Protocol::Udp { f.write_str("/udp") } else { Ok(()) }
    }
}

/// Reads one entry of `trustedIPs`: an address or a range.
pub fn parse_range(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_host_port_and_protocol() {
        let read = |text: &str| text.parse::<Address>().map(|a| (a.host_port(), a.protocol));
        let tcp = |text: &str| Ok((text.to_owned(), Protocol::Tcp));
        assert_eq!(read(":80"), tcp(":80"));
        assert_eq!(read("127.0.0.1:8080/TCP"), tcp("127.0.0.1:8080"));
        assert_eq!(read("[::1]:443/tcp"), tcp("[::1]:443"));
        assert_eq!(read("localhost:0"), tcp("localhost:0"));
        assert_eq!(read(":53/Udp"), Ok((":53".to_owned(), Protocol::Udp)));
        for text in ["", "80", ":", ":x", ":65536", ":80/sctp", ":80/tcp/udp", "::1:80", "a b:80"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!("[::]:53/udp".parse::<Address>().unwrap().to_string(), "[::]:53/udp");
    }

    #[test]
    fn ranges() {
        for text in ["10.0.0.0/8", "127.0.0.1", "::1", "fc00::/7"] {
            assert!(parse_range(text).is_some(), "{text}");
        }
        for text in ["", "10.0.0.0/33", "host", "10.0.0"] {
            assert!(parse_range(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_api_shows_what_traefik_shows() {
        let mut entry_point = EntryPointConfig::at(":80");
        entry_point.complete(Profile::Safe);
        assert_eq!(
            serde_json::to_value(&entry_point).unwrap(),
            serde_json::json!({
                "address": ":80",
                "transport": {
                    "lifeCycle": {"graceTimeOut": "10s"},
                    "respondingTimeouts": {"readTimeout": "1m0s", "idleTimeout": "3m0s"},
                },
                "forwardedHeaders": {},
                "http": {
                    "sanitizePath": true, "maxHeaderBytes": 1_048_576, "maxHeaderFields": 1000,
                    "underscoreHeadersStrategy": "keep",
                },
                "http2": {
                    "maxConcurrentStreams": 250, "maxDecoderHeaderTableSize": 4096,
                    "maxEncoderHeaderTableSize": 4096,
                },
                "udp": {"timeout": "3s"},
                "observability": {
                    "accessLogs": true, "metrics": true, "tracing": true, "traceVerbosity": "minimal",
                },
            })
        );
    }

    #[test]
    fn hardened_fills_only_what_is_unset() {
        let mut entry_point = EntryPointConfig::at(":80");
        entry_point.http.max_header_fields = Some(200);
        entry_point.http.encoded_characters = Some(EncodedCharactersConfig {
            allow_encoded_slash: Some(true),
            ..EncodedCharactersConfig::default()
        });
        entry_point.observability.metrics = Some(false);
        entry_point.complete(Profile::Hardened);
        let http = &entry_point.http;
        assert_eq!((http.max_header_bytes(), http.max_header_fields()), (65_536, 200));
        assert_eq!(http.underscore_headers_strategy(), UnderscoreStrategy::Delete);
        let characters = http.encoded_characters.as_ref().unwrap();
        assert_eq!(characters.allow_encoded_slash, Some(true));
        assert_eq!(characters.allow_encoded_percent, Some(false));
        assert_eq!(entry_point.observability.metrics, Some(false));
        assert_eq!(entry_point.observability.access_logs, Some(true));
    }

    #[test]
    fn limits_of_zero_are_the_defaults() {
        let http = HttpConfig { max_header_bytes: Some(0), ..HttpConfig::default() };
        assert_eq!(http.max_header_bytes(), 1 << 20);
        assert_eq!(http.max_header_fields(), 1000);
    }
}
