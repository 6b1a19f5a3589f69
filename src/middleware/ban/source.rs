//! Sources of bans: how much of an address counts, which network it belongs to, and how it is
//! written in the log and in the admin API.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::middleware::source::Source;
use crate::values::BuildError;

/// How many bits of an IPv6 address count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix(u8);

impl Prefix {
    /// Reads `ipv6Subnet`.
    pub(super) fn new(bits: i64) -> Result<Self, BuildError> {
        u8::try_from(bits).ok().filter(|bits| (1..=128).contains(bits)).map(Self).ok_or_else(|| {
            let message = format!("invalid IPv6 subnet {bits}: must be from 1 to 128");
            BuildError::at("ipv6Subnet", message)
        })
    }

    /// The source that an address belongs to.
    pub(super) fn source(self, address: IpAddr) -> Source {
        Source::Ip(match address.to_canonical() {
            IpAddr::V6(ip) => cut(ip, self.0).into(),
            ip @ IpAddr::V4(_) => ip,
        })
    }

    /// A source as people read it, and as [`Self::parse`] does.
    pub(super) fn text(self, source: Source) -> String {
        match source {
            Source::Ip(IpAddr::V6(ip)) if self.0 < 128 => format!("{ip}/{}", self.0),
            Source::Ip(ip) => ip.to_string(),
            Source::Text(first, second) => format!("hash:{first:016x}{second:016x}"),
            Source::Common => "common".to_owned(),
        }
    }

    /// Reads a source as it is written, or any address or network that lies in it.
    pub(super) fn parse(self, text: &str) -> Option<Source> {
        if let Some(hash) = text.strip_prefix("hash:") {
            let digits = hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            let both = u128::from_str_radix(hash, 16).ok().filter(|_| digits)?;
            let [first, second] = [both >> 64, both & u128::from(u64::MAX)];
            return Some(Source::Text(first.try_into().ok()?, second.try_into().ok()?));
        }
        let address = match text.split_once('/') {
            Some((address, bits)) => {
                let address = address.parse::<IpAddr>().ok()?;
                let bits: u8 = bits.parse().ok()?;
                // A wider network than what counts as one source is many of them.
                let own = match address {
                    IpAddr::V6(ip) if ip.to_ipv4_mapped().is_none() => self.0..=128,
                    IpAddr::V6(_) => 128..=128,
                    IpAddr::V4(_) => 32..=32,
                };
                own.contains(&bits).then_some(address)?
            }
            None => text.parse().ok()?,
        };
        Some(self.source(address))
    }

    /// What can be banned, as people read it.
    pub(super) fn described(self) -> String {
        format!(
            "banned are IPv4 addresses and IPv6 networks of /{}, by any address of theirs",
            self.0
        )
    }

    /// The one address that `text` names, if it names no more than that.
    pub(super) fn single(text: &str) -> Option<IpAddr> {
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { "32" } else { "128" };
        (bits.is_empty() || bits == whole).then_some(address.to_canonical())
    }
}

/// The network that bans are counted by when there is no room: what one party has for itself, with
/// IPv6, or can easily get, with IPv4. A text is a network of its own.
pub(super) fn network(source: Source) -> Source {
    match source {
        Source::Ip(IpAddr::V4(ip)) => {
            Source::Ip(Ipv4Addr::from_bits(ip.to_bits() & (u32::MAX << 8)).into())
        }
        Source::Ip(IpAddr::V6(ip)) => Source::Ip(cut(ip, 48).into()),
        other => other,
    }
}

fn cut(ip: Ipv6Addr, bits: u8) -> Ipv6Addr {
    let host = 128 - u32::from(bits.min(128));
    Ipv6Addr::from_bits(ip.to_bits() & u128::MAX.checked_shl(host).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(bits: i64) -> Prefix {
        Prefix::new(bits).unwrap()
    }

    #[test]
    fn sources_are_read_as_they_are_written() {
        for (bits, address, want) in [
            (64, "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
            (48, "2001:db8:1:2:3::4", "2001:db8:1::/48"),
            (128, "2001:db8::4", "2001:db8::4"),
            (64, "192.0.2.1", "192.0.2.1"),
            (64, "::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            let source = prefix(bits).source(address.parse().unwrap());
            assert_eq!(prefix(bits).text(source), want);
            assert_eq!(prefix(bits).parse(want), Some(source));
            assert_eq!(prefix(bits).parse(address), Some(source));
        }
        let source = Source::Text(1, u64::MAX);
        assert_eq!(prefix(64).parse(&prefix(64).text(source)), Some(source));
        for (bits, part, want) in [
            (64, "2001:db8:1:2:3::4/128", "2001:db8:1:2::/64"),
            (64, "2001:db8:1:2:3::/80", "2001:db8:1:2::/64"),
            (64, "2001:db8:1:2:3::4/64", "2001:db8:1:2::/64"),
            (48, "2001:db8:1:2::/64", "2001:db8:1::/48"),
            (128, "2001:db8::4/128", "2001:db8::4"),
            (64, "192.0.2.1/32", "192.0.2.1"),
            (64, "::ffff:192.0.2.1/128", "192.0.2.1"),
        ] {
            let source = prefix(bits).parse(part).unwrap();
            assert_eq!(prefix(bits).text(source), want, "{part}");
        }
        for odd in [
            "",
            "x",
            "192.0.2.1/31",
            "192.0.2.1/64",
            "::ffff:192.0.2.1/96",
            "2001:db8::/48",
            "2001:db8::/129",
            "2001:db8::/",
            "hash:12",
            "hash:+0000000000000000000000000000001",
            "common",
        ] {
            assert_eq!(prefix(64).parse(odd), None, "{odd}");
        }
        for bits in [0, -1, 129, 320] {
            assert_eq!(Prefix::new(bits).unwrap_err().option, "ipv6Subnet");
        }
    }

    #[test]
    fn one_address_may_be_written_as_a_network() {
        for (text, want) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1/32", Some("192.0.2.1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("2001:db8::1/128", Some("2001:db8::1")),
            ("2001:db8::1/64", None),
            ("192.0.2.1/31", None),
            ("hash:1", None),
        ] {
            assert_eq!(Prefix::single(text), want.map(|want| want.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn networks_are_what_one_party_has() {
        let of = |text: &str| prefix(64).text(network(prefix(64).parse(text).unwrap()));
        assert_eq!(of("192.0.2.77"), "192.0.2.0");
        assert_eq!(of("2001:db8:1:2::/64"), "2001:db8:1::/64");
        assert_eq!(network(Source::Text(1, 2)), Source::Text(1, 2));
    }
}
