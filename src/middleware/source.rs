//! Whom a limit counts a request for (`sourceCriterion`).
//!
//! A source is a few bytes whatever the client sent: texts are kept as a keyed hash.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
#[cfg(feature = "redis")]
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::LazyLock;

use http::header::HOST;
use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
#[cfg(feature = "redis")]
use sha2::{Digest, Sha256};

use super::BuildContext;
use super::ip_strategy::{ClientIp, IpStrategy, IpStrategyConfig};
use crate::exchange::Context;
use crate::exchange::canonical::canonical_host;
use crate::values::{BuildError, Profile, is_default};

/// `sourceCriterion`: one of three, or nothing for the default of its middleware.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SourceCriterionConfig {
    /// By address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_strategy: Option<IpStrategyConfig>,
    /// By the value of this request header; requests without it share one source.
    #[serde(skip_serializing_if = "is_default")]
    pub request_header_name: String,
    /// By the host of the request.
    #[serde(skip_serializing_if = "is_default")]
    pub request_host: bool,
}

/// Whom a request counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    /// An address.
    Ip(IpAddr),
    /// A text.
    Text(u64, u64),
    /// Whoever cannot be told apart.
    Common,
}

/// A compiled `sourceCriterion`.
#[derive(Debug)]
pub(super) struct Criterion {
    by: By,
}

/// One pair for the process: counters outlive a reload, so sources must too.
static KEYS: LazyLock<(RandomState, RandomState)> =
    LazyLock::new(|| (RandomState::new(), RandomState::new()));

#[derive(Debug)]
enum By {
    Ip(IpStrategy),
    Header(HeaderName),
    Host,
    RawHost,
}

/// What counts when nothing is configured.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fallback {
    /// The peer's address.
    PeerIp,
    /// The host of the request.
    Host,
}

impl Criterion {
    /// Compiles a criterion.
    pub(super) fn build(
        config: Option<&SourceCriterionConfig>,
        fallback: Fallback,
        cx: &BuildContext<'_>,
    ) -> Result<Self, BuildError> {
        let empty = SourceCriterionConfig::default();
        let config = config.unwrap_or(&empty);
        let at = |message| Err(BuildError::at("sourceCriterion", message));
        let by_header = !config.request_header_name.is_empty();
        // A port or upper case must not make a new source; Traefik takes the header as it is.
        let host = || if cx.profile == Profile::Exact { By::RawHost } else { By::Host };
        let by = match (&config.ip_strategy, by_header, config.request_host) {
            (Some(_), true, _) => {
                return at("iPStrategy and RequestHeaderName are mutually exclusive");
            }
            (Some(_), _, true) => return at("iPStrategy and RequestHost are mutually exclusive"),
            (_, true, true) => {
                return at("requestHost and requestHeaderName are mutually exclusive");
            }
            (Some(strategy), ..) => By::Ip(strategy.build("sourceCriterion.ipStrategy")?),
            (None, true, _) => By::Header(config.request_header_name.parse().map_err(|_| {
                BuildError::at(
                    "sourceCriterion.requestHeaderName",
                    "`sourceCriterion.requestHeaderName` is no name of a header",
                )
            })?),
            (None, _, true) => host(),
            (None, false, false) => match fallback {
                // A client has as many addresses as it likes in the network that it was given.
                Fallback::PeerIp if cx.profile == Profile::Hardened => {
                    By::Ip(IpStrategy::PEER_NETWORK)
                }
                Fallback::PeerIp => By::Ip(IpStrategy::PEER),
                Fallback::Host => host(),
            },
        };
        Ok(Self { by })
    }

