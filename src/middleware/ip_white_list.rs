//! `ipWhiteList`: the old name of `ipAllowList`, without its choice of a status.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ip_allow_list::IpAllowListConfig;
use super::ip_strategy::IpStrategyConfig;
use super::{Build, BuildContext};
use crate::exchange::Middleware;
use crate::values::BuildError;

/// Options of `ipWhiteList`. Deprecated: use `ipAllowList`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IpWhiteListConfig {
    /// Addresses and ranges that may pass. Required.
    pub source_range: Vec<String>,
    /// Which address is looked at. Default: the peer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_strategy: Option<IpStrategyConfig>,
}

impl Build for IpWhiteListConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        cx.warnings
            .push(BuildError::new("`ipWhiteList` is deprecated, please use `ipAllowList` instead"));
        if self.source_range.is_empty() {
            return Err(BuildError::at(
                "sourceRange",
                "sourceRange is empty, IPWhiteLister not created",
            ));
        }
        let config = IpAllowListConfig {
            source_range: self.source_range.clone(),
            ip_strategy: self.ip_strategy.clone(),
            reject_status_code: None,
        };
        config.build(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::testing::{Bench, Setting, body, build, get, with};

    fn config(json: &str) -> IpWhiteListConfig {
        serde_json::from_str(json).unwrap()
    }

    /// RP 7.5, under its old name
    #[tokio::test]
    async fn it_is_an_allow_list_that_warns() {
        let config =
            config(r#"{"sourceRange": ["10.0.0.0/8", "192.0.2.7"], "ipStrategy": {"depth": 1}}"#);
        let (middleware, warnings) = Setting::default().build(&config).unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].message.contains("ipAllowList"));
        let bench = Bench::new(vec![middleware]);
        for (forwarded, want) in [("10.1.1.1", 200), ("192.0.2.7", 200), ("6.6.6.6", 403)] {
            let request = with(get("/"), "x-forwarded-for", forwarded);
            assert_eq!(bench.status(request).await, want, "{forwarded}");
        }
        let refused = bench.send(get("/")).await;
        assert!(refused.headers().is_empty());
        assert_eq!(body(refused).await, "Forbidden");
    }

    #[test]
    fn options_are_checked() {
        for (json, option, message) in [
            ("{}", "sourceRange", "IPWhiteLister not created"),
            (r#"{"sourceRange": ["x"]}"#, "sourceRange[0]", "neither an address"),
            (
                r#"{"sourceRange": ["::1"], "ipStrategy": {"depth": -1}}"#,
                "ipStrategy.depth",
                "negative",
            ),
        ] {
            let error = build(&config(json)).err().unwrap();
            assert_eq!(error.option, option);
            assert!(error.message.contains(message), "{error}");
        }
    }
}
