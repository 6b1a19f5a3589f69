//! `loadBalancer`: servers, one of which gets each request.
//!
//! What a pick looks at (position, condition, requests in flight) is taken over from the running
//! table, so a reload disturbs nobody whose settings stayed the same.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use http::StatusCode;
use tokio::time::Instant;

use super::config::{PassiveHealthCheckConfig, WeightedServiceConfig};
use super::health::{HealthPlan, PassiveSettings, Series, ServerHealth};
use super::in_flight::InFlight;
use super::least_time::{Heard, LeastTime, Times};
use super::rendezvous::Rendezvous;
use super::sticky::{Holder, Sticky, Visit};
use super::strategy::{Edf, P2c};
use super::{LoadBalancerConfig, ServerStatus, Service, ServiceContext};
use crate::exchange::{
    Attempts, Context, Handler, Observer, Outcome, ProxyError, Request, Response, ResponseFuture,
    on_end,
};
use crate::upstream::{Forwarder, ForwarderOptions, ServersTransport, Target};
use crate::values::secret::without_credentials;
use crate::values::{BuildError, Profile};

/// Servers behind one name.
pub(super) struct LoadBalancer {
    name: Arc<str>,
    servers: Box<[Server]>,
    strategy: Strategy,
    sticky: Option<Sticky>,
    metrics: Option<Arc<dyn Observer>>,
    plan: Option<Arc<HealthPlan>>,
}

/// One server of this balancer.
struct Server {
    /// As configured, for the API.
    url: Arc<str>,
    /// Without credentials, for logs and labels.
    shown: Arc<str>,
    handler: Box<dyn Handler>,
    /// May be chosen at all.
    eligible: bool,
    health: Arc<ServerHealth>,
    in_flight: Arc<InFlight>,
}

impl Server {
    fn is_available(&self) -> bool {
        self.eligible && self.health.is_up()
    }

    fn is_available_but(&self, avoid: &[Arc<str>]) -> bool {
        self.is_available() && !avoid.contains(&self.url)
    }
}

enum Strategy {
    Wrr(Arc<Edf>),
    P2c(P2c),
    Hrw(Rendezvous),
    LeastTime(LeastTime),
}

/// The server for one request.
struct Choice<'a> {
    index: usize,
    server: &'a Server,
    /// Whom the cookie names that the client gets, if it gets one.
    names: Option<usize>,
    /// The client's cookie named it, and not the strategy.
    by_cookie: bool,
}

impl LoadBalancer {
    /// Builds the balancer that `config` describes.
    pub(super) fn build(
        config: &LoadBalancerConfig,
        cx: &mut ServiceContext<'_>,
    ) -> Result<Self, BuildError> {
        let transport = cx
            .transport
            .clone()
            .ok_or_else(|| BuildError::at("serversTransport", "servers transport not found"))?;
        let strategy = strategy(config, cx)?;
        let servers = servers(config, cx, &transport, &strategy)?;
        let cookie = config.sticky.as_ref().and_then(|sticky| sticky.cookie.as_ref());
        let members = || servers.iter().map(|server| server.eligible.then_some(&*server.url));
        let sticky = cookie
            .filter(|_| !matches!(strategy, Strategy::Hrw(_)))
            .map(|cookie| Sticky::new(cookie, cx.name.as_str(), cx.profile, members()))
            .transpose()?;
        if cookie.is_some() && sticky.is_none() {
            let message =
                "`sticky` has no effect with `strategy: hrw`, which keeps clients by itself";
            cx.warnings.push(BuildError::at("sticky", message));
        }
        let plan = match &config.health_check {
            None => None,
            Some(check) => {
                let mut probed: Vec<(Arc<str>, Arc<ServerHealth>)> = Vec::new();
                for server in &servers {
                    // The same URL twice is one server with one condition.
                    if probed.iter().all(|(url, _)| *url != server.url) {
                        probed.push((Arc::clone(&server.url), Arc::clone(&server.health)));
                    }
                }
                let (name, probed) = (cx.name.as_str(), probed.into_iter());
                Some(Arc::new(HealthPlan::new(name, check, transport, probed, cx.warnings)?))
            }
        };
        Ok(Self {
            name: cx.name.shared(),
            servers: servers.into(),
            strategy,
            sticky,
            metrics: cx.metrics.clone(),
            plan,
        })
    }

