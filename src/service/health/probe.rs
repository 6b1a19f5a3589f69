//! One probe: ask, follow redirects, look at the answer. All of it inside one timeout.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, PROXY_AUTHORIZATION,
    USER_AGENT,
};
use http::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::grpc;
use super::reference::Address;
use crate::exchange::{Body, ProxyError, Request, Response};
use crate::service::HealthCheckConfig;
use crate::upstream::{Forwarder, ForwarderOptions, ServersTransport, Target};
use crate::values::BuildError;

/// How a request without a client gets to a server: a servers transport, or a test.
pub(in crate::service) trait ProbeSender: Send + Sync {
    /// Sends `request` to `target` and waits for the head of the answer.
    fn send(self: Arc<Self>, target: Target, request: Request) -> Answer;
}

/// The answer to a probe, or why there is none.
pub(in crate::service) type Answer = Pin<Box<dyn Future<Output = Result<Response, ProxyError>>>>;

impl ProbeSender for ServersTransport {
    fn send(self: Arc<Self>, target: Target, request: Request) -> Answer {
        Box::pin(async move {
            Forwarder::new(self, target, ForwarderOptions::default()).send(request).await
        })
    }
}

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::service) enum ProbeError {
    /// `path` leads to another server.
    #[error("the path of the health check is an absolute URL")]
    NotAPath,
    /// What is asked for cannot be made of the URL and the options.
    #[error("the address of the health check cannot be used")]
    NoAddress,
    /// There was no answer.
    #[error("{0}")]
    NoAnswer(#[from] ProxyError),
    /// There was another answer than the one that means healthy.
    #[error("received status {0}")]
    Status(StatusCode),
    /// The answer is not one of gRPC.
    #[error("the answer is not valid gRPC")]
    NotGrpc,
    /// The server has no standard health service.
    #[error("the gRPC server does not implement the health protocol")]
    NoHealthService,
    /// The call failed.
    #[error("the gRPC health check failed with code {0}")]
    GrpcCode(u32),
    /// The server says itself that it is not well: a value of `ServingStatus`.
    #[error("received gRPC serving status {0}")]
    NotServing(u64),
    /// Redirects did not end.
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
}

/// What is asked, and what is a good answer.
#[derive(Debug, Clone)]
pub(in crate::service) struct ProbeSettings {
    grpc: bool,
    method: Method,
    status: u16,
    hostname: Option<HeaderValue>,
    headers: HeaderMap,
    follow_redirects: bool,
    timeout: Duration,
}

/// The `mode` of probes by gRPC.
pub(super) const GRPC: &str = "grpc";

/// No timer is as late as this because there is much to do.
const HELD_UP: Duration = Duration::from_millis(100);
/// As Go's client has it.
const MAX_REDIRECTS: u32 = 10;

impl ProbeSettings {
    /// The settings of a health check, with Traefik's defaults put in.
    pub(in crate::service) fn new(
        config: &HealthCheckConfig,
        timeout: Duration,
    ) -> Result<Self, BuildError> {
        let method = match config.method.as_str() {
            "" => Method::GET,
            method => method
                .parse()
                .map_err(|_| no_use("healthCheck.method", method, "is no HTTP method"))?,
        };
        let hostname = match config.hostname.as_str() {
            "" => None,
            name => Some(
                HeaderValue::from_str(name)
                    .map_err(|_| no_use("healthCheck.hostname", name, "is no host name"))?,
            ),
        };
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static("doorward"));
        for (name, value) in &config.headers {
            let option = format!("healthCheck.headers.{name}");
            // A value may be a secret: it is not repeated.
            let message = format!("`{option}` is no header: its name or value cannot be sent");
            let invalid = || BuildError::at(&*option, &*message);
            let name: HeaderName = name.parse().map_err(|_| invalid())?;
            let value = HeaderValue::from_str(value).map_err(|_| invalid())?;
            // As in Go, `Host` is no header of a request: `hostname` sets it.
            if name != HOST {
                headers.insert(name, value);
            }
        }
        if !matches!(config.status, 0 | 100..=599) {
            let why = "is no status of an answer: write 100 to 599";
            return Err(no_use("healthCheck.status", config.status, why));
        }
        Ok(Self {
            grpc: config.mode == GRPC,
            method,
            status: config.status,
            hostname,
            headers,
            follow_redirects: config.follow_redirects.unwrap_or(true),
            timeout,
        })
    }

    fn accepts(&self, status: StatusCode) -> bool {
        match self.status {
            0 => status.is_success() || status.is_redirection(),
            wanted => status.as_u16() == wanted,
        }
    }
}

