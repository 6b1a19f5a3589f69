//! The composition root: builds every part once, in order, and shuts down in reverse.

mod admin;
pub mod bans;
pub mod check;
pub mod diff;
pub mod explain;
mod facts;
mod fetch;
mod flag;
mod gauges;
pub mod healthcheck;
mod hints;
mod internal;
mod live;
mod written;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::{Admin, BansResource};
use crate::api::ping::{Live, Ping, Readiness, Ready};
use crate::api::{Api, Dashboard, LiveReport, Noop, StaticView};
use crate::compile::{Report, StaticFacts};
use crate::config::diagnostics::Diagnostic;
use crate::config::static_config::StaticConfig;
use crate::config::tree::Node;
use crate::entry_point::worker::{self, Listening, Stage};
use crate::entry_point::{
    EntryPoint, Flattener, Guard, Open, Overload, OverloadSettings, Shared, Watch, listener,
};
use crate::exchange::{Body, Context, Handler, Request, Response, ResponseFuture, ready};
use crate::middleware::ban::Bans;
use crate::observability::access_log::AccessLog;
use crate::observability::metrics::{self, BanCounts, Metrics, OverloadMetrics};
use crate::provider::file::FileProvider;
use crate::provider::file_cache::FileCache;
use crate::provider::{ConfigSender, LookAgain, Provider};
use crate::reload::{Reload, Source, empty_report};
use crate::router::{LiveTable, RoutingTable};
use crate::service::health::HealthMonitor;
use crate::state::SharedState;
use crate::values::Disk;

/// Threads for providers, compiling and the like.
const CONTROL_THREADS: usize = 2;
/// Memory and descriptors are looked at no more often, however often is configured.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);
/// How long the first table may take before traffic is let in without it.
const FIRST_TABLE: Duration = Duration::from_secs(10);

/// A running proxy.
pub struct App {
    addresses: BTreeMap<String, SocketAddr>,
    stage: watch::Sender<Stage>,
    workers: Vec<JoinHandle<()>>,
    shutdown: CancellationToken,
    control: Option<Runtime>,
    report: LiveReport,
    facts: Arc<StaticFacts>,
    shared: Arc<Shared>,
    readiness: Arc<Readiness>,
    again: Arc<LookAgain>,
    reloaded: watch::Receiver<u64>,
    has_file_provider: bool,
    admin: Option<Admin>,
    /// Of memory and descriptors.
    _watch: Option<Watch>,
}

impl App {
    /// Starts everything that `config` asks for. `inherited` are sockets that somebody else has
    /// bound, by entry point.
    pub fn start(
        config: &StaticConfig,
        inherited: BTreeMap<String, TcpListener>,
    ) -> anyhow::Result<Self> {
        Self::start_written(config, None, inherited)
    }

    /// The same; `written` is the tree of `config`, for the places in messages.
    pub fn start_written(
        config: &StaticConfig,
        written: Option<&Node>,
        inherited: BTreeMap<String, TcpListener>,
    ) -> anyhow::Result<Self> {
        let control = Builder::new_multi_thread()
            .worker_threads(CONTROL_THREADS)
            .thread_name("control")
            .enable_all()
            .build()?;
        let metrics = Arc::new(Metrics::new(&config.metrics.clone().unwrap_or_default())?);
        let access_log = config.access_log.as_ref().map(AccessLog::start).transpose()?;
        let access_log = access_log.map(Arc::new);
        if let Some(log) = &access_log {
            metrics.watch_access_log(log.dropped());
        }
        let guard = Guard::new(facts::limits(config), &metrics);
        let (overload, watch) = start_overload(config, guard.open(), &metrics)?.unzip();
        let readiness = Arc::new(Readiness::default());
        let report = empty_report();
        let facts = Arc::new(build_facts(config, &metrics, &readiness, &report));
        let entry_points = facts::entry_points(config, &metrics)?;
        let shared = Arc::new(Shared {
            table: LiveTable::new(RoutingTable { entry_points: Box::default() }),
            metrics,
            access_log,
            server_name: host_name(),
            cname: flattener(config)?,
            guard,
            overload,
        });
        let shutdown = CancellationToken::new();
        let again = Arc::new(LookAgain::default());
        let (in_force, reloaded) = watch::channel(0);
        let (first, admin) = {
            let _entered = control.enter();
            let source = start_provider(config, &again, &shutdown);
            let reload =
                reload((config, written), source, &facts, &shared, &report, &readiness, in_force)?;
            tokio::spawn(Arc::clone(&reload.bans).watch(shutdown.clone()));
            // Before anything is served, so that what is wrong with it is known.
            let admin = start_admin((config, written), &reload.bans, &shared.metrics, &shutdown)?;
            (start_reload(reload, &shutdown), admin)
        };
        // Sockets first, so that a taken port is known before anything is served from others.
        let (addresses, listening) = bind(config, &entry_points, &shared, inherited)?;
        control.block_on(wait_for(first));
        let (stage, stages) = watch::channel(Stage::Running);
        let mut workers = Vec::new();
        for (number, listening) in listening.into_iter().enumerate() {
            workers.push(worker::start(number, Arc::clone(&shared), listening, stages.clone())?);
        }
        Ok(Self {
            addresses,
            stage,
            workers,
            shutdown,
            control: Some(control),
            report,
            facts,
            shared,
            readiness,
            again,
            reloaded,
            has_file_provider: config.providers.file.is_some(),
            admin,
            _watch: watch,
        })
    }

