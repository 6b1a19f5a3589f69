//! Which address a request counts for: the peer's, or one out of `X-Forwarded-For`.
//!
//! Entries are counted from the right, since whatever stands to the left of the trusted ones was
//! written by the client. The peer itself is not in the header yet. IPv4-mapped IPv6 is IPv4.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::exchange::Context;
use crate::exchange::forwarded::{TrustedSources, X_FORWARDED_FOR};
use crate::values::{BuildError, is_default};

/// `ipStrategy`: which address counts. Nothing set: the peer's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IpStrategyConfig {
    /// The entry of `X-Forwarded-For` at this place from the right, from 1. Default: 0, unused.
    #[serde(skip_serializing_if = "is_default")]
    pub depth: i64,
    /// The first entry from the right that is not among these addresses or ranges. `depth` wins.
    #[serde(rename = "excludedIPs", skip_serializing_if = "Vec::is_empty")]
    pub excluded_ips: Vec<String>,
    /// Length, 1 to 128, that the peer's or `depth`'s IPv6 address is cut to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_subnet: Option<i64>,
}

/// The address that a request counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientIp {
    /// This one.
    Known(IpAddr),
    /// The header has no entry there.
    Absent,
    /// The entry there is no address.
    Malformed,
}

/// A compiled `ipStrategy`.
#[derive(Debug)]
pub(super) struct IpStrategy {
    choice: Choice,
    /// Bits of an IPv6 address that count.
    mask: Option<u128>,
}

#[derive(Debug)]
enum Choice {
    Peer,
    Depth(usize),
    Excluded(TrustedSources),
}

impl IpStrategyConfig {
    /// Compiles the strategy; `at` is where it stands in its middleware's options.
    pub(super) fn build(&self, at: &str) -> Result<IpStrategy, BuildError> {
        let mask = match self.ipv6_subnet {
            None => None,
            Some(bits @ 1..=128) => Some(u128::MAX << (128 - bits)),
            Some(bits) => {
                return Err(BuildError::at(
                    format!("{at}.ipv6Subnet"),
                    format!("invalid IPv6 subnet {bits}: must be from 1 to 128"),
                ));
            }
        };
        let choice = match usize::try_from(self.depth) {
            Err(_) => {
                return Err(BuildError::at(format!("{at}.depth"), "`depth` cannot be negative"));
            }
            Ok(0) if self.excluded_ips.is_empty() => Choice::Peer,
            Ok(0) => Choice::Excluded(ranges(&self.excluded_ips, &format!("{at}.excludedIPs"))?),
            Ok(depth) => Choice::Depth(depth),
        };
        Ok(IpStrategy { choice, mask })
    }
}

impl IpStrategy {
    /// The peer's address.
    pub(super) const PEER: Self = Self { choice: Choice::Peer, mask: None };
    /// The peer's address, of IPv6 only the 64 bits that name its network.
    pub(super) const PEER_NETWORK: Self =
        Self { choice: Choice::Peer, mask: Some(u128::MAX << 64) };

    /// The address that a request counts for.
    pub(super) fn address(&self, cx: &Context, headers: &HeaderMap) -> ClientIp {
        self.address_as(cx, headers, parse)
    }

    /// The same where `read` says what an entry is.
    pub(super) fn address_as(
        &self,
        cx: &Context,
        headers: &HeaderMap,
        read: impl Fn(&[u8]) -> ClientIp,
    ) -> ClientIp {
        match &self.choice {
            Choice::Peer => ClientIp::Known(self.masked(cx.connection.peer_ip)),
            Choice::Depth(depth) => match entries_from_right(headers).nth(depth - 1) {
                None => ClientIp::Absent,
                Some(entry) => match read(entry) {
                    ClientIp::Known(ip) => ClientIp::Known(self.masked(ip)),
                    other => other,
                },
            },
            Choice::Excluded(excluded) => entries_from_right(headers)
                .filter(|entry| !entry.is_empty())
                .map(read)
                .find(|found| !matches!(found, ClientIp::Known(ip) if excluded.trust(*ip)))
                .unwrap_or(ClientIp::Absent),
        }
    }

    /// Whether this is one of the addresses that are passed over.
    pub(super) fn excludes(&self, ip: IpAddr) -> bool {
        matches!(&self.choice, Choice::Excluded(excluded) if excluded.trust(ip))
    }

    fn masked(&self, ip: IpAddr) -> IpAddr {
        match (ip, self.mask) {
            (IpAddr::V6(ip), Some(mask)) => Ipv6Addr::from_bits(ip.to_bits() & mask).into(),
            _ => ip,
        }
    }
}

/// Reads addresses and ranges; `at` is the option that holds them.
pub(super) fn ranges(texts: &[String], at: &str) -> Result<TrustedSources, BuildError> {
    let mut ranges = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let text = text.trim();
        let range = match text.parse::<IpNet>() {
            Ok(range) => range,
            Err(_) => text.parse::<IpAddr>().map(IpNet::from).map_err(|_| {
                BuildError::at(
                    format!("{at}[{index}]"),
                    format!("{text:?} is neither an address nor a range such as 10.0.0.0/8"),
                )
            })?,
        };
        ranges.push(range);
    }
    Ok(TrustedSources::new(false, &ranges))
}

