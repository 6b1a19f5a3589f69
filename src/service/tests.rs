//! What the tests of services share, and services as a whole: kinds, probes, reloads.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderValue;
use http_body_util::BodyExt as _;
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::Instant;

use super::health::HealthMonitor;
use super::health::tests::Gauge;
use super::*;
use crate::exchange::{
    Body, Connection, Context, EntryPointFacts, OpenWork, Outcome, Request, Response,
    ResponseFuture,
};
use crate::upstream::ServersTransportConfig;
use crate::values::Disk;

/// Runs a test as a worker runs requests.
pub(super) fn local<T>(future: impl Future<Output = T>) -> T {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build_local(LocalOptions::default()).unwrap().block_on(future)
}

pub(super) fn context() -> Context {
    let entry_point =
        Arc::new(EntryPointFacts { name: "web".into(), ..EntryPointFacts::default() });
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    Context {
        connection: Arc::new(Connection {
            entry_point,
            peer,
            peer_ip: peer.ip(),
            peer_ip_text: HeaderValue::from_static("127.0.0.1"),
            local: peer,
            tls: None,
            opened: Instant::now(),
            work: OpenWork::default(),
            own: std::sync::OnceLock::new(),
        }),
        host: "test".into(),
        authority: Some(HeaderValue::from_static("test")),
        start: Instant::now(),
        request_id: None,
    }
}

pub(super) fn request(cookie: Option<&str>) -> Request {
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert("host", HeaderValue::from_static("test"));
    if let Some(cookie) = cookie {
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
    }
    request
}

/// The body of the answer to one request, and the answer without it.
pub(super) async fn ask(service: &dyn Service, request: Request) -> (String, Response) {
    let (parts, body) = service.handle(&context(), request).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (String::from_utf8(body.to_vec()).unwrap(), Response::from_parts(parts, Body::empty()))
}

pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// An HTTP server on a thread, whose answer is its own name and a status that a test may change.
pub(super) struct Origin {
    pub(super) url: String,
    pub(super) name: String,
    status: Arc<AtomicU16>,
    /// Milliseconds before it answers.
    delay: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let status = Arc::new(AtomicU16::new(200));
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (answer, answers, log) = (name.clone(), Arc::clone(&status), Arc::clone(&requests));
        let delay = Arc::new(AtomicUsize::new(0));
        let delays = Arc::clone(&delay);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut buffer = [0; 4096];
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => break,
                        Ok(length) => head.extend_from_slice(&buffer[..length]),
                    }
                }
                log.lock().unwrap().push(String::from_utf8(head).unwrap());
                pause(delays.load(Ordering::Relaxed));
                let (status, length) = (answers.load(Ordering::Relaxed), answer.len());
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n");
                let _ = write!(stream, "{head}Connection: close\r\n\r\n{answer}");
            }
        });
        Self { url: format!("http://{name}"), name, status, delay, requests }
    }

    pub(super) fn delay(&self, time: Duration) {
        let millis = usize::try_from(time.as_millis()).unwrap();
        self.delay.store(millis, Ordering::Relaxed);
    }

    pub(super) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    pub(super) fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own")]
fn pause(millis: usize) {
    std::thread::sleep(Duration::from_millis(millis as u64));
}

/// A port that nobody listens at.
pub(super) fn nowhere() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A service that answers with its name, and is as healthy as the test says.
pub(super) struct Fake {
    name: &'static str,
    up: AtomicBool,
    checks: bool,
    asked: AtomicUsize,
    status: AtomicU16,
    got: Mutex<Vec<String>>,
}

impl Fake {
    pub(super) fn new(name: &'static str, checks: bool) -> Arc<Self> {
        Arc::new(Self {
            name,
            up: AtomicBool::new(true),
            checks,
            asked: AtomicUsize::new(0),
            status: AtomicU16::new(200),
            got: Mutex::default(),
        })
    }

    pub(super) fn set(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    pub(super) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// How often somebody asked since the last call whether it is up.
    pub(super) fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }

    /// The body of the latest request that nobody has asked for yet.
    pub(super) fn got(&self) -> String {
        std::mem::take(&mut *self.got.lock().unwrap()).pop().unwrap_or_default()
    }

    /// How many requests came since somebody asked for one.
    pub(super) fn requests(&self) -> usize {
        self.got.lock().unwrap().len()
    }
}

impl Handler for Fake {
    fn handle<'a>(&'a self, _: &'a Context, request: Request) -> ResponseFuture<'a> {
        Box::pin(async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            self.got.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
            let mut response = Response::new(Body::from_static(self.name.as_bytes()));
            let status = self.status.load(Ordering::Relaxed);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        })
    }
}

impl Service for Fake {
    fn is_up(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.up.load(Ordering::Relaxed)
    }

    fn checks_health(&self) -> bool {
        self.checks
    }
}

/// What services are built in: one process with its reloads.
pub(super) struct World {
    pub(super) state: SharedState,
    pub(super) gauge: Arc<Gauge>,
    pub(super) services: HashMap<String, Arc<dyn Service>>,
    pub(super) warnings: Vec<BuildError>,
    pub(super) transport: Option<Arc<ServersTransport>>,
    pub(super) metrics: Option<Arc<dyn Observer>>,
}

impl World {
    pub(super) fn new() -> Self {
        let transport = ServersTransport::build(
            "default@internal",
            &ServersTransportConfig::default(),
            &Disk,
            Profile::Safe,
            &mut Vec::new(),
        );
        Self {
            state: SharedState::default(),
            gauge: Arc::default(),
            services: HashMap::new(),
            warnings: Vec::new(),
            transport: Some(Arc::new(transport.unwrap())),
            metrics: None,
        }
    }

    pub(super) fn build(
        &mut self,
        name: &str,
        config: serde_json::Value,
    ) -> Result<Arc<dyn Service>, BuildError> {
        let config: ServiceConfig = serde_json::from_value(config).unwrap();
        let gauge: Arc<dyn ServerGauge> = Arc::<Gauge>::clone(&self.gauge);
        let services = &self.services;
        let mut child = |name: &str| {
            let missing = || BuildError::new(format!("the service {name:?} does not exist"));
            services.get(name).cloned().ok_or_else(missing)
        };
        let built = config.build(&mut ServiceContext {
            name: &QualifiedName::new(name, "file"),
            transport: self.transport.clone(),
            child: &mut child,
            state: &self.state,
            profile: Profile::Safe,
            metrics: self.metrics.clone(),
            server_up: gauge,
            warnings: &mut self.warnings,
        })?;
        self.services.insert(name.to_owned(), Arc::clone(&built));
        Ok(built)
    }

    pub(super) fn error(&mut self, config: serde_json::Value) -> (String, String) {
        let error = self.build("s", config).err().unwrap();
        (error.option, error.message)
    }
}

#[test]
fn a_service_has_exactly_one_kind() {
    let mut world = World::new();
    let (option, message) =
        world.error(serde_json::json!({"loadBalancer": {}, "weighted": {"services": []}}));
    assert_eq!(option, "");
    assert!(message.contains("multi-types service not supported"), "{message}");
    let (_, message) = world.error(serde_json::json!({}));
    assert_eq!(message, "the service \"s@file\" does not have any type defined");
}

