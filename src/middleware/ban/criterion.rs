//! Whom offences count for. A request that cannot be told from those of others counts for nobody:
//! otherwise one client would get all of them banned.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use super::source::Prefix;
use crate::exchange::Context;
use crate::middleware::BuildContext;
use crate::middleware::ip_strategy::{ClientIp, IpStrategy, parse};
use crate::middleware::source::{Criterion, Fallback, Source, SourceCriterionConfig};
use crate::values::BuildError;

/// A compiled `sourceCriterion` of a `ban`.
pub(super) enum BanCriterion {
    /// By addresses, which are never cut here: `allow` is asked for the whole one.
    Address(IpStrategy),
    /// By a header.
    Header(Criterion),
}

/// Whom a request counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) source: Source,
    /// The whole address, where sources are addresses.
    pub(super) address: Option<IpAddr>,
}

impl BanCriterion {
    /// Compiles a criterion.
    pub(super) fn build(
        config: Option<&SourceCriterionConfig>,
        cx: &BuildContext<'_>,
    ) -> Result<Self, BuildError> {
        let Some(config) = config else { return Ok(Self::Address(IpStrategy::PEER)) };
        // It also says what cannot stand together.
        let general = Criterion::build(Some(config), Fallback::PeerIp, cx)?;
        if config.request_host {
            let message = "`requestHost` is no source of offences: one client would ban a host for \
                           all; leave `sourceCriterion` out, or take `ipStrategy`";
            return Err(BuildError::at("sourceCriterion.requestHost", message));
        }
        if !config.request_header_name.is_empty() {
            return Ok(Self::Header(general));
        }
        let Some(strategy) = &config.ip_strategy else {
            return Ok(Self::Address(IpStrategy::PEER));
        };
        if strategy.ipv6_subnet.is_some() {
            let message = "write `ipv6Subnet` of the ban in place of the one of `ipStrategy`: \
                           `allow` is asked for whole addresses";
            return Err(BuildError::at("sourceCriterion.ipStrategy.ipv6Subnet", message));
        }
        strategy.build("sourceCriterion.ipStrategy").map(Self::Address)
    }

    /// Whether sources are addresses.
    pub(super) fn is_address(&self) -> bool {
        matches!(self, Self::Address(_))
    }

    /// Whom a request counts for, if for anybody; of IPv6 addresses `prefix` is the source.
    pub(super) fn who(&self, cx: &Context, headers: &HeaderMap, prefix: Prefix) -> Option<Who> {
        let address = match self {
            Self::Header(criterion) => {
                let source = criterion.source(cx, headers);
                let is_given = matches!(source, Source::Text(..));
                return is_given.then_some(Who { source, address: None });
            }
            Self::Address(strategy) => match strategy.address_as(cx, headers, entry) {
                ClientIp::Known(address) => address,
                // The peer is the client, unless it is known to be a proxy.
                ClientIp::Absent => {
                    Some(cx.connection.peer_ip).filter(|&peer| !strategy.excludes(peer))?
                }
                ClientIp::Malformed => return None,
            },
        };
        Some(Who { source: prefix.source(address), address: Some(address) })
    }
}

/// Reads an entry of `X-Forwarded-For`. Some proxies write the client's port behind its address,
/// which must not make each of its connections another source.
fn entry(entry: &[u8]) -> ClientIp {
    match parse(entry) {
        ClientIp::Malformed => {
            let text = str::from_utf8(entry).ok();
            let address = text.and_then(|text| text.parse::<SocketAddr>().ok());
            let known = |address: SocketAddr| ClientIp::Known(address.ip().to_canonical());
            address.map_or(ClientIp::Malformed, known)
        }
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Request;
    use crate::middleware::ip_strategy::IpStrategyConfig;
    use crate::middleware::testing::{context, get, with};

    fn address(strategy: &IpStrategyConfig, lines: &[&str]) -> Option<String> {
        let criterion = BanCriterion::Address(strategy.build("s").unwrap());
        let request = lines
            .iter()
            .fold(get("/"), |request: Request, line| with(request, "x-forwarded-for", line));
        let prefix = Prefix::new(64).unwrap();
        let who = criterion.who(&context("10.0.0.1"), request.headers(), prefix)?;
        assert_eq!(who.source, prefix.source(who.address.unwrap()));
        Some(who.address.unwrap().to_string())
    }

    #[test]
    fn who_cannot_be_told_apart_counts_for_nobody() {
        let depth = IpStrategyConfig { depth: 1, ..IpStrategyConfig::default() };
        for (lines, want) in [
            (&["6.6.6.6"][..], Some("6.6.6.6")),
            (&["1.1.1.1, 6.6.6.6:4711"], Some("6.6.6.6")),
            (&["[2001:db8::7]:443"], Some("2001:db8::7")),
            (&["[::ffff:6.6.6.6]:443"], Some("6.6.6.6")),
            (&["2001:db8::7"], Some("2001:db8::7")),
            (&[], Some("10.0.0.1")),
            (&["6.6.6.6,"], Some("10.0.0.1")),
            (&["unknown"], None),
            (&["6.6.6.6:x"], None),
            (&["6.6.6.6:70000"], None),
            (&["_hidden:80"], None),
        ] {
            assert_eq!(address(&depth, lines).as_deref(), want, "{lines:?}");
        }
        let two = IpStrategyConfig { depth: 2, ..IpStrategyConfig::default() };
        assert_eq!(address(&two, &["6.6.6.6"]).as_deref(), Some("10.0.0.1"));
        let excluded = |range: &str| IpStrategyConfig {
            excluded_ips: vec![range.to_owned()],
            ..IpStrategyConfig::default()
        };
        let inner = excluded("10.0.0.0/8");
        assert_eq!(address(&inner, &["6.6.6.6:1, 10.0.0.9:2"]).as_deref(), Some("6.6.6.6"));
        // Everybody behind this proxy looks like that.
        assert_eq!(address(&inner, &["10.0.0.9"]), None);
        assert_eq!(address(&inner, &[]), None);
        assert_eq!(address(&excluded("9.0.0.0/8"), &[]).as_deref(), Some("10.0.0.1"));
    }
}
