//! What is to be probed for one service. Compiling makes plans; the monitor carries them out.

use std::sync::Arc;
use std::time::Duration;

use super::ServerHealth;
use super::condition::Thresholds;
use super::probe::{GRPC, ProbeError, ProbeSender, ProbeSettings};
use super::reference::{Address, is_elsewhere};
use crate::service::HealthCheckConfig;
use crate::values::{BuildError, GoDuration};

/// The probes of one service: immutable, and recognised by its key after a reload.
pub struct HealthPlan {
    key: String,
    pub(super) sender: Arc<dyn ProbeSender>,
    pub(super) settings: ProbeSettings,
    pub(super) interval: Duration,
    pub(super) unhealthy_interval: Duration,
    pub(super) thresholds: Thresholds,
    pub(super) servers: Vec<ProbedServer>,
}

/// One server that is probed.
pub(in crate::service) struct ProbedServer {
    pub(super) health: Arc<ServerHealth>,
    pub(super) address: Result<Address, ProbeError>,
}

impl HealthPlan {
    /// The plan of a service called `service` whose servers are reached by `sender`.
    pub(in crate::service) fn new(
        service: &str,
        config: &HealthCheckConfig,
        sender: Arc<dyn ProbeSender>,
        servers: impl Iterator<Item = (Arc<str>, Arc<ServerHealth>)>,
        warnings: &mut Vec<BuildError>,
    ) -> Result<Self, BuildError> {
        let default = HealthCheckConfig::default();
        let mut or_default = |option: &str, value: GoDuration, default: GoDuration| {
            value.positive().unwrap_or_else(|| {
                let option = format!("healthCheck.{option}");
                let message =
                    format!("`{option}` is not more than zero, {default} is used instead");
                warnings.push(BuildError::at(option, message));
                default.or_zero()
            })
        };
        let interval = or_default("interval", config.interval, default.interval);
        let unhealthy_interval = match config.unhealthy_interval {
            Some(value) => or_default("unhealthyInterval", value, default.interval),
            None => interval,
        };
        let timeout = or_default("timeout", config.timeout, default.timeout);
        for (option, value) in [("rise", config.rise), ("fall", config.fall)] {
            if value == Some(0) {
                let option = format!("healthCheck.{option}");
                let message = format!("`{option}` is 0, which means 1");
                warnings.push(BuildError::at(option, message));
            }
        }
        if config.mode != GRPC && is_elsewhere(&config.path) {
            let message = "`healthCheck.path` is an absolute URL: every check fails";
            warnings.push(BuildError::at("healthCheck.path", message));
        }
        if !matches!(&*config.scheme.to_ascii_lowercase(), "" | "http" | "https" | "h2c") {
            let message = format!(
                "`healthCheck.scheme` is `{}`: no server can be asked; write `http`, `https` or \
                 `h2c`",
                config.scheme
            );
            return Err(BuildError::at("healthCheck.scheme", message));
        }
        if !matches!(&*config.mode, "" | "http" | GRPC) {
            let message = format!(
                "`healthCheck.mode` is `{}`, which means `http`: the modes are `http` and `grpc`",
                config.mode
            );
            warnings.push(BuildError::at("healthCheck.mode", message));
        }
        // The transport is the same one as long as it is at the same place: the plan keeps it.
        let transport = Arc::as_ptr(&sender).cast::<()>();
        Ok(Self {
            key: format!("{service}\n{transport:p}\n{config:?}"),
            settings: ProbeSettings::new(config, timeout)?,
            sender,
            interval,
            unhealthy_interval,
            thresholds: Thresholds {
                rise: config.rise.unwrap_or(1),
                fall: config.fall.unwrap_or(1),
            },
            servers: servers
                .map(|(url, health)| ProbedServer { health, address: address(&url, config) })
                .collect(),
        })
    }

