//! What the benchmarks share: something to compile in, a configuration of any size, a request's
//! origin, and a backend.

#![expect(dead_code, unreachable_pub, reason = "each benchmark uses its own part of this")]

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::thread;

use bytes::Bytes;
use doorward::compile::{
    Compiled, EntryPointModel, Environment, Memo, OnBrokenRouter, StaticFacts, compile,
};
use doorward::config::dynamic_config::{DynamicConfig, Object};
use doorward::config::merge::merge;
use doorward::config::tree::{Format, Source, parse};
use doorward::exchange::{Connection, Context, EntryPointFacts, OpenWork};
use doorward::observability::metrics::Metrics;
use doorward::service::ServerGauge;
use doorward::state::SharedState;
use doorward::upstream::ServersTransportConfig;
use doorward::values::{Disk, Profile, QualifiedName};
use http::HeaderValue;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// Everything that compiling needs besides a configuration.
pub struct World {
    pub state: SharedState,
    metrics: Metrics,
    pub server_up: Arc<dyn ServerGauge>,
    facts: StaticFacts,
}

impl World {
    /// One entry point, `web`, and counters that are off.
    pub fn new() -> Self {
        let web = EntryPointModel { name: "web".into(), is_default: true, ..Default::default() };
        Self {
            state: SharedState::default(),
            metrics: Metrics::new(&doorward::observability::metrics::MetricsConfig::default())
                .unwrap(),
            server_up: Arc::new(NoGauge),
            facts: StaticFacts {
                profile: Profile::default(),
                strict_tls_options: true,
                on_broken_router: OnBrokenRouter::Refuse,
                entry_points: vec![web],
                default_rule_syntax: doorward::rule::Syntax::V3,
                resolvers: BTreeSet::new(),
                internal_services: HashMap::new(),
                precedence: vec!["internal".to_owned(), "file".to_owned()],
                proxies: doorward::upstream::Proxies::default(),
                add_internals_metrics: false,
                add_internals_access_log: false,
            },
        }
    }

    /// Compiles, with what an earlier compile remembers or from nothing.
    pub fn compile(&self, config: &DynamicConfig, previous: Option<&Memo>) -> Compiled {
        let environment = Environment {
            files: &Disk,
            state: &self.state,
            metrics: &self.metrics,
            server_up: &self.server_up,
            facts: &self.facts,
        };
        compile(config, previous, &environment)
    }
}

struct NoGauge;

impl ServerGauge for NoGauge {
    fn set(&self, _: &str, _: &str, _: bool) {}
    fn remove(&self, _: &str, _: &str) {}
}

/// The host of a tenant.
pub fn host(tenant: usize) -> String {
    format!("tenant{tenant:06}.example.com")
}

/// A router and a service for each tenant, in one file. The router of `renamed` has another host.
pub fn tenants(count: usize, renamed: Option<usize>) -> String {
    let mut text = "http:\n  routers:\n".to_owned();
    for tenant in 0..count {
        let host =
            if renamed == Some(tenant) { "renamed.example.com".to_owned() } else { host(tenant) };
        let _ =
            write!(text, "    t{tenant}:\n      rule: Host(`{host}`)\n      service: t{tenant}\n");
    }
    text.push_str("  services:\n");
    for tenant in 0..count {
        let _ = write!(
            text,
            "    t{tenant}:\n      loadBalancer:\n        servers:\n          - url: http://10.0.0.1:8069\n"
        );
    }
    text
}

/// The configuration that a file of this text is.
pub fn read(text: &str) -> Arc<DynamicConfig> {
    let source = Source::new("bench.yml", text, Format::Yaml);
    Arc::new(DynamicConfig::read(&parse(&source).unwrap(), "file"))
}

/// The same with what is always there.
pub fn merged(file: &Arc<DynamicConfig>) -> DynamicConfig {
    static INTERNAL: LazyLock<Arc<DynamicConfig>> = LazyLock::new(|| {
        let mut internal = DynamicConfig::default();
        let transport = Object::implied(ServersTransportConfig::default());
        internal.servers_transports.insert(QualifiedName::new("default", "internal"), transport);
        Arc::new(internal)
    });
    merge(&[("internal", Arc::clone(&INTERNAL)), ("file", Arc::clone(file))])
}

/// The origin of a request on a clear-text connection.
pub fn context() -> Context {
    let entry_point = EntryPointFacts { name: "web".into(), ..EntryPointFacts::default() };
    let connection = Connection {
        entry_point: Arc::new(entry_point),
        peer: SocketAddr::from(([192, 0, 2, 1], 40_000)),
        peer_ip: [192, 0, 2, 1].into(),
        peer_ip_text: HeaderValue::from_static("192.0.2.1"),
        local: SocketAddr::from(([127, 0, 0, 1], 80)),
        tls: None,
        opened: Instant::now(),
        work: OpenWork::default(),
        own: std::sync::OnceLock::new(),
    };
    Context {
        connection: Arc::new(connection),
        host: "a.example.com".into(),
        authority: Some(HeaderValue::from_static("a.example.com")),
        start: Instant::now(),
        request_id: None,
    }
}

/// Starts a backend that answers everything with 1 KiB, on a thread of its own.
pub fn backend() -> SocketAddr {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, serve(listener));
    });
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn serve(listener: std::net::TcpListener) {
    static REPLY: [u8; 1024] = [b'x'; 1024];
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::task::spawn_local(async move {
            let answer = service_fn(async |_| {
                Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(&REPLY))))
            });
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
