//! `limits`: how much of everything one client may take, at every entry point. Doorward's own.
//!
//! The structs keep what is written, so that nothing is shown that nobody set; [`LimitsConfig::in_force`] adds the
//! defaults, of which some follow from the profile.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::diagnostics::Diagnostic;
use crate::config::overload::OverloadConfig;
use crate::config::tree::Node;
use crate::values::{GoDuration, Profile, is_default};

/// `limits`. A limit of 0 is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LimitsConfig {
    /// Open connections.
    #[serde(skip_serializing_if = "is_default")]
    pub connections: ConnectionLimitsConfig,
    /// Handshakes of TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub handshakes: HandshakeLimitsConfig,
    /// Heads of requests, and what a client says first.
    #[serde(skip_serializing_if = "is_default")]
    pub request_head: RequestHeadLimitsConfig,
    /// Bodies of requests, for routers and services that say nothing of it.
    #[serde(skip_serializing_if = "is_default")]
    pub request_body: RequestBodyLimitsConfig,
    /// Clients that do not take their answers.
    #[serde(skip_serializing_if = "is_default")]
    pub answer: AnswerLimitsConfig,
    /// What a connection of HTTP/2 may bring besides requests.
    #[serde(skip_serializing_if = "is_default")]
    pub http2: Http2LimitsConfig,
    /// What is given up, step by step, when memory or descriptors run short.
    #[serde(skip_serializing_if = "is_default")]
    pub overload: OverloadConfig,
}

/// `limits.connections`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConnectionLimitsConfig {
    /// Open connections of one client address (IPv6: of one /64), the one that a trusted PROXY protocol header names.
    /// Peers in `forwardedHeaders.trustedIPs` speak for many and have no such limit. Default: 0; under `hardened` 1000,
    /// or a quarter of `total` if that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_address: Option<i64>,
    /// Open connections of all clients together; the entry point `traefik` may have 64 more. Those that rest are closed
    /// from `overload.stopKeepAlive` of it on. Default: half of the descriptors that the process may have, but for 16; 0
    /// under `exact`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<i64>,
}

/// `limits.handshakes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HandshakeLimitsConfig {
    /// Hellos that one worker answers before it looks after its other connections again. Default: 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_worker: Option<i64>,
}

/// `limits.requestHead`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestHeadLimitsConfig {
    /// From the start of a connection, with PROXY protocol and TLS, to the end of its first head, and from the first byte
    /// of another to its end; over HTTP/2 to the end of what every client says first, and then for each head. A shorter
    /// `readTimeout` stays. Default: 0; 10s under `hardened`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
}

/// `limits.requestBody`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestBodyLimitsConfig {
    /// Bytes per second that a client must send of a body on average, where neither a `bodyMinRate` nor a
    /// `readTimeout` is written; then 408. Bodies of gRPC may be slow. Default: 0; 240 under `hardened`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rate: Option<i64>,
    /// How long a body may be slower than that at its beginning. Default: 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<GoDuration>,
}

/// `limits.answer`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AnswerLimitsConfig {
    /// How long a client may take nothing while there is something for it: then its connection ends or, where the
    /// window of an HTTP/2 stream is shut, that stream. The kernel tells of every 64 KiB that are taken, a stream of
    /// every 16 KiB, so a client must take as much in this time; while its connection moves, a stream waits its turn ten
    /// times as long. Tunnels have no such limit. Default: 0; 45s under `hardened`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall: Option<GoDuration>,
}

/// `limits.http2`. What goes beyond ends the connection with `ENHANCE_YOUR_CALM`; peers that
/// `forwardedHeaders.trustedIPs` names speak for many and are spared. Defaults: 0 under `exact`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Http2LimitsConfig {
    /// Frames that carry no request and no body worth it, which a connection may send at once. Every 32 bytes of
    /// answers allow one more. Default: 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<i64>,
    /// How many of them a second adds again. Default: 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_per_second: Option<i64>,
    /// Streams that a connection may reset at once, and never less than twice `http2.maxConcurrentStreams`. Every
    /// request that is answered to its end allows one more. Default: 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets: Option<i64>,
    /// How many of them a second adds again. Default: 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_per_second: Option<i64>,
}

