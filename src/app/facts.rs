//! What the static configuration says to the compiler, and to each entry point.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use http::HeaderName;

use crate::compile::{EntryPointModel, OnBrokenRouter, StaticFacts};
use crate::config::entry_points::{Address, EntryPointConfig, parse_range};
use crate::config::limits::Limits;
use crate::config::static_config::{self, StaticConfig};
use crate::entry_point::{EntryPoint, LifeCycle, Shortage, Timeouts};
use crate::exchange::canonical::{EncodedCharacters, FieldLimits, TargetRules};
use crate::exchange::forwarded::TrustedSources;
use crate::exchange::{EntryPointFacts, Handler, Observer};
use crate::observability::access_log::AccessLogConfig;
use crate::observability::metrics::Metrics;
use crate::router::RouterObservabilityConfig;
use crate::rule::Syntax;
use crate::values::{GoDuration, Profile};
use crate::wire::BodyTimeout;

/// Services of provider `internal`, by name.
pub(super) type InternalServices = HashMap<&'static str, Result<Arc<dyn Handler>, &'static str>>;

/// What the compiler needs to know.
pub(super) fn static_facts(config: &StaticConfig, services: InternalServices) -> StaticFacts {
    let differences = config.core.differences();
    let defaults = config.default_entry_points();
    StaticFacts {
        profile: config.core.profile,
        strict_tls_options: differences.strict_tls_options,
        on_broken_router: match differences.on_broken_router {
            static_config::OnBrokenRouter::Unavailable => OnBrokenRouter::Refuse,
            static_config::OnBrokenRouter::LastGood => OnBrokenRouter::LastGood,
            static_config::OnBrokenRouter::Skip => OnBrokenRouter::Skip,
        },
        entry_points: config
            .entry_points
            .iter()
            .map(|(name, one)| {
                let body = limits(config).body;
                model(name, one, defaults.contains(&name.as_str()), body)
            })
            .collect(),
        default_rule_syntax: match &*config.core.default_rule_syntax {
            "v2" => Syntax::V2,
            _ => Syntax::V3,
        },
        resolvers: config.certificates_resolvers.keys().cloned().collect(),
        internal_services: services,
        precedence: std::iter::once("internal".to_owned())
            .chain(config.providers.precedence.iter().cloned())
            .collect(),
        proxies: config.proxies.clone(),
        add_internals_metrics: config.metrics.as_ref().is_some_and(|one| one.add_internals),
        add_internals_access_log: config.access_log.as_ref().is_some_and(|one| one.add_internals),
    }
}

fn model(
    name: &str,
    config: &EntryPointConfig,
    is_default: bool,
    body: Option<(i64, GoDuration)>,
) -> EntryPointModel {
    let usual = RouterObservabilityConfig {
        access_logs: Some(true),
        metrics: Some(true),
        tracing: Some(true),
        trace_verbosity: Some("minimal".to_owned()),
    };
    EntryPointModel {
        name: name.into(),
        is_default,
        middlewares: config.http.middlewares.clone(),
        tls: config.http.tls.clone(),
        observability: Some(config.observability.clone()).filter(|observed| *observed != usual),
        encoded_characters: config
            .http
            .encoded_characters
            .as_ref()
            .map(|characters| characters.resolve(true))
            .filter(|characters| *characters != EncodedCharacters::ALLOW_ALL),
        max_body_bytes: config.http.request_body.and_then(|body| body.max_bytes),
        slowest_body: body,
    }
}

/// The limits of clients. Half of the descriptors are for what clients ask for.
pub(super) fn limits(config: &StaticConfig) -> Limits {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    config.limits.in_force(config.core.profile, descriptors)
}

/// All entry points, in the order of their positions.
pub(super) fn entry_points(
    config: &StaticConfig,
    metrics: &Metrics,
) -> anyhow::Result<Vec<Arc<EntryPoint>>> {
    let all = config.entry_points.iter().enumerate();
    all.map(|(position, (name, one))| {
        entry_point(position, name, one, config, metrics)
            .map(Arc::new)
            .with_context(|| format!("entry point `{name}`"))
    })
    .collect()
}