    fn choose(&self, cx: &Context, request: &Request) -> Option<Choice<'_>> {
        let attempts = Attempts::of(request);
        let choice = Attempts::pick(attempts, |avoid| self.choose_but(avoid, cx, request))?;
        if let Some(attempts) = attempts {
            attempts.note(&choice.server.url);
        }
        Some(choice)
    }

    /// A server that is none of `avoid`.
    fn choose_but(
        &self,
        avoid: &[Arc<str>],
        cx: &Context,
        request: &Request,
    ) -> Option<Choice<'_>> {
        let holder = self.sticky.as_ref().and_then(|sticky| sticky.holder(request.headers()));
        let mut kept = None;
        if let Some(Holder { index, outdated }) = holder
            && let Some(server) = self.servers.get(index)
            && server.is_available()
        {
            let names = outdated.then_some(index);
            if !avoid.contains(&server.url) {
                return Some(Choice { index, server, names, by_cookie: true });
            }
            let lost = Attempts::of(request).is_some_and(|all| all.lost().contains(&server.url));
            kept = (!lost).then_some(names);
        }
        let available =
            |at: usize| self.servers.get(at).is_some_and(|one| one.is_available_but(avoid));
        let in_flight =
            |at: usize| self.servers.get(at).map_or(usize::MAX, |one| one.in_flight.count());
        let index = match &self.strategy {
            Strategy::Wrr(schedule) => schedule.pick(available),
            Strategy::P2c(choices) => choices.pick(self.servers.len(), available, in_flight),
            Strategy::Hrw(choice) => choice.pick(cx.connection.peer_ip_text.as_bytes(), available),
            Strategy::LeastTime(choice) => choice.pick(available, in_flight),
        }?;
        let server = self.servers.get(index)?;
        // Who is elsewhere only for this attempt belongs where it did, as in Traefik.
        let stays = || self.sticky.is_some() && !Visit::is(request);
        let names = kept.unwrap_or_else(|| stays().then_some(index));
        Some(Choice { index, server, names, by_cookie: false })
    }

    async fn serve(&self, cx: &Context, request: Request) -> Response {
        let start = Instant::now();
        let Some(choice) = self.choose(cx, &request) else {
            let mut response = ProxyError::NoAvailableServer.into_response();
            let outcome = Outcome::of(&mut response);
            outcome.service = Some(Arc::clone(&self.name));
            outcome.service_start = Some(start);
            return response;
        };
        let Choice { index, server, names, by_cookie } = choice;
        // Who does not ask how busy a server is does not pay for counting. What a cookie decided
        // says nothing to Traefik's least time.
        let counts = match &self.strategy {
            Strategy::P2c(_) => true,
            Strategy::LeastTime(_) => !by_cookie,
            Strategy::Wrr(_) | Strategy::Hrw(_) => false,
        };
        let counted = counts.then(|| server.in_flight.enter());
        let attempts = Attempts::of(&request).cloned();
        let mut response = server.handler.handle(cx, request).await;
        if let Some(counted) = counted {
            on_end(&mut response, counted);
        }
        if let (Some(named), Some(sticky)) = (names, &self.sticky) {
            sticky.attach(named, &mut response);
        }
        let outcome = Outcome::of(&mut response);
        if let (Some(attempts), Some(error)) = (attempts, outcome.error)
            && error.nothing_sent()
        {
            attempts.lose(&server.url);
        }
        if let Strategy::LeastTime(choice) = &self.strategy
            && let Some(times) = choice.times(index)
        {
            if let (Some(time), false) = (outcome.origin_duration, by_cookie) {
                times.note(time);
            }
            if let Some(worked) = worked(outcome) {
                times.heard(worked);
            }
        }
        if server.health.is_passive()
            && let Some(failed) = failed(outcome)
        {
            server.health.observe(failed);
        }
        outcome.service = Some(Arc::clone(&self.name));
        outcome.server = Some(Arc::clone(&server.shown));
        outcome.service_start = Some(start);
        outcome.observers.extend(self.metrics.clone());
        response
    }
}