/// How much may come at once, and how much more each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// At once.
    pub burst: u32,
    /// More in each second.
    pub per_second: u32,
}

/// The limits after profile and defaults; `None` is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// See [`ConnectionLimitsConfig::per_address`].
    pub per_address: Option<u32>,
    /// See [`ConnectionLimitsConfig::total`].
    pub total: Option<usize>,
    /// See [`HandshakeLimitsConfig::per_worker`].
    pub handshakes: Option<usize>,
    /// See [`RequestHeadLimitsConfig::timeout`].
    pub head: Option<Duration>,
    /// See [`RequestBodyLimitsConfig`]: bytes per second, and the time before it counts.
    pub body: Option<(i64, GoDuration)>,
    /// See [`AnswerLimitsConfig::stall`].
    pub stall: Option<Duration>,
    /// See [`Http2LimitsConfig::frames`].
    pub frames: Option<Allowance>,
    /// See [`Http2LimitsConfig::resets`].
    pub resets: Option<Allowance>,
}

/// Descriptors that are kept besides those of connections to servers.
const SPARE_DESCRIPTORS: u64 = 16;
const HARDENED_PER_ADDRESS: u32 = 1000;

impl LimitsConfig {
    /// What holds under a profile, for a process that may have so many descriptors.
    pub fn in_force(&self, profile: Profile, descriptors: Option<u64>) -> Limits {
        let (exact, hardened) = (profile == Profile::Exact, profile == Profile::Hardened);
        let half = descriptors.map(|all| (all / 2).saturating_sub(SPARE_DESCRIPTORS).max(1));
        let half = half.and_then(|half| usize::try_from(half).ok()).filter(|_| !exact);
        let total = match self.connections.total {
            Some(written) => usize::try_from(written).ok().filter(|&most| most > 0),
            None => half,
        };
        let quarter = total.and_then(|total| u32::try_from(total / 4).ok());
        let by_default = HARDENED_PER_ADDRESS.min(quarter.unwrap_or(u32::MAX)).max(1);
        let time = |written: Option<GoDuration>, seconds| match written {
            Some(written) => written.positive(),
            None => hardened.then(|| Duration::from_secs(seconds)),
        };
        let body = &self.request_body;
        let rate = body.min_rate.unwrap_or(if hardened { 240 } else { 0 });
        let http2 = &self.http2;
        let allowance = |burst: Option<i64>, default, more: Option<i64>, default_more| {
            let burst = number(Some(burst.unwrap_or(if exact { 0 } else { default })))?;
            let per_second = number(Some(more.unwrap_or(default_more))).unwrap_or_default();
            Some(Allowance { burst, per_second })
        };
        Limits {
            per_address: match self.connections.per_address {
                Some(written) => number(Some(written)),
                None => hardened.then_some(by_default),
            },
            total,
            handshakes: number(Some(self.handshakes.per_worker.unwrap_or(4)))
                .and_then(|most| usize::try_from(most).ok()),
            head: time(self.request_head.timeout, 10),
            body: (rate > 0).then(|| (rate, body.grace.unwrap_or(GoDuration::from_secs(30)))),
            stall: time(self.answer.stall, 45),
            frames: allowance(http2.frames, 10_000, http2.frames_per_second, 1000),
            resets: allowance(http2.resets, 500, http2.resets_per_second, 50),
        }
    }