    /// Where an entry point listens.
    pub fn address(&self, entry_point: &str) -> Option<SocketAddr> {
        self.addresses.get(entry_point).copied()
    }

    /// All entry points and where they listen.
    pub fn addresses(&self) -> &BTreeMap<String, SocketAddr> {
        &self.addresses
    }

    /// The state of the running configuration.
    pub fn report(&self) -> Arc<Report> {
        self.report.load_full()
    }

    /// The static facts that the report is read with.
    pub fn facts(&self) -> &Arc<StaticFacts> {
        &self.facts
    }

    /// Why the process does not count as ready; empty when it does.
    pub fn not_ready(&self) -> Vec<String> {
        self.readiness.problems()
    }

    /// The metrics as a scrape would see them.
    pub fn metrics(&self) -> String {
        self.shared.metrics.render()
    }

    /// Whether there is a file provider, which SIGHUP tells to look again.
    pub fn has_file_provider(&self) -> bool {
        self.has_file_provider
    }

    /// The admin API, if it is on.
    pub fn admin(&self) -> Option<&Admin> {
        self.admin.as_ref()
    }

    /// Tells the file provider to look at its files again; see [`App::reloaded`].
    pub fn look_again(&self) -> u64 {
        self.again.ask()
    }

    /// Completes when what such a look has found is in force, or cannot be: files that are being written, and what
    /// does not compile, wait for the next look. At once when the provider has ended.
    pub async fn reloaded(&self, look: u64) {
        // An error means that there is nobody any more who could look.
        let _ = self.reloaded.clone().wait_for(|in_force| *in_force >= look).await;
    }

    /// Opens the access log anew (SIGUSR1).
    pub fn reopen_logs(&self) {
        if let Some(log) = &self.shared.access_log {
            log.reopen();
        }
    }

    /// Begins the shutdown: `/ping` says so at once, entry points go through their stages.
    pub fn begin_shutdown(&self) {
        self.readiness.stop();
        self.stage.send_if_modified(|stage| {
            let begin = *stage < Stage::Stopping;
            if begin {
                *stage = Stage::Stopping;
            }
            begin
        });
    }

