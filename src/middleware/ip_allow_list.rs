//! `ipAllowList`: only requests from listed addresses pass.

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::ip_strategy::{ClientIp, IpStrategy, IpStrategyConfig, ranges};
use super::{Build, BuildContext};
use crate::exchange::error::bare;
use crate::exchange::forwarded::TrustedSources;
use crate::exchange::{Context, Middleware, Next, Request, ResponseFuture, ready};
use crate::values::BuildError;

/// Options of `ipAllowList`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IpAllowListConfig {
    /// Addresses and ranges that may pass. Required.
    pub source_range: Vec<String>,
    /// Which address is looked at. Default: the peer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_strategy: Option<IpStrategyConfig>,
    /// Status for everybody else. Default: 403.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reject_status_code: Option<i64>,
}

impl Build for IpAllowListConfig {
    fn build(&self, _cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        let reject = reject_status(self.reject_status_code)?;
        if self.source_range.is_empty() {
            return Err(BuildError::at(
                "sourceRange",
                "sourceRange is empty, IPAllowLister not created",
            ));
        }
        let strategy = match &self.ip_strategy {
            Some(config) => config.build("ipStrategy")?,
            None => IpStrategy::PEER,
        };
        Ok(Arc::new(IpAllowList {
            allowed: ranges(&self.source_range, "sourceRange")?,
            strategy,
            reject,
        }))
    }
}

/// Reads `rejectStatusCode`; 403 by default.
pub(super) fn reject_status(code: Option<i64>) -> Result<StatusCode, BuildError> {
    let status = match code {
        None | Some(0) => Some(StatusCode::FORBIDDEN),
        Some(code) => u16::try_from(code)
            .ok()
            .and_then(|code| StatusCode::from_u16(code).ok())
            // An answer below 200 would not be the last one.
            .filter(|status| !status.is_informational() && status.canonical_reason().is_some()),
    };
    status.ok_or_else(|| {
        BuildError::at(
            "rejectStatusCode",
            "invalid HTTP status code: write one that has a name, such as 403",
        )
    })
}

struct IpAllowList {
    allowed: TrustedSources,
    strategy: IpStrategy,
    reject: StatusCode,
}

impl Middleware for IpAllowList {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        // An entry that is missing or is no address is refused: the peer in its place would be the
        // trusted proxy.
        match self.strategy.address(cx, request.headers()) {
            ClientIp::Known(ip) if self.allowed.trust(ip) => next.run(cx, request),
            _ => ready(bare(self.reject)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::testing::{Bench, body, build, context, get, with};

    fn config(ranges: &[&str]) -> IpAllowListConfig {
        IpAllowListConfig {
            source_range: ranges.iter().map(|&range| range.to_owned()).collect(),
            ..IpAllowListConfig::default()
        }
    }

    #[tokio::test]
    async fn only_listed_peers_pass() {
        for (ranges, peer, want) in [
            (&["192.0.2.0/24"][..], "192.0.2.1", 200),
            (&["192.0.2.1"], "192.0.2.1", 200),
            (&["10.0.0.0/8"], "192.0.2.1", 403),
            (&["10.0.0.0/8"], "::ffff:10.0.0.1", 200),
            (&["10.0.0.0/8"], "::ffff:127.0.0.1", 403),
            (&["::ffff:10.0.0.0/104"], "10.0.0.1", 200),
            (&["2001:db8::/32"], "2001:db8::1", 200),
            (&["::/0"], "10.0.0.1", 403),
            (&["0.0.0.0/0"], "10.0.0.1", 200),
        ] {
            let bench =
                Bench::new(vec![build(&config(ranges)).unwrap()]).with_context(context(peer));
            assert_eq!(bench.status(get("/")).await, want, "{ranges:?} {peer}");
        }
    }

    #[tokio::test]
    async fn the_forwarded_address_is_judged_when_asked_for() {
        let config = IpAllowListConfig {
            ip_strategy: Some(IpStrategyConfig { depth: 1, ..IpStrategyConfig::default() }),
            ..config(&["192.0.2.0/24"])
        };
        let bench = Bench::new(vec![build(&config).unwrap()]);
        for (forwarded, want) in [
            ("192.0.2.7", 200),
            ("192.0.2.7, 6.6.6.6", 403),
            ("::ffff:6.6.6.6", 403),
            ("192.0.2.7:80", 403),
            ("", 403),
        ] {
            let request = with(get("/"), "x-forwarded-for", forwarded);
            assert_eq!(bench.status(request).await, want, "{forwarded}");
        }
        assert_eq!(bench.status(get("/")).await, 403);
    }

    #[tokio::test]
    async fn the_refusal_is_bare() {
        let config = IpAllowListConfig { reject_status_code: Some(404), ..config(&["10.0.0.0/8"]) };
        let bench = Bench::new(vec![build(&config).unwrap()]);
        let response = bench.send(get("/")).await;
        assert_eq!(response.status(), 404);
        assert!(response.headers().is_empty());
        assert_eq!(body(response).await, "Not Found");
    }

    #[test]
    fn options_are_checked() {
        assert_eq!(build(&config(&[])).err().unwrap().option, "sourceRange");
        assert_eq!(build(&config(&["10.0.0.0/8", "x"])).err().unwrap().option, "sourceRange[1]");
        for code in [100, 299, 600, 70_000, -1] {
            let config = IpAllowListConfig { reject_status_code: Some(code), ..config(&["::1"]) };
            assert_eq!(build(&config).err().unwrap().option, "rejectStatusCode", "{code}");
        }
    }
}