impl Handler for LoadBalancer {
    fn handle<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        Box::pin(self.serve(cx, request))
    }
}

impl Service for LoadBalancer {
    fn is_up(&self) -> bool {
        self.servers.iter().any(Server::is_available)
    }

    fn has_other_than(&self, servers: &[Arc<str>]) -> bool {
        self.servers.iter().any(|one| one.is_available_but(servers))
    }

    fn checks_health(&self) -> bool {
        self.plan.is_some()
    }

    fn kind(&self) -> Option<&'static str> {
        Some(match self.strategy {
            // Traefik's own word for both is "weighted".
            Strategy::Wrr(_) => "weighted",
            Strategy::P2c(_) => "P2C",
            Strategy::Hrw(_) => "HRW",
            Strategy::LeastTime(_) => "LeastTime",
        })
    }

    fn server_status(&self) -> ServerStatus {
        self.servers.iter().map(|server| (Arc::clone(&server.url), server.health.is_up())).collect()
    }

    fn health_plan(&self) -> Option<Arc<HealthPlan>> {
        self.plan.clone()
    }
}

/// What an exchange says of its server: whether it failed, or nothing at all when the client failed
/// or the server was not asked, so that no client can take a server out with bad requests.
fn failed(outcome: &Outcome) -> Option<bool> {
    match outcome.error {
        Some(error) if error.is_clients() => None,
        Some(_) => Some(true),
        None => outcome.origin_status.map(|status| status.is_server_error()),
    }
}

/// How the server did what it is there for. An application's error is an answer; one that says that it
/// cannot serve is none, however quick it is, but may be one of a single URL, as an answer may be that
/// is late or garbled.
fn worked(outcome: &Outcome) -> Option<Heard> {
    failed(outcome)?;
    Some(match (outcome.error, outcome.origin_status) {
        (
            Some(
                ProxyError::ConnectFailed
                | ProxyError::ConnectTimeout
                | ProxyError::TlsFailed
                | ProxyError::TlsAlert
                | ProxyError::UpstreamClosed,
            ),
            _,
        ) => Heard::Nothing,
        (Some(_), _)
        | (
            None,
            Some(
                StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT,
            ),
        ) => Heard::Refusal,
        _ => Heard::Answer,
    })
}

fn strategy(config: &LoadBalancerConfig, cx: &ServiceContext<'_>) -> Result<Strategy, BuildError> {
    match config.strategy.as_str() {
        "" | "wrr" => Ok(Strategy::Wrr(schedule(config, cx))),
        "p2c" => Ok(Strategy::P2c(P2c::new())),
        "hrw" => {
            let servers = config.servers.iter().map(|server| (&*server.url, weight(server.weight)));
            Ok(Strategy::Hrw(Rendezvous::new(servers)))
        }
        "leasttime" => {
            let servers = config.servers.iter().map(|server| {
                let key = format!("{}\n{}", cx.name, server.url);
                (cx.state.carry_over(&key, Times::new), weight(server.weight))
            });
            let exact = cx.profile == Profile::Exact;
            Ok(Strategy::LeastTime(LeastTime::new(servers, schedule(config, cx), exact)))
        }
        unknown => {
            let message = format!("unsupported load-balancer strategy {unknown:?}");
            Err(BuildError::at("strategy", message))
        }
    }
}