    /// Names service, transport and settings. Plans with the same key differ in servers only. It
    /// holds the headers of the probe: not for logs.
    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

/// Where the server at `url` is probed.
fn address(url: &str, config: &HealthCheckConfig) -> Result<Address, ProbeError> {
    let grpc = config.mode == GRPC;
    if !grpc && is_elsewhere(&config.path) {
        return Err(ProbeError::NotAPath);
    }
    let server = Address::parse(url);
    let address = if grpc { server } else { server.and_then(|one| one.resolve(&config.path)) };
    let mut address = address.ok_or(ProbeError::NoAddress)?;
    if !config.scheme.is_empty() {
        address.scheme = config.scheme.to_ascii_lowercase();
    }
    if grpc && address.scheme == "http" {
        // gRPC is HTTP/2, in clear text as well.
        "h2c".clone_into(&mut address.scheme);
    }
    Ok(if config.port == 0 { address } else { address.with_port(config.port) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_port_and_path_of_a_probe() {
        let config = HealthCheckConfig {
            scheme: "https".to_owned(),
            port: 9000,
            path: "/web/health?full=1".to_owned(),
            ..HealthCheckConfig::default()
        };
        let address = address("http://10.0.0.1:8069/base", &config).unwrap();
        assert_eq!(address.origin(), "https://10.0.0.1:9000");
        assert_eq!(address.path, "/web/health?full=1");
    }

    /// RP-5.5, but for TLS, with which Traefik's checks always fail.
    #[test]
    fn grpc_is_asked_at_the_server_itself() {
        let plain = HealthCheckConfig { mode: "grpc".to_owned(), ..HealthCheckConfig::default() };
        let other = HealthCheckConfig { port: 9, path: "http://x".to_owned(), ..plain.clone() };
        let secure = HealthCheckConfig { scheme: "https".to_owned(), ..plain.clone() };
        for (url, config, want) in [
            ("http://a:1/base", &plain, "h2c://a:1"),
            ("h2c://a:1", &other, "h2c://a:9"),
            ("https://a:1", &plain, "https://a:1"),
            ("h2c://a:1", &secure, "https://a:1"),
        ] {
            assert_eq!(address(url, config).unwrap().origin(), want, "{url}");
        }
    }

    struct Nobody;

    impl ProbeSender for Nobody {
        fn send(
            self: Arc<Self>,
            _: crate::upstream::Target,
            _: crate::exchange::Request,
        ) -> super::super::probe::Answer {
            Box::pin(async { Err(crate::exchange::ProxyError::ConnectFailed) })
        }
    }

    /// RP-5.5.8 to RP-5.5.10, RP-15.13
    #[test]
    fn times_that_are_none_are_traefiks_defaults() {
        let seconds = GoDuration::from_secs;
        for (interval, unhealthy, timeout, want) in [
            (None, None, None, (30, 30, 0)),
            (Some(0), None, Some(0), (30, 30, 2)),
            (Some(-1), Some(-1), Some(-1), (30, 30, 3)),
            (Some(7), None, None, (7, 7, 0)),
            (Some(7), Some(0), None, (7, 30, 1)),
            (Some(7), Some(3), None, (7, 3, 0)),
        ] {
            let default = HealthCheckConfig::default();
            let config = HealthCheckConfig {
                interval: interval.map_or(default.interval, seconds),
                unhealthy_interval: unhealthy.map(seconds),
                timeout: timeout.map_or(default.timeout, seconds),
                ..default
            };
            let mut warnings = Vec::new();
            let servers = std::iter::empty();
            let plan = HealthPlan::new("s", &config, Arc::new(Nobody), servers, &mut warnings);
            let plan = plan.unwrap();
            let times = (plan.interval.as_secs(), plan.unhealthy_interval.as_secs());
            assert_eq!((times.0, times.1, warnings.len()), want, "{config:?}");
        }
        assert_eq!(HealthCheckConfig::default().timeout, seconds(5));
    }

    /// F-17: nobody's threshold is none.
    #[test]
    fn thresholds_are_one_and_zero_is_told() {
        for (rise, fall, want, told) in
            [(None, None, (1, 1), 0), (Some(2), Some(3), (2, 3), 0), (Some(0), Some(1), (0, 1), 1)]
        {
            let config = HealthCheckConfig { rise, fall, ..HealthCheckConfig::default() };
            let mut warnings = Vec::new();
            let servers = std::iter::empty();
            let plan = HealthPlan::new("s", &config, Arc::new(Nobody), servers, &mut warnings);
            let Thresholds { rise, fall } = plan.unwrap().thresholds;
            assert_eq!(((rise, fall), warnings.len()), (want, told));
        }
    }

    #[test]
    fn an_absolute_path_fails() {
        let path = "http://elsewhere/health".to_owned();
        let config = HealthCheckConfig { path, ..HealthCheckConfig::default() };
        assert_eq!(address("http://a", &config), Err(ProbeError::NotAPath));
    }
}
