//! One connection to Redis, or to a cluster, which any number of requests use at once.
//!
//! Who needs it first connects, in a task of its own, and all others wait for that. A failure is
//! believed for a moment, so that a Redis that is away is not called for each request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError, TlsCertificates,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::Failure;
use crate::middleware::rate_limit::shared::{Endpoint, RedisConfig, Tls};
use crate::values::BuildError;

/// How long a connection that failed is not tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// What to connect to.
pub(super) struct Target {
    client: AnyClient,
    dial: Duration,
}

enum AnyClient {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
}

impl Target {
    /// One endpoint is a server, several are a cluster.
    pub(super) fn new(
        config: &RedisConfig,
        endpoints: &[Endpoint],
        tls: Option<&Tls>,
    ) -> Result<Self, BuildError> {
        let dial = config.dial_timeout.positive().unwrap_or(Duration::from_secs(5));
        let tcp = TcpSettings::default().set_nodelay(true);
        let tcp = match config.write_timeout.positive() {
            Some(limit) => tcp.set_user_timeout(limit),
            None => tcp,
        };
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        if !config.username.is_empty() {
            login = login.set_username(&config.username);
        }
        if !config.password.expose().is_empty() {
            login = login.set_password(config.password.expose());
        }
        let insecure = tls.is_some_and(|tls| tls.insecure);
        let address = |endpoint: &Endpoint| match tls {
            None => ConnectionAddr::Tcp(endpoint.host.clone(), endpoint.port),
            Some(_) => ConnectionAddr::TcpTls {
                host: endpoint.host.clone(),
                port: endpoint.port,
                insecure,
                tls_params: None,
            },
        };
        let info = |endpoint: &Endpoint,
                    login: &RedisConnectionInfo|
         -> Result<ConnectionInfo, BuildError> {
            let info = address(endpoint).into_connection_info().map_err(|error| refused(&error))?;
            Ok(info.set_redis_settings(login.clone()).set_tcp_settings(tcp.clone()))
        };
        let certificates = tls.map(|tls| TlsCertificates {
            client_tls: tls
                .identity
                .clone()
                .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key }),
            root_cert: tls.ca.clone(),
        });
        let client = if let [endpoint] = endpoints {
            let info = info(endpoint, &login.set_db(config.db))?;
            let client = match certificates {
                Some(certificates) => Client::build_with_tls(info, certificates),
                None => Client::open(info),
            };
            AnyClient::Single(Box::new(client.map_err(|error| refused(&error))?))
        } else {
            let nodes: Result<Vec<_>, _> =
                endpoints.iter().map(|endpoint| info(endpoint, &login)).collect();
            let mut builder = ClusterClientBuilder::new(nodes?)
                .tcp_settings(tcp.clone())
                .connection_timeout(dial)
                .response_timeout(config.read_timeout.positive().unwrap_or(FOREVER));
            if let Some(certificates) = certificates {
                builder = builder.certs(certificates);
            }
            AnyClient::Cluster(Box::new(builder.build().map_err(|error| refused(&error))?))
        };
        Ok(Self { client, dial })
    }

    async fn connect(&self) -> Result<Connected, Arc<str>> {
        let connecting = async {
            match &self.client {
                AnyClient::Single(client) => {
                    // Both times are bounded by who waits.
                    let config = AsyncConnectionConfig::new()
                        .set_connection_timeout(None)
                        .set_response_timeout(None);
                    client
                        .get_multiplexed_async_connection_with_config(&config)
                        .await
                        .map(Connected::Single)
                }
                AnyClient::Cluster(client) => {
                    client.get_async_connection().await.map(Connected::Cluster)
                }
            }
        };
        match timeout(self.dial, connecting).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(error.to_string().into()),
            Err(_) => Err("no connection within `dialTimeout`".into()),
        }
    }
}

/// About a year, for what knows no "never".
const FOREVER: Duration = Duration::from_hours(8760);

fn refused(error: &RedisError) -> BuildError {
    BuildError::at("redis", error.to_string())
}

/// A connection; clones are the same one.
#[derive(Clone)]
pub(super) enum Connected {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connected {
    /// Sends a command that answers with a text.
    pub(super) async fn query(&mut self, command: &Cmd) -> Result<String, RedisError> {
        match self {
            Self::Single(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Link {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stage: Stage,
    /// Tells one connection from the next.
    number: u64,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Connecting(watch::Receiver<()>),
    Ready(Connected),
    Failed {
        until: Instant,
        why: Arc<str>,
    },
}

impl Link {
    /// The connection and its number, as soon as there is one.
    pub(super) async fn connection(
        self: &Arc<Self>,
        target: &Arc<Target>,
    ) -> Result<(Connected, u64), Failure> {
        loop {
            let mut over = match self.step(target) {
                Step::Use(connected, number) => return Ok((connected, number)),
                Step::Fail(why) => return Err(Failure::Unreachable(why)),
                Step::Wait(over) => over,
            };
            // It ends with an error as soon as its sender is gone, which is all that it is for.
            let _ = over.changed().await;
        }
    }

    /// Makes the next request connect anew, unless that has happened.
    pub(super) fn drop_connection(&self, number: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.number == number && matches!(state.stage, Stage::Ready(_)) {
            state.stage = Stage::Idle;
        }
    }

    fn step(self: &Arc<Self>, target: &Arc<Target>) -> Step {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.stage {
            Stage::Ready(connected) => return Step::Use(connected.clone(), state.number),
            Stage::Connecting(over) => return Step::Wait(over.clone()),
            Stage::Failed { until, why } if Instant::now() < *until => {
                return Step::Fail(Arc::clone(why));
            }
            Stage::Failed { .. } | Stage::Idle => {}
        }
        let (dialing, over) = watch::channel(());
        state.stage = Stage::Connecting(over.clone());
        state.number += 1;
        let dialing = Dialing { link: Arc::clone(self), _over: dialing };
        let target = Arc::clone(target);
        tokio::spawn(async move {
            let reached = match target.connect().await {
                Ok(connected) => Stage::Ready(connected),
                Err(why) => Stage::Failed { until: Instant::now() + PAUSE, why },
            };
            dialing.link.state.lock().unwrap_or_else(PoisonError::into_inner).stage = reached;
        });
        Step::Wait(over)
    }
}

enum Step {
    Use(Connected, u64),
    Wait(watch::Receiver<()>),
    Fail(Arc<str>),
}

/// While somebody connects. The waiting look again when it is dropped.
struct Dialing {
    link: Arc<Link>,
    _over: watch::Sender<()>,
}

impl Drop for Dialing {
    fn drop(&mut self) {
        let mut state = self.link.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The worker has ended in the middle of it.
        if matches!(state.stage, Stage::Connecting(_)) {
            state.stage = Stage::Idle;
        }
    }
}