    /// Whom a request counts for.
    pub(super) fn source(&self, cx: &Context, headers: &HeaderMap) -> Source {
        match &self.by {
            By::Ip(strategy) => match strategy.address(cx, headers) {
                ClientIp::Known(ip) => Source::Ip(ip),
                ClientIp::Absent => Source::Common,
                // Otherwise a client could be as many sources as it can invent texts.
                ClientIp::Malformed => Source::Ip(cx.connection.peer_ip),
            },
            By::Header(name) => match headers.get(name) {
                Some(value) if !value.is_empty() => text(value.as_bytes()),
                _ => Source::Common,
            },
            By::Host => match headers.get(HOST).and_then(|value| value.to_str().ok()) {
                Some(host) => text(canonical_host(host).as_bytes()),
                None => Source::Common,
            },
            By::RawHost => match headers.get(HOST) {
                Some(host) => text(host.as_bytes()),
                None => Source::Common,
            },
        }
    }
}

/// Longer texts are kept as their digest: a client must not fill a store.
#[cfg(feature = "redis")]
const LONGEST: usize = 256;

#[cfg(feature = "redis")]
impl Criterion {
    /// Appends whom a request counts for, as Traefik writes it: the same in every process.
    pub(super) fn write_source(&self, cx: &Context, headers: &HeaderMap, to: &mut Vec<u8>) {
        let header =
            |name: &HeaderName| headers.get(name).map_or(&b""[..], http::HeaderValue::as_bytes);
        match &self.by {
            By::Ip(strategy) => {
                let ip = match strategy.address(cx, headers) {
                    ClientIp::Known(ip) => ip,
                    ClientIp::Absent => return,
                    ClientIp::Malformed => cx.connection.peer_ip,
                };
                // A vector takes any bytes.
                let _ = write!(to, "{ip}");
            }
            By::Header(name) => write_text(header(name), to),
            By::RawHost => write_text(header(&HOST), to),
            By::Host => {
                let host = headers.get(HOST).and_then(|value| value.to_str().ok());
                write_text(canonical_host(host.unwrap_or_default()).as_bytes(), to);
            }
        }
    }
}

#[cfg(feature = "redis")]
fn write_text(text: &[u8], to: &mut Vec<u8>) {
    if text.len() <= LONGEST {
        to.extend_from_slice(text);
        return;
    }
    for byte in Sha256::digest(text) {
        let _ = write!(to, "{byte:02x}");
    }
}