#[test]
fn a_kind_is_named_as_in_traefiks_api() {
    for (text, kind) in [
        (r#"{"loadBalancer": {}}"#, Some("loadbalancer")),
        (r#"{"weighted": {"services": []}, "middlewares": ["a"]}"#, Some("weighted")),
        (r#"{"highestRandomWeight": {}}"#, Some("highestrandomweight")),
        (r#"{"mirroring": {}}"#, Some("mirroring")),
        (r#"{"failover": {}}"#, Some("failover")),
        (r#"{"failover": {}, "mirroring": {}}"#, None),
        ("{}", None),
    ] {
        let config: ServiceConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.kind().as_deref(), kind, "{text}");
    }
}

fn checked(servers: &[&str], interval: &str) -> serde_json::Value {
    let servers: Vec<_> = servers.iter().map(|url| serde_json::json!({"url": url})).collect();
    serde_json::json!({"loadBalancer": {
        "servers": servers,
        "healthCheck": {"path": "/health", "interval": interval, "timeout": "5s"},
    }})
}

#[test]
fn probes_take_servers_out_and_bring_them_back() {
    local(async {
        let mut world = World::new();
        let (first, second) = (Origin::start(), Origin::start());
        let service = world.build("s", checked(&[&first.url, &second.url], "30ms")).unwrap();
        let monitor = HealthMonitor::start().unwrap();
        assert!(service.checks_health());
        first.answer(500);
        monitor.reconcile(vec![service.health_plan().unwrap()]);
        until("the first is down", || {
            service.server_status().iter().map(|(_, up)| *up).eq([false, true])
        })
        .await;
        assert_eq!(world.gauge.value("s@file", &first.url), Some(false));
        assert_eq!(world.gauge.value("s@file", &second.url), Some(true));
        for _ in 0..4 {
            assert_eq!(ask(&*service, request(None)).await.0, second.name);
        }
        second.answer(404);
        until("both are down", || !service.is_up()).await;
        let (body, response) = ask(&*service, request(None)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "no available server\n");
        first.answer(200);
        until("the first is back", || service.is_up()).await;
        assert_eq!(ask(&*service, request(None)).await.0, first.name);
        assert_eq!(world.gauge.value("s@file", &first.url), Some(true));
        let head = first.requests.lock().unwrap()[0].to_lowercase();
        assert!(head.starts_with("get /health http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: {}\r\n", first.name)), "{head}");
    });
}

#[test]
fn an_interval_elapses_under_frequent_reloads() {
    local(async {
        let mut world = World::new();
        let (server, other) = (Origin::start(), nowhere());
        server.answer(503);
        let monitor = HealthMonitor::start().unwrap();
        let mut service = world.build("s", checked(&[&server.url], "200ms")).unwrap();
        let start = Instant::now();
        let mut reloads = 0;
        while service.server_status().first().unwrap().1 {
            assert!(start.elapsed() < Duration::from_secs(20));
            // Every reload has another list of servers, as that of a busy cluster.
            let both = [&*server.url, &*other];
            let servers = if reloads % 2 == 0 { &both[..] } else { &both[..1] };
            service = world.build("s", checked(servers, "200ms")).unwrap();
            monitor.reconcile(vec![service.health_plan().unwrap()]);
            reloads += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(start.elapsed() >= Duration::from_millis(200));
        assert!(reloads > 2);
        // What is known now stays known.
        service = world.build("s", checked(&[&server.url, &other], "200ms")).unwrap();
        assert!(!service.server_status()[0].1);
        // Other checks start from the beginning.
        let fresh = world.build("s", checked(&[&server.url], "1h")).unwrap();
        assert!(fresh.server_status()[0].1);
    });
}

#[test]
fn servers_that_are_down_have_an_interval_of_their_own() {
    local(async {
        let mut world = World::new();
        let server = Origin::start();
        let config = serde_json::json!({"loadBalancer": {
            "servers": [{"url": server.url}],
            "healthCheck": {"interval": "1h", "unhealthyInterval": "30ms"},
            "passiveHealthCheck": {"failureWindow": "1h"},
        }});
        let service = world.build("s", config).unwrap();
        let monitor = HealthMonitor::start().unwrap();
        monitor.reconcile(vec![service.health_plan().unwrap()]);
        server.answer(500);
        assert_eq!(ask(&*service, request(None)).await.1.status(), 500);
        assert!(!service.is_up());
        until("probes of a server that is down", || server.asked() >= 3).await;
        assert!(!service.is_up());
        server.answer(200);
        until("it is back", || service.is_up()).await;
        assert_eq!(ask(&*service, request(None)).await.1.status(), 200);
    });
}

#[test]
fn what_is_gone_is_not_probed_any_more() {
    local(async {
        let mut world = World::new();
        let server = Origin::start();
        let service = world.build("s", checked(&[&server.url], "20ms")).unwrap();
        let plan = service.health_plan().unwrap();
        let monitor = HealthMonitor::start().unwrap();
        monitor.reconcile(vec![Arc::clone(&plan)]);
        until("probes", || server.asked() >= 3).await;
        monitor.reconcile(Vec::new());
        world.services.clear();
        drop(service);
        // The monitor lets go of a plan only when its task is over.
        until("the end", || Arc::strong_count(&plan) == 1).await;
        assert_eq!(world.gauge.value("s@file", &server.url), Some(true));
        drop(plan);
        assert_eq!(world.gauge.value("s@file", &server.url), None);
        world.state.sweep();
        assert!(world.state.is_empty());
    });
}

#[test]
fn parents_see_what_probes_find() {
    local(async {
        let mut world = World::new();
        let server = Origin::start();
        let leaf = world.build("leaf", checked(&[&server.url], "30ms")).unwrap();
        let weighted = serde_json::json!({"weighted": {
            "services": [{"name": "leaf"}], "healthCheck": {},
        }});
        let middle = world.build("middle", weighted).unwrap();
        world.services.insert("spare".to_owned(), Fake::new("spare", true));
        let failover = serde_json::json!({"failover": {"service": "middle", "fallback": "spare"}});
        let top = world.build("top", failover).unwrap();
        assert_eq!(ask(&*top, request(None)).await.0, server.name);
        let monitor = HealthMonitor::start().unwrap();
        server.answer(500);
        monitor.reconcile(vec![leaf.health_plan().unwrap()]);
        until("the leaf is down", || !leaf.is_up()).await;
        assert!(!middle.is_up());
        assert_eq!(ask(&*middle, request(None)).await.0, "no available server\n");
        assert_eq!(ask(&*top, request(None)).await.0, "spare");
    });
}

#[test]
fn an_absolute_path_takes_servers_down_and_warns() {
    local(async {
        let mut world = World::new();
        let server = Origin::start();
        let config = serde_json::json!({"loadBalancer": {
            "servers": [{"url": server.url}],
            "healthCheck": {"path": format!("{}/x", server.url), "interval": "20ms",
                            "timeout": "0s"},
        }});
        let service = world.build("s", config).unwrap();
        let options: Vec<_> = world.warnings.iter().map(|warning| &*warning.option).collect();
        assert_eq!(options, ["loadBalancer.healthCheck.timeout", "loadBalancer.healthCheck.path"]);
        let monitor = HealthMonitor::start().unwrap();
        monitor.reconcile(vec![service.health_plan().unwrap()]);
        until("it is down", || !service.is_up()).await;
        assert_eq!(server.asked(), 0);
    });
}

#[test]
fn a_silent_server_is_down_after_the_timeout() {
    local(async {
        let mut world = World::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = serde_json::json!({"loadBalancer": {
            "servers": [{"url": url}],
            "healthCheck": {"interval": "20ms", "timeout": "50ms"},
        }});
        let service = world.build("s", config).unwrap();
        let monitor = HealthMonitor::start().unwrap();
        monitor.reconcile(vec![service.health_plan().unwrap()]);
        until("it is down", || !service.is_up()).await;
        drop(listener);
    });
}

#[test]
fn an_outcome_says_who_answered() {
    struct Deaf;
    impl Observer for Deaf {
        fn observe(&self, _: &crate::exchange::Observation<'_>) {}
    }
    local(async {
        let mut world = World::new();
        world.metrics = Some(Arc::new(Deaf));
        let server = Origin::start();
        let url = server.url.replace("http://", "http://user:secret@");
        let config = serde_json::json!({"loadBalancer": {"servers": [{"url": url}]}});
        let service = world.build("s", config).unwrap();
        let (_, mut response) = ask(&*service, request(None)).await;
        let outcome = Outcome::of(&mut response);
        assert_eq!(outcome.service.as_deref(), Some("s@file"));
        assert_eq!(outcome.server.as_deref(), Some(&*server.url));
        assert_eq!(outcome.origin_status, Some(StatusCode::OK));
        assert!(outcome.service_start.is_some());
        assert_eq!(outcome.observers.len(), 1);
        assert_eq!(&*service.server_status()[0].0, url);
    });
}