    /// Completes when every worker is through with its shutdown.
    pub async fn drained(&self) {
        while !self.workers.iter().all(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the grace time now.
    pub fn cut(&self) {
        self.readiness.stop();
        self.stage.send_replace(Stage::Cut);
    }

    /// Waits until every connection is gone, then ends the control plane. Blocks.
    pub fn finish(mut self) {
        for worker in std::mem::take(&mut self.workers) {
            if worker.join().is_err() {
                error!("a worker panicked");
            }
        }
        self.shutdown.cancel();
        if let Some(log) = &self.shared.access_log {
            log.flush();
        }
        if let Some(control) = self.control.take() {
            control.shutdown_timeout(Duration::from_secs(1));
        }
        info!("stopped");
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.stage.send_replace(Stage::Cut);
        self.shutdown.cancel();
        if let Some(control) = self.control.take() {
            control.shutdown_background();
        }
    }
}

/// What `hostResolver` asks for.
fn flattener(config: &StaticConfig) -> anyhow::Result<Option<Arc<Flattener>>> {
    let Some(resolver) = config.host_resolver.as_ref().filter(|one| one.cname_flattening) else {
        return Ok(None);
    };
    let flattener = Flattener::new(resolver).with_context(|| {
        format!("`hostResolver.resolvConfig`: cannot read `{}`", resolver.resolv_config)
    });
    flattener.map(|flattener| Some(Arc::new(flattener)))
}

/// What `limits.overload` asks for.
fn start_overload(
    config: &StaticConfig,
    open: Arc<Open>,
    metrics: &Metrics,
) -> anyhow::Result<Option<(Arc<Overload>, Watch)>> {
    let overload = &config.limits.overload;
    if !overload.is_on(config.core.profile) {
        return Ok(None);
    }
    let counts = Arc::<OverloadMetrics>::default();
    metrics.watch_overload(Arc::clone(&counts));
    let settings = OverloadSettings {
        thresholds: overload.thresholds(),
        max_memory: Some(overload.max_memory).filter(|bytes| *bytes > 0),
        connections: facts::limits(config).total,
        interval: overload.interval.or_zero().max(SHORTEST_LOOK),
        workers: config.core.workers(),
        entry_points: config.entry_points.len(),
    };
    let started = Overload::start(settings, open, counts).context("cannot watch memory")?;
    Ok(Some(started))
}

fn build_facts(
    config: &StaticConfig,
    metrics: &Arc<Metrics>,
    readiness: &Arc<Readiness>,
    report: &LiveReport,
) -> StaticFacts {
    let mut services = facts::InternalServices::new();
    services.insert("noop", Ok(Arc::new(Noop)));
    let terminating = config.ping.as_ref().map(|ping| ping.terminating_status_code);
    match terminating {
        Some(code) => {
            let terminating = StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            let ping = Ping { readiness: Arc::clone(readiness), terminating };
            services.insert("ping", Ok(Arc::new(ping)));
            services.insert("live", Ok(Arc::new(Live)));
            services.insert("ready", Ok(Arc::new(Ready { readiness: Arc::clone(readiness) })));
        }
        None => {
            for name in ["ping", "live", "ready"] {
                services.insert(name, Err("ping is not enabled"));
            }
        }
    }
    let scrape = metrics.prometheus().is_some();
    let prometheus: Result<Arc<dyn Handler>, _> = if scrape {
        Ok(Arc::new(Scrape(Arc::clone(metrics))))
    } else {
        Err("prometheus metrics are not enabled")
    };
    services.insert("prometheus", prometheus);
    services.insert("rest", Err("the REST provider is not supported yet"));
    if let Some(api) = &config.api {
        // The API shows facts that contain the API: its own copy has no services.
        let shown = Arc::new(facts::static_facts(config, facts::InternalServices::new()));
        let handler = Api::new(static_view(config), shown, Arc::clone(report));
        services.insert("api", Ok(Arc::new(handler)));
        let dashboard: Result<Arc<dyn Handler>, _> = if api.dashboard {
            Ok(Arc::new(Dashboard { base_path: api.base_path.clone() }))
        } else {
            Err("dashboard is not enabled")
        };
        services.insert("dashboard", dashboard);
    } else {
        services.insert("api", Err("api is not enabled"));
        services.insert("dashboard", Err("api is not enabled"));
    }
    facts::static_facts(config, services)
}

fn static_view(config: &StaticConfig) -> StaticView {
    let api = config.api.clone().unwrap_or_default();
    let entry_points = config.entry_points.iter().map(|(name, one)| {
        let mut view = serde_json::to_value(one).unwrap_or_default();
        if let Some(view) = view.as_object_mut() {
            view.insert("name".to_owned(), json!(name));
        }
        (name.clone(), view)
    });
    let metrics = config.metrics.as_ref().and_then(|metrics| metrics.prometheus.as_ref());
    StaticView {
        base_path: api.base_path.clone(),
        entry_points: entry_points.collect(),
        features: json!({
            "tracing": "",
            "metrics": if metrics.is_some() { "Prometheus" } else { "" },
            "accessLog": config.access_log.is_some(),
        }),
        providers: config.providers.file.iter().map(|_| "File".to_owned()).collect(),
        dashboard: api.dashboard,
        start_date: jiff::Timestamp::now().to_string(),
        disable_dashboard_ad: api.disable_dashboard_ad,
        dashboard_name: api.dashboard_name,
        configuration: serde_json::to_value(config).unwrap_or_default(),
    }
}

fn start_provider(
    config: &StaticConfig,
    again: &Arc<LookAgain>,
    shutdown: &CancellationToken,
) -> Option<Source> {
    let file = config.providers.file.clone()?;
    let (out, updates) = ConfigSender::new();
    let provider = match FileProvider::new(file, Arc::clone(again)) {
        Ok(provider) => provider,
        Err(error) => {
            error!(providerName = "file", %error, "the provider cannot start");
            return None;
        }
    };
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        if let Err(error) = provider.run(out, shutdown).await {
            error!(providerName = "file", %error, "the provider has stopped");
        }
    });
    Some(Source { name: "file", updates })
}