fn text(bytes: &[u8]) -> Source {
    let (first, second) = &*KEYS;
    Source::Text(first.hash_one(bytes), second.hash_one(bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exchange::Middleware;
    use crate::middleware::testing::{context, get, with};
    use crate::middleware::{Build, testing};

    /// Compiles a criterion inside of a build.
    struct Probe<'a>(&'a SourceCriterionConfig, std::sync::Mutex<Option<Criterion>>);

    impl Build for Probe<'_> {
        fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
            *self.1.lock().unwrap() = Some(Criterion::build(Some(self.0), Fallback::PeerIp, cx)?);
            Err(BuildError::new("done"))
        }
    }

    fn build(config: &SourceCriterionConfig, profile: Profile) -> Result<Criterion, BuildError> {
        let probe = Probe(config, std::sync::Mutex::default());
        let setting = testing::Setting { profile, ..testing::Setting::default() };
        let error = setting.build(&probe).err().unwrap();
        probe.1.into_inner().unwrap().ok_or(error)
    }

    #[test]
    fn two_criteria_are_an_error() {
        let ip = Some(IpStrategyConfig::default());
        for (ip_strategy, header, request_host) in
            [(ip.clone(), "X-A", false), (ip, "", true), (None, "X-A", true)]
        {
            let config = SourceCriterionConfig {
                ip_strategy,
                request_header_name: header.into(),
                request_host,
            };
            let error = build(&config, Profile::Safe).unwrap_err();
            assert!(error.message.ends_with("are mutually exclusive"), "{error}");
        }
    }

    #[test]
    fn hosts_are_told_apart_without_port_and_case() {
        let config = SourceCriterionConfig { request_host: true, ..Default::default() };
        for (profile, same) in [(Profile::Safe, true), (Profile::Exact, false)] {
            let criterion = build(&config, profile).unwrap();
            let source = |host| {
                let mut request = get("/");
                request.headers_mut().insert(HOST, http::HeaderValue::from_static(host));
                criterion.source(&context("::1"), request.headers())
            };
            assert_eq!(source("a.test") == source("A.test:8080"), same);
            assert_ne!(source("a.test"), source("b.test"));
        }
    }

    /// RP 7.5: the keys in Redis.
    #[cfg(feature = "redis")]
    #[test]
    fn sources_are_written_as_traefik_writes_them() {
        let by = |ip_strategy, header: &str, request_host| SourceCriterionConfig {
            ip_strategy,
            request_header_name: header.into(),
            request_host,
        };
        let depth = |ipv6_subnet| {
            Some(IpStrategyConfig { depth: 1, ipv6_subnet, ..IpStrategyConfig::default() })
        };
        let long = "x".repeat(257);
        let digest = text_of(Sha256::digest(&long).as_slice());
        for (config, profile, forwarded, key, want) in [
            (by(None, "", false), Profile::Safe, "", "", "192.0.2.1"),
            (by(depth(None), "", false), Profile::Safe, "2001:DB8::1", "", "2001:db8::1"),
            (by(depth(Some(32)), "", false), Profile::Safe, "2001:db8::1", "", "2001:db8::"),
            (by(depth(None), "", false), Profile::Safe, "", "", ""),
            (by(depth(None), "", false), Profile::Safe, "nonsense", "", "192.0.2.1"),
            (by(None, "X-Key", false), Profile::Safe, "", "a b", "a b"),
            (by(None, "X-Key", false), Profile::Safe, "", "", ""),
            (by(None, "X-Key", false), Profile::Safe, "", &long[1..], &long[1..]),
            (by(None, "X-Key", false), Profile::Safe, "", &long, &digest),
            (by(None, "", true), Profile::Safe, "", "", "a.test"),
            (by(None, "", true), Profile::Exact, "", "", "A.test:80"),
        ] {
            let criterion = build(&config, profile).unwrap();
            let mut request = get("/");
            request.headers_mut().insert(HOST, http::HeaderValue::from_static("A.test:80"));
            for (name, value) in [("x-forwarded-for", forwarded), ("x-key", key)] {
                if !value.is_empty() {
                    request = with(request, name, value);
                }
            }
            let mut written = Vec::new();
            criterion.write_source(&context("192.0.2.1"), request.headers(), &mut written);
            assert_eq!(String::from_utf8(written).unwrap(), want, "{config:?} {profile:?}");
        }
    }

    #[cfg(feature = "redis")]
    fn text_of(bytes: &[u8]) -> String {
        use std::fmt::Write as _;
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    #[test]
    fn a_missing_header_is_the_common_source() {
        let config =
            SourceCriterionConfig { request_header_name: "X-Key".into(), ..Default::default() };
        let criterion = build(&config, Profile::Safe).unwrap();
        let cx = context("::1");
        assert_eq!(criterion.source(&cx, get("/").headers()), Source::Common);
        let one = criterion.source(&cx, with(get("/"), "x-key", "1").headers());
        let two = criterion.source(&cx, with(get("/"), "x-key", "2").headers());
        assert_ne!(one, two);
        assert_eq!(one, criterion.source(&cx, with(get("/"), "X-Key", "1").headers()));
    }

    #[test]
    fn invented_addresses_count_for_the_peer() {
        let config = SourceCriterionConfig {
            ip_strategy: Some(IpStrategyConfig { depth: 1, ..Default::default() }),
            ..Default::default()
        };
        let criterion = build(&config, Profile::Safe).unwrap();
        let cx = context("192.0.2.1");
        let request = with(get("/"), "x-forwarded-for", "nonsense");
        assert_eq!(
            criterion.source(&cx, request.headers()),
            Source::Ip("192.0.2.1".parse().unwrap())
        );
        assert_eq!(criterion.source(&cx, get("/").headers()), Source::Common);
    }
}
