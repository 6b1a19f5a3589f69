//! The admin API, Doorward's own: the one place where a running proxy is changed from outside.
//!
//! It has a listener of its own and is never a service of an entry point. Who asks is known before
//! anything is read, whatever changes something is written to the audit log before it happens, and
//! a new kind of thing that can be changed is one more [`Resource`].

mod audit;
mod auth;
mod bans;
mod call;
mod config;
mod failures;
mod gate;
mod guests;
pub mod head;
pub mod json;
mod listener;
mod server;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::audit::Audit;
use self::auth::Keys;
pub use self::bans::BansResource;
pub use self::call::{Answer, Call, Reply, Resource, Role, Via, Who};
pub use self::config::{AdminConfig, AdminTlsConfig, ClientCertificateConfig, TokenConfig};
use self::failures::Failures;
use self::gate::Gate;
use self::listener::Listener;
use self::server::Server;
use crate::values::{BuildError, Files};

/// The running admin API.
pub struct Admin {
    config: AdminConfig,
    files: Arc<dyn Files>,
    server: Arc<Server>,
    address: Option<SocketAddr>,
    shutdown: CancellationToken,
}

impl Admin {
    /// Starts it with these resources, within a runtime: what it needs is read and its socket is
    /// bound before this returns. It ends with `shutdown`.
    pub fn start(
        config: &AdminConfig,
        files: Arc<dyn Files>,
        resources: Vec<Arc<dyn Resource>>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        if let Some(error) = config.check().into_iter().next() {
            anyhow::bail!("admin.{}: {}", error.option, error.message);
        }
        let keys = Keys::read(config, &*files)?;
        let audit = Audit::open(config.audit_log.clone())
            .with_context(|| format!("the audit log `{}`", config.audit_log.display()))?;
        let listener = Listener::bind(config)?;
        let address = listener.address();
        let server = Arc::new(Server {
            keys: ArcSwap::from_pointee(keys),
            gate: Gate::new(config, address),
            failures: Failures::default(),
            audit: Arc::new(audit),
            resources,
        });
        let shutdown = shutdown.child_token();
        tokio::spawn(Arc::clone(&server).run(listener, shutdown.clone()));
        Ok(Self { config: config.clone(), files, server, address, shutdown })
    }

    /// What of the files that it needs would let it not start, by option of `admin`.
    pub fn check_files(config: &AdminConfig, files: &dyn Files) -> Vec<BuildError> {
        let mut found = Keys::check(config, files);
        found.extend(audit::check(&config.audit_log));
        found.extend(listener::check(&config.socket));
        found
    }

    /// Directories that are missing, by option of `admin`. Whoever starts it may make them.
    pub fn missing_directories(config: &AdminConfig) -> Vec<BuildError> {
        let paths = [("socket", &config.socket), ("auditLog", &config.audit_log)];
        let missing = paths.into_iter().filter_map(|(option, path)| {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty())?;
            let message = format!("there is no directory `{}`", parent.display());
            (!parent.is_dir()).then(|| BuildError::at(option, message))
        });
        missing.collect()
    }

    /// Where it listens, unless that is a socket of the file system.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Failed authentications, for the metrics.
    pub fn failures(&self) -> Arc<AtomicU64> {
        self.server.failures.total()
    }

    /// Reads tokens and certificates again. A token that cannot be read is not valid any more; a
    /// certificate that cannot be read leaves the last one in place.
    pub fn reload(&self) {
        let keys = Keys::read_again(&self.config, &*self.files, &self.server.keys.load());
        self.server.keys.store(Arc::new(keys));
        info!("the tokens and certificates of the admin API were read again");
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Says what is wrong with something that the admin API needs, when it is read again.
fn complain(error: &anyhow::Error) {
    error!("admin API: {error:#}");
}
