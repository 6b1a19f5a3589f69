//! `limits.overload`: the steps in which Doorward gives things up before memory, descriptors or connections run out.

use serde::{Deserialize, Serialize};

use crate::values::{GoDuration, Profile, is_default};

/// `limits.overload`. Doorward's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OverloadConfig {
    /// Whether anything is given up at all. Default: on; off under `exact`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Share of a limit (memory, descriptors, `connections.total`) from which connections that rest are closed and, for
    /// want of memory, others are not kept alive. Default: 0.92.
    pub stop_keep_alive: f64,
    /// Share of memory or descriptors from which new requests are answered with 503 (for want of descriptors only those
    /// beside others of their connection), and new connections are closed. Default: 0.95.
    pub refuse_requests: f64,
    /// Share of memory or descriptors from which the heaviest streams, connections and tunnels are ended. Default: 0.98.
    pub reset_heaviest: f64,
    /// Most memory of the process in bytes. Default: 0, what its cgroup and those above allow.
    #[serde(skip_serializing_if = "is_default")]
    pub max_memory: u64,
    /// How often it is looked at, and ten times as often when it gets close. Default: 100ms.
    pub interval: GoDuration,
}

impl Default for OverloadConfig {
    fn default() -> Self {
        Self {
            enabled: None,
            stop_keep_alive: 0.92,
            refuse_requests: 0.95,
            reset_heaviest: 0.98,
            max_memory: 0,
            interval: GoDuration::from_millis(100),
        }
    }
}

impl OverloadConfig {
    /// Whether it is on.
    pub fn is_on(&self, profile: Profile) -> bool {
        self.enabled.unwrap_or(profile != Profile::Exact)
    }

    /// The three shares, in order.
    pub fn thresholds(&self) -> [f64; 3] {
        [self.stop_keep_alive, self.refuse_requests, self.reset_heaviest]
    }

    /// The first share that is none, or is not above the one before, by name, and why.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let names = ["stopKeepAlive", "refuseRequests", "resetHeaviest"];
        let mut before = 0.0;
        for (name, share) in names.into_iter().zip(self.thresholds()) {
            if !(share > 0.0 && share <= 1.0) {
                return Some((name, "must be above 0 and at most 1"));
            }
            if share <= before {
                return Some((name, "must be above the step before it"));
            }
            before = share;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_ascend_from_above_nothing_to_all() {
        let problem = |stop_keep_alive, refuse_requests, reset_heaviest| {
            let config = OverloadConfig {
                stop_keep_alive,
                refuse_requests,
                reset_heaviest,
                ..OverloadConfig::default()
            };
            config.problem().map(|(name, _)| name)
        };
        assert_eq!(OverloadConfig::default().problem(), None);
        assert_eq!(problem(0.5, 0.9, 1.0), None);
        assert_eq!(problem(0.0, 0.9, 1.0), Some("stopKeepAlive"));
        assert_eq!(problem(f64::NAN, 0.9, 1.0), Some("stopKeepAlive"));
        assert_eq!(problem(0.9, 0.9, 1.0), Some("refuseRequests"));
        assert_eq!(problem(0.8, 0.9, 1.1), Some("resetHeaviest"));
        assert_eq!(problem(0.8, 0.9, 0.85), Some("resetHeaviest"));
    }

    #[test]
    fn exact_has_no_such_thing() {
        let config = OverloadConfig::default();
        assert!(config.is_on(Profile::Safe) && config.is_on(Profile::Hardened));
        assert!(!config.is_on(Profile::Exact));
        let wanted = OverloadConfig { enabled: Some(true), ..config };
        assert!(wanted.is_on(Profile::Exact));
    }
}