fn entries_from_right(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// Strict, as Go's `net.ParseIP`: no port, brackets, quotes or zone.
pub(super) fn parse(entry: &[u8]) -> ClientIp {
    match str::from_utf8(entry).ok().and_then(|text| text.parse::<IpAddr>().ok()) {
        Some(ip) => ClientIp::Known(ip.to_canonical()),
        None if entry.is_empty() => ClientIp::Absent,
        None => ClientIp::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::testing::{context, get, with};

    fn address(config: &IpStrategyConfig, peer: &str, forwarded: &[&str]) -> ClientIp {
        let mut request = get("/");
        for line in forwarded {
            request = with(request, "x-forwarded-for", line);
        }
        config.build("ipStrategy").unwrap().address(&context(peer), request.headers())
    }

    fn known(ip: &str) -> ClientIp {
        ClientIp::Known(ip.parse().unwrap())
    }

    /// T-13 for addresses in a header.
    #[test]
    fn depth_counts_from_the_right() {
        for (depth, forwarded, want) in [
            (0, &["6.6.6.6"][..], known("192.0.2.1")),
            (1, &["1.1.1.1, 6.6.6.6"], known("6.6.6.6")),
            (2, &["1.1.1.1,6.6.6.6 , 10.0.0.1"], known("6.6.6.6")),
            (2, &["1.1.1.1", "6.6.6.6"], known("1.1.1.1")),
            (3, &["1.1.1.1, 6.6.6.6"], ClientIp::Absent),
            (1, &[], ClientIp::Absent),
            (1, &["1.1.1.1,"], ClientIp::Absent),
            (1, &["::ffff:6.6.6.6"], known("6.6.6.6")),
            (1, &["2001:db8::1"], known("2001:db8::1")),
        ] {
            let config = IpStrategyConfig { depth, ..IpStrategyConfig::default() };
            assert_eq!(address(&config, "192.0.2.1", forwarded), want, "{depth} {forwarded:?}");
        }
    }

    #[test]
    fn odd_entries_are_no_addresses() {
        let config = IpStrategyConfig { depth: 1, ..IpStrategyConfig::default() };
        for entry in [
            "1.2.3.4:80",
            "[::1]",
            "[::1]:443",
            "\"1.2.3.4\"",
            "fe80::1%eth0",
            "unknown",
            "_x",
            "1.2.3",
            "1.2.3.4/32",
            "01.2.3.4",
            "1.2.3.4.5",
            "::ffff:1.2.3",
            "0x7f.1",
            "é",
            "1 2",
        ] {
            assert_eq!(address(&config, "192.0.2.1", &[entry]), ClientIp::Malformed, "{entry}");
        }
        let long = vec!["10.0.0.1"; 500].join(",");
        assert_eq!(address(&config, "192.0.2.1", &[&long]), known("10.0.0.1"));
    }

    #[test]
    fn excluded_addresses_are_passed_over() {
        let config = IpStrategyConfig {
            excluded_ips: vec!["10.0.0.0/8".into(), "192.0.2.9".into()],
            ..IpStrategyConfig::default()
        };
        for (forwarded, want) in [
            ("1.1.1.1, 6.6.6.6, 10.0.0.1", known("6.6.6.6")),
            ("6.6.6.6, , 192.0.2.9", known("6.6.6.6")),
            ("6.6.6.6, ::ffff:10.1.1.1", known("6.6.6.6")),
            ("6.6.6.6, x, 10.0.0.1", ClientIp::Malformed),
            ("10.0.0.1, 10.0.0.2", ClientIp::Absent),
        ] {
            assert_eq!(address(&config, "192.0.2.1", &[forwarded]), want, "{forwarded}");
        }
        let both = IpStrategyConfig { depth: 1, ..config };
        assert_eq!(address(&both, "192.0.2.1", &["10.0.0.1"]), known("10.0.0.1"));
    }

    #[test]
    fn ipv6_is_cut_to_its_subnet() {
        let config = IpStrategyConfig { ipv6_subnet: Some(64), ..IpStrategyConfig::default() };
        assert_eq!(address(&config, "2001:db8:1:2:3::4", &[]), known("2001:db8:1:2::"));
        assert_eq!(address(&config, "192.0.2.1", &[]), known("192.0.2.1"));
    }

    #[test]
    fn bad_options_are_named() {
        for (config, option) in [
            (IpStrategyConfig { depth: -1, ..IpStrategyConfig::default() }, "s.depth"),
            (
                IpStrategyConfig { ipv6_subnet: Some(0), ..IpStrategyConfig::default() },
                "s.ipv6Subnet",
            ),
            (
                IpStrategyConfig { ipv6_subnet: Some(129), ..IpStrategyConfig::default() },
                "s.ipv6Subnet",
            ),
            (
                IpStrategyConfig {
                    excluded_ips: vec!["10/8".into()],
                    ..IpStrategyConfig::default()
                },
                "s.excludedIPs[0]",
            ),
        ] {
            assert_eq!(config.build("s").unwrap_err().option, option);
        }
    }
}