    /// Everything that is wrong with them, at its place in the tree of the whole configuration.
    pub fn validate(&self, node: &Node) -> Vec<Diagnostic> {
        let (connections, http2) = (&self.connections, &self.http2);
        let numbers = [
            ("connections.perAddress", connections.per_address),
            ("connections.total", connections.total),
            ("handshakes.perWorker", self.handshakes.per_worker),
            ("requestBody.minRate", self.request_body.min_rate),
            ("http2.frames", http2.frames),
            ("http2.framesPerSecond", http2.frames_per_second),
            ("http2.resets", http2.resets),
            ("http2.resetsPerSecond", http2.resets_per_second),
        ];
        let times = [
            ("requestHead.timeout", self.request_head.timeout),
            ("requestBody.grace", self.request_body.grace),
            ("answer.stall", self.answer.stall),
        ];
        let place = |option: &str| node.at_path(&format!("limits.{option}")).span.clone();
        let numbers = numbers.into_iter().filter_map(|(option, value)| {
            let message = match value? {
                value if value < 0 => {
                    format!("`limits.{option}` is negative: write a number, or 0 for no limit")
                }
                value if value > i64::from(u32::MAX) => {
                    format!("`limits.{option}` is {} at most", u32::MAX)
                }
                _ => return None,
            };
            Some(Diagnostic::error(message).at(&place(option)))
        });
        let times = times.into_iter().filter(|(_, time)| time.is_some_and(GoDuration::is_negative));
        let times = times.map(|(option, _)| {
            let message = format!(
                "`limits.{option}` is negative: write a duration such as 30s, or 0 for no limit"
            );
            Diagnostic::error(message).at(&place(option))
        });
        numbers.chain(times).collect()
    }
}

fn number(written: Option<i64>) -> Option<u32> {
    u32::try_from(written?).ok().filter(|&number| number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::{Format, Source, decode, parse};

    fn read(text: &str) -> (LimitsConfig, Vec<String>) {
        let text = format!("limits:\n{text}");
        let node = parse(&Source::new("f.yml", &*text, Format::Yaml)).unwrap();
        let limits: LimitsConfig = decode(node.at_path("limits")).unwrap();
        let found = limits.validate(&node).iter().map(Diagnostic::one_line).collect();
        (limits, found)
    }

    #[test]
    fn the_profile_decides_what_nobody_wrote() {
        let none = LimitsConfig::default();
        let exact = none.in_force(Profile::Exact, Some(4096));
        assert_eq!(exact, Limits { handshakes: Some(4), ..Limits::default() });
        let safe = none.in_force(Profile::Safe, Some(4096));
        assert_eq!((safe.total, safe.per_address), (Some(2032), None));
        assert_eq!(safe.frames, Some(Allowance { burst: 10_000, per_second: 1000 }));
        assert_eq!(safe.resets, Some(Allowance { burst: 500, per_second: 50 }));
        assert_eq!((safe.head, safe.body, safe.stall), (None, None, None));
        assert_eq!(none.in_force(Profile::Safe, None).total, None);
        let hardened = none.in_force(Profile::Hardened, Some(1024));
        assert_eq!((hardened.total, hardened.per_address), (Some(496), Some(124)));
        assert_eq!(none.in_force(Profile::Hardened, Some(1 << 20)).per_address, Some(1000));
        assert_eq!(hardened.head, Some(Duration::from_secs(10)));
        assert_eq!(hardened.body, Some((240, GoDuration::from_secs(30))));
        assert_eq!(hardened.stall, Some(Duration::from_secs(45)));
    }

    #[test]
    fn what_is_written_wins_and_zero_is_no_limit() {
        let (limits, found) = read(
            "  connections: {perAddress: 7, total: 0}\n  handshakes: {perWorker: 0}\n  requestHead: {timeout: 0}\n  \
             requestBody: {minRate: 5, grace: 1s}\n  answer: {stall: 2s}\n  http2: {frames: 0, resets: 3, resetsPerSecond: 0}\n",
        );
        assert_eq!(found, Vec::<String>::new());
        for profile in [Profile::Exact, Profile::Safe, Profile::Hardened] {
            let expected = Limits {
                per_address: Some(7),
                body: Some((5, GoDuration::from_secs(1))),
                stall: Some(Duration::from_secs(2)),
                resets: Some(Allowance { burst: 3, per_second: 0 }),
                ..Limits::default()
            };
            assert_eq!(limits.in_force(profile, Some(4096)), expected);
        }
    }

    #[test]
    fn what_means_nothing_is_refused_at_its_place() {
        let (_, found) = read(
            "  connections:\n    perAddress: -1\n  http2:\n    frames: 99999999999\n  answer:\n    stall: -3s\n",
        );
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("f.yml:3:") && found[0].contains("perAddress"), "{found:?}");
        assert!(found[1].contains("f.yml:5:") && found[1].contains("4294967295"), "{found:?}");
        assert!(found[2].contains("f.yml:7:") && found[2].contains("stall"), "{found:?}");
    }
}