/// Whose turn it is, as the running table knows it, unless servers or weights changed.
fn schedule(config: &LoadBalancerConfig, cx: &ServiceContext<'_>) -> Arc<Edf> {
    let mut key = format!("{}\n{}", cx.name, config.strategy);
    for server in &config.servers {
        let _ = write!(key, "\n{} {}", server.url, weight(server.weight));
    }
    let weights = config.servers.iter().map(|server| weight(server.weight));
    cx.state.carry_over(&key, || Edf::new(weights))
}

/// A weight as schedules count it: zero is never chosen.
pub(super) fn weight(configured: Option<i64>) -> u64 {
    u64::try_from(configured.unwrap_or(1)).unwrap_or(0)
}

/// A warning for each child that has a weight below zero.
pub(super) fn warn_of_weights(services: &[WeightedServiceConfig], warnings: &mut Vec<BuildError>) {
    for (at, child) in services.iter().enumerate() {
        if let Some(weight @ ..0) = child.weight {
            let message =
                format!("`weight` is {weight}: the service is never chosen; write 1 or more");
            warnings.push(BuildError::at(format!("services[{at}].weight"), message));
        }
    }
}

/// The servers in the order of the configuration: shares do not depend on it, and the same
/// configuration behaves the same on every start.
fn servers(
    config: &LoadBalancerConfig,
    cx: &mut ServiceContext<'_>,
    transport: &Arc<ServersTransport>,
    strategy: &Strategy,
) -> Result<Vec<Server>, BuildError> {
    let passive = config.passive_health_check.as_ref();
    cx.warnings.extend(passive.into_iter().flat_map(PassiveHealthCheckConfig::oddities));
    let passive = passive.map(PassiveSettings::from);
    let options = ForwarderOptions {
        pass_host_header: config.pass_host_header,
        ..ForwarderOptions::default()
    };
    let mut servers = Vec::with_capacity(config.servers.len());
    for (at, server) in config.servers.iter().enumerate() {
        let target = Target::parse(&server.url)
            .map_err(|error| BuildError::at(format!("servers[{at}].url"), error.message))?;
        if let Some(weight @ ..0) = server.weight {
            let means = match strategy {
                Strategy::P2c(_) => "weights have no effect with `strategy: p2c`",
                _ => "the server is never chosen",
            };
            let message = format!("`weight` is {weight}: {means}; write 1 or more");
            cx.warnings.push(BuildError::at(format!("servers[{at}].weight"), message));
        }
        let options = ForwarderOptions { preserve_path: server.preserve_path, ..options };
        let url: Arc<str> = server.url.as_str().into();
        let shown = match without_credentials(&url) {
            Cow::Borrowed(_) => Arc::clone(&url),
            Cow::Owned(bare) => bare.into(),
        };
        let health = health(config, cx, passive, &url, &shown);
        let in_flight = cx.state.carry_over(&format!("{}\n{url}", cx.name), InFlight::default);
        servers.push(Server {
            handler: Box::new(Forwarder::new(Arc::clone(transport), target, options)),
            eligible: matches!(strategy, Strategy::P2c(_)) || weight(server.weight) > 0,
            url,
            shown,
            health,
            in_flight,
        });
    }
    Ok(servers)
}

/// The condition of a server, as the running table knows it, unless the checks changed.
fn health(
    config: &LoadBalancerConfig,
    cx: &ServiceContext<'_>,
    passive: Option<PassiveSettings>,
    url: &str,
    shown: &Arc<str>,
) -> Arc<ServerHealth> {
    let active = &config.health_check;
    // The gauge's line is the same one under any settings; without checks there is none.
    let series = (active.is_some() || passive.is_some()).then(|| {
        cx.state.carry_over(&format!("{}\n{url}", cx.name), || {
            Series::new(cx.name.shared(), Arc::clone(shown), Arc::clone(&cx.server_up))
        })
    });
    let key = format!("{}\n{url}\n{active:?}\n{passive:?}", cx.name);
    cx.state.carry_over(&key, || ServerHealth::new(active.is_some(), passive, series))
}

#[cfg(test)]
mod tests;