/// The error for a value that an option cannot have.
fn no_use(option: &str, value: impl std::fmt::Display, why: &str) -> BuildError {
    BuildError::at(option, format!("`{option}`: `{value}` {why}"))
}

/// Asks the server at `address` whether it is well.
pub(super) async fn probe(
    sender: &Arc<dyn ProbeSender>,
    address: &Address,
    settings: &ProbeSettings,
) -> Result<(), ProbeError> {
    if settings.grpc {
        return in_time(settings.timeout, grpc::check(sender, address)).await;
    }
    let status = in_time(settings.timeout, ask(sender, address, settings)).await?;
    if settings.accepts(status) { Ok(()) } else { Err(ProbeError::Status(status)) }
}

/// What `answer` says before `limit` is over. A timer that rings late tells that it was us who were
/// held up, by a SIGSTOP or with the whole machine: then the answer may be there unread, and has
/// the time once more.
async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, ProbeError>>,
) -> Result<T, ProbeError> {
    let mut answer = std::pin::pin!(answer);
    for _ in 0..2 {
        let deadline = Instant::now() + limit;
        if let Ok(answer) = timeout_at(deadline, answer.as_mut()).await {
            return answer;
        }
        if deadline.elapsed() < HELD_UP {
            break;
        }
    }
    Err(ProbeError::Timeout)
}

/// The status of the answer that no redirect follows.
async fn ask(
    sender: &Arc<dyn ProbeSender>,
    address: &Address,
    settings: &ProbeSettings,
) -> Result<StatusCode, ProbeError> {
    let mut address = address.clone();
    let mut method = settings.method.clone();
    let mut headers = settings.headers.clone();
    let mut hostname = settings.hostname.clone();
    for _ in 0..=MAX_REDIRECTS {
        let target = Target::parse(&address.origin()).map_err(|_| ProbeError::NoAddress)?;
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method.clone();
        *request.uri_mut() = address.path.clone().into();
        *request.headers_mut() = headers.clone();
        let host = hostname.clone().unwrap_or_else(|| target.host_header().clone());
        request.headers_mut().insert(HOST, host);
        let response = Arc::clone(sender).send(target, request).await?;
        let status = response.status();
        let Some(location) = redirect(&response).filter(|_| settings.follow_redirects) else {
            return Ok(status);
        };
        let next = address.resolve(&location).ok_or(ProbeError::NoAddress)?;
        if super::reference::is_elsewhere(&location) {
            hostname = None;
        }
        if next.authority != address.authority {
            // What was meant for one server is not told to another.
            for secret in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
                headers.remove(secret);
            }
        }
        let keeps_method = matches!(status.as_u16(), 307 | 308);
        if !keeps_method && method != Method::HEAD {
            method = Method::GET;
        }
        address = next;
    }
    Err(ProbeError::Redirects)
}

