//! The loop from a changed file to a new table: wait, merge, compile, publish, reconcile.
//!
//! Invariant: nothing that a provider sends takes a healthy route down, and what did not change
//! is not built again. One store switches everything.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::LiveReport;
use crate::api::ping::Readiness;
use crate::compile::{Compiled, Environment, Memo, Report, StaticFacts, compile};
use crate::config::diagnostics::{Diagnostic, Severity, without_consequences};
use crate::config::dynamic_config::DynamicConfig;
use crate::config::merge::merge;
use crate::config::tree::Node;
use crate::entry_point::Shared;
use crate::middleware::ban::Bans;
use crate::observability::metrics::CertificateMetric;
use crate::provider::file_cache::FileCache;
use crate::provider::{ConfigReceiver, Document, ProviderHealth, Update};
use crate::service::ServerGauge;
use crate::service::health::HealthMonitor;
use crate::state::SharedState;

/// How often files that options name (certificates, users files) are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(2);

impl Document for DynamicConfig {
    fn read(root: &Node, provider: &str) -> Self {
        DynamicConfig::read(root, provider)
    }

    fn reuse(&mut self, previous: &Self) {
        DynamicConfig::reuse(self, previous);
    }

    fn absorb(&mut self, other: &Self) {
        DynamicConfig::absorb(self, other);
    }

    fn add_diagnostics(&mut self, diagnostics: Vec<Diagnostic>) {
        self.diagnostics.extend(diagnostics);
    }

    fn refusal(&self) -> Option<Vec<Diagnostic>> {
        self.incomplete.then(|| self.diagnostics.clone())
    }
}

/// One source of configuration.
pub struct Source {
    /// Name of the provider.
    pub name: &'static str,
    /// What it sends.
    pub updates: ConfigReceiver<DynamicConfig>,
}

/// What the loop works on.
pub struct Reload {
    /// Configuration that the static part implies.
    pub internal: Arc<DynamicConfig>,
    /// The file provider, if there is one.
    pub source: Option<Source>,
    /// Least time from one table to the next (`providers.providersThrottleDuration`).
    pub throttle: Duration,
    /// What the static configuration says to the compiler.
    pub facts: Arc<StaticFacts>,
    /// What outlives a reload.
    pub state: Arc<SharedState>,
    /// Bans, which outlive it too.
    pub bans: Arc<Bans>,
    /// Files that options name.
    pub files: Arc<FileCache>,
    /// Where the table goes.
    pub shared: Arc<Shared>,
    /// Where the report goes.
    pub report: LiveReport,
    /// Who is told whether the configuration is whole.
    pub readiness: Arc<Readiness>,
    /// Where the health of servers is counted.
    pub server_up: Arc<dyn ServerGauge>,
    /// Who carries out probes.
    pub health: Arc<HealthMonitor>,
    /// Told up to which question the answers of the file provider are in force.
    pub in_force: watch::Sender<u64>,
}

/// What one compile leaves to the next.
#[derive(Default)]
struct Known {
    memo: Option<Memo>,
    /// How the provider was.
    health: Option<ProviderHealth>,
    /// Diagnostics that were logged.
    seen: HashSet<String>,
    /// What the provider said.
    config: Option<Arc<DynamicConfig>>,
}