fn start_admin(
    (config, written): (&StaticConfig, Option<&Node>),
    bans: &Arc<Bans>,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Admin>> {
    let problems = written.map(|node| admin::errors(config, node)).unwrap_or_default();
    if !problems.is_empty() {
        let lines: Vec<_> = problems.iter().map(Diagnostic::one_line).collect();
        bail!("{}", lines.join("\n"));
    }
    let Some(config) = &config.admin else { return Ok(None) };
    let bans = Arc::new(BansResource::new(Arc::clone(bans)));
    let admin = Admin::start(config, Arc::new(Disk), vec![bans], shutdown)?;
    metrics.watch_admin(admin.failures());
    Ok(Some(admin))
}

fn reload(
    (config, written): (&StaticConfig, Option<&Node>),
    source: Option<Source>,
    facts: &Arc<StaticFacts>,
    shared: &Arc<Shared>,
    report: &LiveReport,
    readiness: &Arc<Readiness>,
    in_force: watch::Sender<u64>,
) -> anyhow::Result<Reload> {
    let state = Arc::new(SharedState::default());
    let bans = Bans::of(&state);
    shared.metrics.watch_bans(Arc::clone(&bans) as Arc<dyn BanCounts>);
    Ok(Reload {
        internal: internal::shared(config, written),
        source,
        throttle: config.providers.providers_throttle_duration.or_zero(),
        facts: Arc::clone(facts),
        state,
        bans,
        files: Arc::new(FileCache::default()),
        shared: Arc::clone(shared),
        report: Arc::clone(report),
        readiness: Arc::clone(readiness),
        server_up: Arc::new(gauges::Gauges::new(Arc::clone(&shared.metrics))),
        health: Arc::new(HealthMonitor::start().context("cannot start the health monitor")?),
        in_force,
    })
}

fn start_reload(mut reload: Reload, shutdown: &CancellationToken) -> watch::Receiver<bool> {
    let (first, done) = watch::channel(false);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        // The file provider comes first, so that the first table already has its routes.
        if let Some(source) = &mut reload.source {
            let _ = tokio::time::timeout(FIRST_TABLE, source.updates.changed()).await;
            source.updates.mark_changed();
        }
        reload.run(first, shutdown).await;
    });
    done
}

async fn wait_for(mut first: watch::Receiver<bool>) {
    let _ = tokio::time::timeout(FIRST_TABLE * 2, first.wait_for(|done| *done)).await;
}

/// Addresses by entry point, and the sockets of each worker.
type Bound = (BTreeMap<String, SocketAddr>, Vec<Vec<Listening>>);

/// Binds all entry points; returns their addresses, and the sockets of each worker.
fn bind(
    config: &StaticConfig,
    entry_points: &[Arc<EntryPoint>],
    shared: &Shared,
    mut inherited: BTreeMap<String, TcpListener>,
) -> anyhow::Result<Bound> {
    let count = config.core.workers();
    let mut workers: Vec<Vec<Listening>> = (0..count).map(|_| Vec::new()).collect();
    let mut addresses = BTreeMap::new();
    for entry_point in entry_points {
        let name = &*entry_point.facts.name;
        let handed = inherited.remove(name);
        let inherited = handed.is_some();
        let sockets = if let Some(socket) = handed {
            listener::share(&socket, count)
        } else {
            let EntryPoint { address, reuse_port, .. } = **entry_point;
            listener::bind(address, reuse_port, count, shared.watches_sending())
        };
        let sockets = sockets.with_context(|| {
            format!("entry point `{name}` cannot listen at {}", entry_point.address)
        })?;
        if let Some(socket) = sockets.first() {
            addresses.insert(name.to_owned(), socket.local_addr()?);
        }
        for (worker, socket) in workers.iter_mut().zip(sockets) {
            let entry_point = Arc::clone(entry_point);
            worker.push(Listening { entry_point, socket, inherited });
        }
    }
    for name in inherited.keys() {
        warn!(entryPointName = name, "a socket was handed over for an entry point that is none");
    }
    Ok((addresses, workers))
}

/// `prometheus@internal`
struct Scrape(Arc<Metrics>);

impl Handler for Scrape {
    fn handle<'a>(&'a self, _cx: &'a Context, _request: Request) -> ResponseFuture<'a> {
        let mut response = Response::new(Body::from(self.0.render()));
        let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        ready(response)
    }
}

/// The machine's name, as `X-Forwarded-Server` says it.
fn host_name() -> HeaderValue {
    let name = rustix::system::uname();
    HeaderValue::from_bytes(name.nodename().to_bytes())
        .unwrap_or_else(|_| HeaderValue::from_static("localhost"))
}