fn entry_point(
    position: usize,
    name: &str,
    config: &EntryPointConfig,
    all: &StaticConfig,
    metrics: &Metrics,
) -> anyhow::Result<EntryPoint> {
    let exact = all.core.profile == Profile::Exact;
    let hardened = all.core.profile == Profile::Hardened;
    let transport = &config.transport;
    let timeouts = &transport.responding_timeouts;
    let connection = &config.forwarded_headers.connection;
    let request_id = (config.http.request_id.as_ref())
        .map(|request_id| request_id.header.parse::<HeaderName>())
        .transpose()
        .context("http.requestId.header")?;
    Ok(EntryPoint {
        position,
        facts: Arc::new(EntryPointFacts {
            name: name.into(),
            not_append_forwarded_for: config.forwarded_headers.not_append_x_forwarded_for
                || all.global.not_append_x_forwarded_for && !exact,
            exact,
            hardened,
            slow_bodies: timeouts.read_timeout.is_some_and(|limit| limit.positive().is_some()),
            origin_headers: all.access_log.as_ref().is_some_and(AccessLogConfig::keeps_headers),
            request_id: request_id.clone(),
        }),
        address: resolve(&config.address)?,
        reuse_port: config.reuse_port,
        trusted: sources(config.forwarded_headers.insecure, &config.forwarded_headers.trusted_ips)?,
        connection_headers: connection
            .iter()
            .map(|header| header.parse::<HeaderName>())
            .collect::<Result<_, _>>()
            .context("forwardedHeaders.connection")?,
        request_id,
        proxy_protocol: config
            .proxy_protocol
            .as_ref()
            .map(|proxy| sources(proxy.insecure, &proxy.trusted_ips))
            .transpose()?,
        target: TargetRules {
            sanitize_path: config.http.sanitize_path,
            encode_query_semicolons: config.http.encode_query_semicolons,
        },
        underscores: config.http.underscore_headers_strategy(),
        aliases: all.core.differences().alias_headers,
        strict_tls_options: all.core.differences().strict_tls_options,
        limits: FieldLimits {
            max_fields: config.http.max_header_fields(),
            max_bytes: config.http.max_header_bytes(),
        },
        timeouts: Timeouts {
            read: timeouts.read_timeout().positive(),
            body: if exact || timeouts.read_timeout.is_some() {
                BodyTimeout::Total
            } else {
                BodyTimeout::PerRead
            },
            write: timeouts.write_timeout.positive(),
            idle: timeouts.idle_timeout.positive(),
        },
        keep_alive_max_requests: u64::try_from(transport.keep_alive_max_requests)
            .unwrap_or_default(),
        keep_alive_max_time: transport.keep_alive_max_time.positive(),
        http2_max_concurrent_streams: http2_limit(config.http2.max_concurrent_streams, 250),
        http2_max_decoder_table: http2_limit(config.http2.max_decoder_header_table_size, 4096),
        metrics: metrics.entry_point(name).map(|metrics| -> Arc<dyn Observer> { metrics }),
        life_cycle: LifeCycle {
            request_accept_grace: transport.life_cycle.request_accept_grace_timeout.or_zero(),
            grace: transport.life_cycle.grace_time_out.or_zero(),
        },
        shortage: Shortage::default(),
    })
}

fn sources(insecure: bool, ranges: &[String]) -> anyhow::Result<TrustedSources> {
    let ranges: Vec<_> = ranges
        .iter()
        .map(|text| parse_range(text).ok_or_else(|| anyhow!("`{text}` is no address or range")))
        .collect::<Result<_, _>>()?;
    Ok(TrustedSources::new(insecure, &ranges))
}

/// An address to listen at; without a host it is every address of the machine.
fn resolve(text: &str) -> anyhow::Result<SocketAddr> {
    let address: Address = text.parse()?;
    if address.host.is_empty() {
        let any =
            if std::path::Path::new("/proc/net/if_inet6").exists() { "[::]" } else { "0.0.0.0" };
        return Ok(format!("{any}:{}", address.port).parse()?);
    }
    let mut found = address.host_port().to_socket_addrs()?;
    found.next().ok_or_else(|| anyhow!("`{text}` resolves to no address"))
}

/// A limit of HTTP/2. Go takes 0 as the default, and no streams at all would refuse every request.
fn http2_limit(value: i32, default: u32) -> u32 {
    match u32::try_from(value) {
        Ok(value @ 1..) => value,
        _ => default,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observability::metrics::MetricsConfig;

    /// RP-2.2: written, or with the profile `exact`, it is for the whole request.
    #[test]
    fn what_a_read_timeout_is_for() {
        use crate::values::GoDuration;
        let minute = Some(Duration::from_mins(1));
        for (profile, written, read, body) in [
            (Profile::Safe, None, minute, BodyTimeout::PerRead),
            (Profile::Hardened, None, minute, BodyTimeout::PerRead),
            (Profile::Exact, None, minute, BodyTimeout::Total),
            (Profile::Safe, Some(60), minute, BodyTimeout::Total),
            (Profile::Safe, Some(0), None, BodyTimeout::Total),
        ] {
            let mut config = StaticConfig::default();
            config.core.profile = profile;
            let mut entry_point = EntryPointConfig::at(":0");
            entry_point.transport.responding_timeouts.read_timeout =
                written.map(GoDuration::from_secs);
            config.entry_points.insert("web".to_owned(), entry_point);
            let metrics = Metrics::new(&MetricsConfig::default()).unwrap();
            let made = entry_points(&config, &metrics).unwrap();
            assert_eq!((made[0].timeouts.read, made[0].timeouts.body), (read, body));
        }
    }

    #[test]
    fn no_streams_means_the_default() {
        let mut config = StaticConfig::default();
        for (written, used) in [(0, (250, 4096)), (7, (7, 7))] {
            let mut entry_point = EntryPointConfig::at(":0");
            entry_point.http2.max_concurrent_streams = written;
            entry_point.http2.max_decoder_header_table_size = written;
            config.entry_points.insert("web".to_owned(), entry_point);
            let metrics = Metrics::new(&MetricsConfig::default()).unwrap();
            let made = entry_points(&config, &metrics).unwrap();
            let made = &made[0];
            assert_eq!((made.http2_max_concurrent_streams, made.http2_max_decoder_table), used);
        }
    }
}