impl Reload {
    /// Runs until `shutdown`. `first` becomes true when the first table is in place.
    pub async fn run(mut self, first: watch::Sender<bool>, shutdown: CancellationToken) {
        let mut known = Known::default();
        let mut tick = interval(FILES_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let started = Instant::now();
            self.step(&mut known).await;
            first.send_replace(true);
            let next = started + self.throttle;
            loop {
                let files_changed = tokio::select! {
                    files_changed = self.changed(&mut tick) => files_changed,
                    () = shutdown.cancelled() => return,
                };
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = shutdown.cancelled() => return,
                }
                if self.is_due(&known, files_changed).await {
                    break;
                }
            }
        }
    }

    /// Waits until a provider has something to say, or a file that an option names has changed;
    /// returns whether it was a file.
    async fn changed(&mut self, tick: &mut tokio::time::Interval) -> bool {
        loop {
            let provider = async {
                let changed = match &mut self.source {
                    Some(source) => source.updates.changed().await.is_ok(),
                    None => false,
                };
                if !changed {
                    // Nobody looks any more: who has asked for it must not wait.
                    self.answered(u64::MAX);
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = provider => return false,
                _ = tick.tick() => if self.refresh_files().await { return true },
            }
        }
    }

    async fn refresh_files(&self) -> bool {
        let files = Arc::clone(&self.files);
        tokio::task::spawn_blocking(move || files.refresh()).await.unwrap_or_default()
    }

    /// Whether there is anything to compile. A provider that was asked to look again may have
    /// found nothing new; then what is in force is the answer already.
    async fn is_due(&self, known: &Known, files_changed: bool) -> bool {
        let latest = self.source.as_ref().map(|source| source.updates.borrow().clone());
        let Some(Update { config, asked, health }) = latest else { return true };
        // Changes that were seen before the question do not answer it.
        let refreshed = asked > *self.in_force.borrow() && self.refresh_files().await;
        let files_changed = files_changed || refreshed;
        let same = known.config.as_ref().is_some_and(|then| then.says_the_same(&config));
        // What could not be read meanwhile is counted, also if everything is as it was.
        let news = !same || known.health.as_ref() != Some(&health);
        if !news && !files_changed {
            self.answered(asked);
        }
        news || files_changed
    }

    fn answered(&self, asked: u64) {
        self.in_force.send_if_modified(|in_force| {
            let more = asked > *in_force;
            *in_force = asked.max(*in_force);
            more
        });
    }

    async fn step(&mut self, known: &mut Known) {
        let mut parts = vec![("internal", Arc::clone(&self.internal))];
        let mut asked = 0;
        let mut health = ProviderHealth { loaded: true, ..ProviderHealth::default() };
        if let Some(source) = &mut self.source {
            let update = source.updates.borrow_and_update().clone();
            known.config = Some(Arc::clone(&update.config));
            parts.push((source.name, update.config));
            health = update.health;
            asked = update.asked;
            if known.health.is_some() && asked > *self.in_force.borrow() {
                // The question may be younger than the last look at the files that options name.
                self.refresh_files().await;
            }
        }
        let previous = known.memo.take();
        let (facts, state) = (Arc::clone(&self.facts), Arc::clone(&self.state));
        let (files, shared) = (Arc::clone(&self.files), Arc::clone(&self.shared));
        let (server_up, bans) = (Arc::clone(&self.server_up), Arc::clone(&self.bans));
        let compiled = tokio::task::spawn_blocking(move || {
            let config = merge(&parts);
            let environment = Environment {
                files: &*files,
                state: &state,
                metrics: &shared.metrics,
                server_up: &server_up,
                facts: &facts,
            };
            let compiled = compile(&config, previous.as_ref(), &environment);
            bans.configured(|name| {
                let object = config.middlewares.get(name);
                object.is_some_and(|object| object.config.ban.is_some() || !object.is_good())
            });
            compiled
        });
        let compiled = match compiled.await {
            Ok(compiled) => compiled,
            Err(panic) => {
                error!(error = %panic, "compiling the configuration failed; the last one stays");
                self.shared.metrics.reload_failed();
                known.config = None;
                self.answered(asked);
                return;
            }
        };
        known.memo = Some(self.publish(compiled, &health, &mut known.seen));
        if health.failures > known.health.as_ref().map_or(0, |before| before.failures) {
            self.shared.metrics.reload_failed();
        } else {
            self.shared.metrics.reload_succeeded();
        }
        known.health = Some(health);
        self.answered(asked);
    }

    fn publish(
        &self,
        compiled: Compiled,
        health: &ProviderHealth,
        seen: &mut HashSet<String>,
    ) -> Memo {
        let Compiled { table, report, health_plans, memo } = compiled;
        self.shared.table.publish(table);
        let mut problems = report.not_ready.clone();
        if !health.loaded {
            let reason = health.error.clone();
            problems.push(reason.unwrap_or_else(|| "the provider has not loaded yet".to_owned()));
        }
        self.readiness.applied(problems);
        speak(&report, seen);
        if let Some(store) = &report.certificates {
            let certificates = store.infos().map(|info| CertificateMetric {
                cn: info.common_name.clone(),
                serial: info.serial_number.clone(),
                sans: info.sans.join(","),
                not_after: info.not_after,
            });
            self.shared.metrics.set_certificates(certificates.collect());
        }
        self.report.store(report);
        self.health.reconcile(health_plans);
        self.state.sweep();
        memo
    }
}

/// Logs what is new among the diagnostics, and that what was wrong is mended. `seen` are those of
/// the previous time. A problem that has only moved within its file is not new.
fn speak(report: &Report, seen: &mut HashSet<String>) {
    let diagnostics = without_consequences(&report.diagnostics);
    let errors = diagnostics.iter().filter(|one| one.severity == Severity::Error).count();
    let warnings = diagnostics.len() - errors;
    let mut now = HashSet::with_capacity(diagnostics.len());
    for diagnostic in &diagnostics {
        let key = without_place(diagnostic);
        if !seen.contains(&key) {
            match diagnostic.severity {
                Severity::Error => error!("{diagnostic}"),
                Severity::Warning => warn!("{diagnostic}"),
            }
        }
        now.insert(key);
    }
    if !seen.is_empty() && now.is_empty() {
        info!("the configuration is whole again");
    }
    info!(routers = report.router_count, errors, warnings, "configuration applied");
    *seen = now;
}

fn without_place(diagnostic: &Diagnostic) -> String {
    let file = diagnostic.span.as_ref().map_or("", |span| &*span.source.name);
    let subject = diagnostic.subject.as_ref();
    let (kind, name) = subject.map_or(("", ""), |subject| (subject.kind, &*subject.name));
    let note = diagnostic.note().unwrap_or_default();
    let severity = diagnostic.severity.as_str();
    format!("{file}\n{kind}\n{name}\n{severity}\n{}\n{note}", diagnostic.message)
}

/// A report before there is any configuration.
pub fn empty_report() -> LiveReport {
    Arc::new(ArcSwap::from_pointee(Report::default()))
}