/// Where a redirect leads; bytes beyond ASCII, which Go's client accepts, are escaped.
fn redirect(response: &Response) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(LOCATION)?.as_bytes();
    let mut text = String::with_capacity(location.len());
    for &byte in location {
        if byte.is_ascii() {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    type Scripted = (u16, Option<&'static str>);

    /// Answers by URL and remembers what it was asked.
    #[derive(Default)]
    struct Script {
        answers: Vec<(&'static str, Scripted)>,
        asked: Mutex<Vec<String>>,
    }

    impl ProbeSender for Script {
        fn send(self: Arc<Self>, target: Target, request: Request) -> Answer {
            let url = format!("{}{}", target.text(), request.uri());
            let host = request.headers()[HOST].to_str().unwrap().to_owned();
            let secret = request.headers().contains_key(AUTHORIZATION);
            self.asked.lock().unwrap().push(format!("{} {url} {host} {secret}", request.method()));
            let answer = self.answers.iter().find(|(of, _)| *of == url).map(|(_, answer)| *answer);
            Box::pin(async move {
                let (status, location) = answer.ok_or(ProxyError::ConnectFailed)?;
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                if let Some(location) = location {
                    response.headers_mut().insert(LOCATION, location.parse().unwrap());
                }
                Ok(response)
            })
        }
    }

    async fn run(
        config: &HealthCheckConfig,
        answers: &[(&'static str, Scripted)],
    ) -> (Result<(), ProbeError>, Vec<String>) {
        let script = Arc::new(Script { answers: answers.to_vec(), asked: Mutex::default() });
        let settings = ProbeSettings::new(config, Duration::from_secs(5)).unwrap();
        let address = Address::parse("http://a:1/h").unwrap();
        let sender: Arc<dyn ProbeSender> = Arc::<Script>::clone(&script);
        let result = probe(&sender, &address, &settings).await;
        (result, std::mem::take(&mut *script.asked.lock().unwrap()))
    }

    #[tokio::test]
    async fn statuses() {
        for (wanted, status, healthy) in [
            (0, 200, true),
            (0, 204, true),
            (0, 304, true),
            (0, 399, true),
            (0, 400, false),
            (0, 503, false),
            (401, 401, true),
            (401, 200, false),
        ] {
            let config = HealthCheckConfig { status: wanted, ..HealthCheckConfig::default() };
            let (result, _) = run(&config, &[("http://a:1/h", (status, None))]).await;
            assert_eq!(result.is_ok(), healthy, "{wanted} {status}");
        }
        let (result, _) = run(&HealthCheckConfig::default(), &[]).await;
        assert_eq!(result, Err(ProbeError::NoAnswer(ProxyError::ConnectFailed)));
    }

    #[tokio::test]
    async fn hostname_and_method_are_sent() {
        let config = HealthCheckConfig {
            hostname: "odoo.example".to_owned(),
            method: "HEAD".to_owned(),
            headers: [("Host".to_owned(), "ignored".to_owned())].into(),
            ..HealthCheckConfig::default()
        };
        let (result, asked) = run(&config, &[("http://a:1/h", (200, None))]).await;
        assert_eq!(result, Ok(()));
        assert_eq!(asked, ["HEAD http://a:1/h odoo.example false"]);
    }

    #[tokio::test]
    async fn redirects_are_followed_without_telling_secrets() {
        let config = HealthCheckConfig {
            hostname: "odoo.example".to_owned(),
            method: "POST".to_owned(),
            headers: [("Authorization".to_owned(), "x".to_owned())].into(),
            ..HealthCheckConfig::default()
        };
        let answers = [
            ("http://a:1/h", (302, Some("/login"))),
            ("http://a:1/login", (307, Some("http://b:2/x"))),
            ("http://b:2/x", (200, None)),
        ];
        let (result, asked) = run(&config, &answers).await;
        assert_eq!(result, Ok(()));
        assert_eq!(
            asked,
            [
                "POST http://a:1/h odoo.example true",
                "GET http://a:1/login odoo.example true",
                "GET http://b:2/x b:2 false",
            ]
        );
        let config = HealthCheckConfig { follow_redirects: Some(false), ..config };
        let (result, asked) = run(&config, &answers).await;
        assert_eq!((result, asked.len()), (Ok(()), 1));
    }

    #[tokio::test]
    async fn redirects_end() {
        let circle = [("http://a:1/h", (302, Some("h")))];
        let (result, asked) = run(&HealthCheckConfig::default(), &circle).await;
        assert_eq!((result, asked.len()), (Err(ProbeError::Redirects), 11));
    }

    #[test]
    fn options_that_cannot_be_sent_are_errors() {
        let build = |config: HealthCheckConfig| {
            ProbeSettings::new(&config, Duration::from_secs(5)).unwrap_err().option
        };
        let default = HealthCheckConfig::default;
        assert_eq!(
            build(HealthCheckConfig { method: "G ET".to_owned(), ..default() }),
            "healthCheck.method"
        );
        assert_eq!(
            build(HealthCheckConfig { hostname: "a\nb".to_owned(), ..default() }),
            "healthCheck.hostname"
        );
        let headers = [("a b".to_owned(), String::new())].into();
        assert_eq!(build(HealthCheckConfig { headers, ..default() }), "healthCheck.headers.a b");
    }
}
