//! `retry`: sends a request again when no server has seen it, or when the answer has a status
//! that is worth another try.
//!
//! Each attempt goes through the rest of the chain, so it may reach another server. The last
//! answer goes to the client, whatever it is; nothing is tried again once protocols are switched.
//! But for the `exact` profile, attempts avoid the servers that were tried while others are up.

mod budget;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::budget::{RetryBudgetConfig, ServiceBudgets};
use super::{Build, BuildContext};
use crate::exchange::{
    Attempts, Budget, Context, Middleware, Next, Outcome, Replay, Request, Response, ResponseFuture,
};
use crate::values::{BuildError, GoDuration, Profile, StatusRanges, is_default};

/// Options of `retry`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RetryConfig {
    /// How often a request is sent at most, the first time included. Required.
    pub attempts: i64,
    /// First pause, which grows to twice itself and varies by half. Default: 0, no pause.
    #[serde(skip_serializing_if = "is_default")]
    pub initial_interval: GoDuration,
    /// Time after which no new attempt begins. Default: 0, no such time.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: GoDuration,
    /// Statuses that are tried again: `503` or `500-599`, one per item. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<String>,
    /// Longest body that is kept to try again because of a status. Default: 2097152; -1: any.
    pub max_request_body_bytes: i64,
    /// Do not try again when the server could not be reached. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub disable_retry_on_network_error: bool,
    /// Try POST, PATCH and LOCK again because of a status too. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub retry_non_idempotent_method: bool,
    /// Doorward's own: the share of a service's requests that may be sent again, whatever the
    /// reason. Default: none for what no server has seen; because of a status a fifth of this
    /// router's requests and a hundred in reserve, in the `exact` profile any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<RetryBudgetConfig>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 0,
            initial_interval: GoDuration::ZERO,
            timeout: GoDuration::ZERO,
            status: Vec::new(),
            max_request_body_bytes: 2_097_152,
            disable_retry_on_network_error: false,
            retry_non_idempotent_method: false,
            budget: None,
        }
    }
}

impl Build for RetryConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        let attempts = u32::try_from(self.attempts).ok().filter(|&attempts| attempts > 0);
        let attempts = attempts.ok_or_else(|| {
            let sentence = format!("incorrect (or empty) value for attempt ({}): write how many times in all, 1 or more", self.attempts);
            BuildError::at("attempts", sentence)
        })?;
        if self.disable_retry_on_network_error && self.status.is_empty() {
            return Err(BuildError::at(
                "disableRetryOnNetworkError",
                "nothing is left to retry on: `status` is empty",
            ));
        }
        for (option, duration) in
            [("initialInterval", self.initial_interval), ("timeout", self.timeout)]
        {
            if duration.is_negative() {
                return Err(BuildError::at(option, format!("`{option}` cannot be negative")));
            }
        }
        let statuses = StatusRanges::read("status", &self.status, cx.warnings)?;
        if self.max_request_body_bytes < -1 {
            let sentence = format!(
                "`maxRequestBodyBytes` is {}, which means -1: bodies of any length are kept",
                self.max_request_body_bytes
            );
            cx.warnings.push(BuildError::at("maxRequestBodyBytes", sentence));
        }
        let services = self.budget.as_ref().map(|budget| budget.build(cx)).transpose()?;
        if attempts == 1 && services.is_some() {
            let sentence = "`budget` has no effect with `attempts: 1`: nothing is ever sent again";
            cx.warnings.push(BuildError::at("budget", sentence));
        }
        let budget = (cx.profile != Profile::Exact && services.is_none())
            .then(|| cx.carry_over(&format!("{self:?}"), Budget::default));
        Ok(Arc::new(Retry {
            attempts,
            initial: self.initial_interval.positive(),
            timeout: self.timeout.positive(),
            statuses,
            limit: u64::try_from(self.max_request_body_bytes).ok(),
            on_network_error: !self.disable_retry_on_network_error,
            any_method: self.retry_non_idempotent_method,
            budget,
            services,
            exact: cx.profile == Profile::Exact,
        }))
    }
}

struct Retry {
    attempts: u32,
    initial: Option<Duration>,
    timeout: Option<Duration>,
    statuses: StatusRanges,
    limit: Option<u64>,
    on_network_error: bool,
    any_method: bool,
    budget: Option<Arc<Budget>>,
    services: Option<Arc<ServiceBudgets>>,
    /// As Traefik does: attempts may go to a server that was tried while another is up, and an answer that tells of a
    /// loop is worth another try.
    exact: bool,
}

impl Middleware for Retry {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        if self.attempts == 1 {
            return next.run(cx, request);
        }
        Box::pin(self.run(cx, request, next))
    }
}

impl Retry {
    async fn run<'a>(&'a self, cx: &'a Context, mut request: Request, next: Next<'a>) -> Response {
        let start = Instant::now();
        if !self.exact {
            Attempts::begin(&mut request);
        }
        let on_status = !self.statuses.is_empty() && self.may_repeat(request.method());
        let replay = if on_status {
            if let Some(budget) = &self.budget {
                budget.earn();
            }
            match Replay::buffered(request, self.limit).await {
                Ok(replay) => replay,
                Err(error) => return error.into_response(),
            }
        } else {
            Replay::new(request)
        };
        let on_status = on_status && replay.is_whole();
        let mut pauses = Pauses::new(self.initial, self.attempts);
        let mut again = replay.request();
        let mut retries = 0;
        loop {
            // The first request is always there.
            let Some(request) = again.take() else {
                return crate::exchange::ProxyError::Panic.into_response();
            };
            let mut response = next.run(cx, request).await;
            if let (0, Some(services)) = (retries, &self.services) {
                services.count(service_of(&response));
            }
            let why = self.reason(&response, on_status);
            if let (true, Some(why)) = (retries + 1 < self.attempts, why) {
                let pause = pauses.next();
                let in_time = self.timeout.is_none_or(|timeout| start.elapsed() + pause <= timeout);
                again = if in_time { replay.request() } else { None };
                // What is not sent again must not cost those that could be.
                if again.is_some() && !self.is_afforded(why, &response) {
                    again = None;
                }
                if again.is_some() {
                    let outcome = Outcome::of(&mut response);
                    retries += 1;
                    for observer in &outcome.observers {
                        observer.retried();
                    }
                    // The answer's body ends here, so that its connection is free during the pause.
                    drop(response);
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                    continue;
                }
            }
            if retries > 0 {
                Outcome::of(&mut response).retries += retries;
            }
            return response;
        }
    }

    fn may_repeat(&self, method: &Method) -> bool {
        self.any_method || !matches!(method.as_str(), "POST" | "PATCH" | "LOCK")
    }

    /// Why another try is worth it, if it is.
    fn reason(&self, response: &Response, on_status: bool) -> Option<Reason> {
        // In a loop every round would multiply the attempts.
        let looped = !self.exact && response.status() == StatusCode::LOOP_DETECTED;
        if looped || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return None;
        }
        // An error of the last attempt alone: of several, one may have reached a server.
        let unsent = response.extensions().get::<Outcome>().is_some_and(|outcome| {
            !outcome.sent && outcome.error.is_some_and(crate::exchange::ProxyError::nothing_sent)
        });
        if self.on_network_error && unsent {
            return Some(Reason::Unsent);
        }
        (on_status && self.statuses.contains(response.status())).then_some(Reason::Status)
    }

    /// Whether the budget allows this retry, which it then pays for.
    fn is_afforded(&self, why: Reason, response: &Response) -> bool {
        if let Some(services) = &self.services {
            return services.spend(service_of(response));
        }
        match (why, &self.budget) {
            (Reason::Status, Some(budget)) => budget.spend(),
            _ => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// No server has seen the request.
    Unsent,
    Status,
}

/// In the extensions of an answer that a page replaced: the service whose answer it was, which another
/// try would go to, if it was one of a service.
#[derive(Debug, Clone)]
pub(super) struct Replaced(pub(super) Option<Arc<str>>);

impl Replaced {
    /// Whose answer `response` is before a page replaces it.
    pub(super) fn of(response: &Response) -> Self {
        let outcome = || response.extensions().get::<Outcome>();
        let replaced = response.extensions().get::<Self>().cloned();
        replaced.unwrap_or_else(|| Self(outcome().and_then(|outcome| outcome.service.clone())))
    }
}

/// The service that answered, or whose answer a page replaced; empty for an answer from before one.
fn service_of(response: &Response) -> &str {
    if let Some(Replaced(service)) = response.extensions().get() {
        return service.as_deref().unwrap_or_default();
    }
    let outcome = response.extensions().get::<Outcome>();
    outcome.and_then(|outcome| outcome.service.as_deref()).unwrap_or_default()
}

/// The pauses between attempts, as Traefik's back-off makes them.
struct Pauses {
    /// In seconds.
    next: f64,
    factor: f64,
}

/// No pause grows beyond this, but for its variation.
const LONGEST_PAUSE: f64 = 60.0;

impl Pauses {
    fn new(initial: Option<Duration>, attempts: u32) -> Self {
        let growths = f64::from(attempts.saturating_sub(1).max(1));
        Self {
            next: initial.map_or(0.0, |initial| initial.as_secs_f64()),
            factor: 2.0_f64.powf(1.0 / growths),
        }
    }

    fn next(&mut self) -> Duration {
        let middle = self.next;
        if middle <= 0.0 {
            return Duration::ZERO;
        }
        self.next = (middle * self.factor).min(LONGEST_PAUSE.max(middle));
        let mut bytes = [0_u8; 4];
        // Without randomness the pause is the shortest, which is still one.
        let _ = rand::fill(&mut bytes);
        let part = f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX);
        Duration::try_from_secs_f64(middle * (0.5 + part)).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt;

    use super::*;
    use crate::exchange::error::bare;
    use crate::exchange::{Body, Observation, Observer, ProxyError};
    use crate::middleware::testing::{Bench, Setting, build, get};

    fn retry(attempts: i64) -> RetryConfig {
        RetryConfig { attempts, ..RetryConfig::default() }
    }

    fn on_status(attempts: i64, status: &str) -> RetryConfig {
        RetryConfig { status: vec![status.into()], ..retry(attempts) }
    }

    fn request(method: Method, body: &'static [u8]) -> Request {
        let mut request = get("/");
        *request.method_mut() = method;
        *request.body_mut() = Body::from_static(body);
        request
    }

    fn retries(response: &Response) -> u32 {
        response.extensions().get::<Outcome>().map_or(0, |outcome| outcome.retries)
    }

    #[tokio::test]
    async fn what_no_server_has_seen_is_sent_again() {
        for (error, calls, again) in [
            (ProxyError::ConnectFailed, 3, 2),
            (ProxyError::ConnectTimeout, 3, 2),
            (ProxyError::TlsFailed, 3, 2),
            (ProxyError::UpstreamClosed, 1, 0),
            (ProxyError::ResponseTimeout, 1, 0),
            (ProxyError::NoAvailableServer, 1, 0),
        ] {
            let bench = Bench::answering(vec![build(&retry(3)).unwrap()], move |_, _| {
                error.into_response()
            });
            let response = bench.send(request(Method::POST, b"body")).await;
            assert_eq!(response.status(), error.status());
            assert_eq!((bench.calls(), retries(&response)), (calls, again), "{error:?}");
        }
        let bench =
            Bench::answering(vec![build(&retry(3)).unwrap()], |_, _| bare(StatusCode::BAD_GATEWAY));
        assert_eq!(bench.status(get("/")).await, 502);
        assert_eq!(bench.calls(), 1, "the backend's own answer is no network error");
    }

    #[tokio::test]
    async fn an_unread_body_goes_to_the_next_server() {
        let bench = Bench::waiting(vec![build(&retry(2)).unwrap()], |call, request| {
            Box::pin(async move {
                if call == 1 {
                    return ProxyError::ConnectFailed.into_response();
                }
                Response::new(request.into_body())
            })
        });
        let response = bench.send(request(Method::POST, b"body")).await;
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "body");
    }

    #[tokio::test]
    async fn a_listed_status_is_tried_again_with_the_same_body() {
        let bodies: Arc<Mutex<Vec<bytes::Bytes>>> = Arc::default();
        let seen = Arc::clone(&bodies);
        let config = on_status(3, "500-503");
        let bench = Bench::waiting(vec![build(&config).unwrap()], move |call, request| {
            let seen = Arc::clone(&seen);
            Box::pin(async move {
                let bytes = request.into_body().collect().await.unwrap().to_bytes();
                seen.lock().unwrap().push(bytes);
                bare(if call < 3 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK })
            })
        });
        let body: &'static [u8] = vec![b'x'; 1 << 20].leak();
        let response = bench.send(request(Method::PUT, body)).await;
        assert_eq!((response.status().as_u16(), retries(&response)), (200, 2));
        let seen = bodies.lock().unwrap();
        assert!(seen.len() == 3 && seen.iter().all(|seen| seen == body));
    }

    #[tokio::test]
    async fn when_a_status_is_not_tried_again() {
        let small = RetryConfig { max_request_body_bytes: 3, ..on_status(2, "503") };
        let any = RetryConfig { retry_non_idempotent_method: true, ..on_status(2, "503") };
        let unlimited = RetryConfig { max_request_body_bytes: -1, ..on_status(2, "503") };
        for (config, method, calls) in [
            (on_status(2, "503"), Method::GET, 2),
            (on_status(2, "503"), Method::DELETE, 2),
            (on_status(2, "500-502"), Method::GET, 1),
            (on_status(2, "503"), Method::POST, 1),
            (on_status(2, "503"), Method::PATCH, 1),
            (on_status(2, "503"), Method::from_bytes(b"LOCK").unwrap(), 1),
            (any, Method::POST, 2),
            (small, Method::PUT, 1),
            (unlimited, Method::PUT, 2),
        ] {
            let bench = Bench::answering(vec![build(&config).unwrap()], |_, _| {
                bare(StatusCode::SERVICE_UNAVAILABLE)
            });
            assert_eq!(bench.status(request(method.clone(), b"body")).await, 503);
            assert_eq!(bench.calls(), calls, "{method} {config:?}");
        }
    }

    /// T-76
    #[tokio::test]
    async fn an_upgrade_is_final_and_a_backend_that_is_down_is_502() {
        let bench = Bench::answering(vec![build(&on_status(3, "100-599")).unwrap()], |_, _| {
            bare(StatusCode::SWITCHING_PROTOCOLS)
        });
        assert_eq!(bench.status(get("/")).await, 101);
        assert_eq!(bench.calls(), 1);
        let bench = Bench::answering(vec![build(&retry(3)).unwrap()], |_, _| {
            ProxyError::ConnectFailed.into_response()
        });
        let mut upgrade = get("/");
        upgrade.headers_mut().insert("connection", http::HeaderValue::from_static("Upgrade"));
        upgrade.headers_mut().insert("upgrade", http::HeaderValue::from_static("websocket"));
        assert_eq!(bench.status(upgrade).await, 502);
        assert_eq!(
            (bench.calls(), bench.seen().headers["upgrade"].as_bytes()),
            (3, &b"websocket"[..])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_twice_and_vary_by_half() {
        for _ in 0..50 {
            let mut pauses = Pauses::new(Some(Duration::from_millis(100)), 3);
            for (low, high) in [(50, 150), (70, 213), (100, 301)] {
                let pause = pauses.next().as_millis();
                assert!((low..=high).contains(&pause), "{pause}");
            }
        }
        assert_eq!(Pauses::new(None, 3).next(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn no_attempt_begins_after_the_timeout() {
        let config = RetryConfig {
            initial_interval: GoDuration::from_millis(400),
            timeout: GoDuration::from_millis(1500),
            ..retry(100)
        };
        let bench = Bench::answering(vec![build(&config).unwrap()], |_, _| {
            ProxyError::ConnectFailed.into_response()
        });
        let start = Instant::now();
        assert_eq!(bench.status(get("/")).await, 502);
        assert!(start.elapsed() <= Duration::from_millis(1500), "{:?}", start.elapsed());
        assert!((2..=8).contains(&bench.calls()), "{}", bench.calls());
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_too_late_to_be_sent_again_costs_nothing() {
        let config = RetryConfig { timeout: GoDuration::from_millis(10), ..on_status(2, "503") };
        let hang = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let hangs = Arc::clone(&hang);
        let bench = Bench::waiting(vec![build(&config).unwrap()], move |_, _| {
            let hangs = hangs.load(Ordering::Relaxed);
            Box::pin(async move {
                if hangs {
                    tokio::time::sleep(Duration::from_millis(11)).await;
                }
                bare(StatusCode::SERVICE_UNAVAILABLE)
            })
        });
        for _ in 0..300 {
            bench.send(get("/")).await;
        }
        assert_eq!(bench.calls(), 300);
        hang.store(false, Ordering::Relaxed);
        for _ in 0..100 {
            bench.send(get("/")).await;
        }
        assert_eq!(bench.calls(), 500, "the whole reserve is left");
    }

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Observer for Counter {
        fn observe(&self, _: &Observation<'_>) {}

        fn retried(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn observers_of_failed_attempts_are_told() {
        let counter = Arc::new(Counter::default());
        let observer = Arc::clone(&counter);
        let bench = Bench::answering(vec![build(&retry(3)).unwrap()], move |_, _| {
            let mut response = ProxyError::ConnectFailed.into_response();
            Outcome::of(&mut response).observers.push(Arc::clone(&observer) as Arc<dyn Observer>);
            response
        });
        bench.send(get("/")).await;
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_failing_service_is_not_flooded() {
        for (profile, most) in [(Profile::Safe, 2300), (Profile::Exact, 6000)] {
            let setting = Setting { profile, ..Setting::default() };
            let (middleware, _) = setting.build(&on_status(3, "503")).unwrap();
            let bench =
                Bench::answering(vec![middleware], |_, _| bare(StatusCode::SERVICE_UNAVAILABLE));
            for _ in 0..2000 {
                bench.send(get("/")).await;
            }
            let calls = bench.calls();
            assert!(calls > 2000 && calls <= most + 200, "{calls}");
            assert_eq!(calls == 6000, profile == Profile::Exact);
        }
    }

    #[test]
    fn options_are_checked() {
        let nothing_left = RetryConfig { disable_retry_on_network_error: true, ..retry(2) };
        for (config, option) in [
            (retry(0), "attempts"),
            (retry(-1), "attempts"),
            (nothing_left, "disableRetryOnNetworkError"),
            (on_status(2, "500,502"), "status[0]"),
            (on_status(2, "599-500"), "status[0]"),
            (on_status(2, "5xx"), "status[0]"),
        ] {
            assert_eq!(build(&config).err().unwrap().option, option);
        }
        let default: RetryConfig = serde_json::from_str(r#"{"attempts": 4}"#).unwrap();
        assert_eq!(default.max_request_body_bytes, 2_097_152);
    }

    /// What a chain that ends in a service is told of other attempts, by the profile.
    #[tokio::test]
    async fn attempts_know_of_each_other_but_for_the_exact_profile() {
        for (profile, want) in
            [(Profile::Exact, None), (Profile::Safe, Some(1)), (Profile::Hardened, Some(1))]
        {
            let setting = Setting { profile, ..Setting::default() };
            let middleware = setting.build(&retry(2)).unwrap().0;
            let last = Arc::new(Mutex::new(None));
            let seen = Arc::clone(&last);
            let bench = Bench::answering(vec![middleware], move |call, request| {
                let attempts = Attempts::of(&request);
                let tried =
                    attempts.and_then(|some| Attempts::pick(Some(some), |tried| Some(tried.len())));
                *seen.lock().unwrap() = tried;
                if let Some(attempts) = attempts {
                    attempts.note(&format!("http://{call}").into());
                }
                ProxyError::ConnectFailed.into_response()
            });
            assert_eq!(bench.status(get("/")).await, 502);
            assert_eq!((bench.calls(), *last.lock().unwrap()), (2, want), "{profile:?}");
        }
    }

    fn of_service(name: &str, status: StatusCode) -> Response {
        let mut response = bare(status);
        Outcome::of(&mut response).service = Some(name.into());
        response
    }

    /// A budget of a service is one for all routers, in every profile, and for every reason.
    #[tokio::test(start_paused = true)]
    async fn a_budget_limits_what_a_service_gets_again() {
        for profile in [Profile::Exact, Profile::Safe] {
            let setting = Setting { profile, ..Setting::default() };
            let budget = Some(RetryBudgetConfig { percent: 10, min_per_second: 1 });
            let config = RetryConfig { budget, ..on_status(2, "503") };
            let bench = |router: &str, service: &'static str| {
                let middleware = setting.build_for(router, &config).unwrap().0;
                Bench::answering(vec![middleware], move |call, _| {
                    let answer = of_service(service, StatusCode::SERVICE_UNAVAILABLE);
                    let mut unreached = ProxyError::ConnectFailed.into_response();
                    *unreached.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    Outcome::of(&mut unreached).service = Some(service.into());
                    if call % 2 == 0 { answer } else { unreached }
                })
            };
            let (one, two) = (bench("one", "app@file"), bench("two", "app@file"));
            let other = bench("one", "other@file");
            for _ in 0..50 {
                one.status(get("/")).await;
                two.status(get("/")).await;
                other.status(get("/")).await;
            }
            // A reserve of ten, and a tenth of the requests.
            assert_eq!(one.calls() + two.calls(), 100 + 10 + 10, "{profile:?}");
            assert_eq!(other.calls(), 50 + 10 + 5, "{profile:?}");
            tokio::time::advance(Duration::from_secs(10)).await;
            one.status(get("/")).await;
            assert_eq!(one.calls() + two.calls(), 122, "{profile:?}");
        }
    }

    /// What `errors` puts in its place changes nothing of whose budget it is.
    #[tokio::test]
    async fn a_page_is_sent_again_at_the_cost_of_the_service_that_it_stands_for() {
        let setting = Setting::default();
        let budget = Some(RetryBudgetConfig { percent: 0, min_per_second: 1 });
        let config = RetryConfig { budget, ..on_status(2, "503") };
        let bench = |replaced: Option<Replaced>| {
            let middleware = setting.build(&config).unwrap().0;
            Bench::answering(vec![middleware], move |_, _| {
                let mut page = of_service("pages@file", StatusCode::SERVICE_UNAVAILABLE);
                if let Some(replaced) = replaced.clone() {
                    page.extensions_mut().insert(replaced);
                }
                page
            })
        };
        let benches = [None, Some(Some("app@file".into())), Some(None)];
        for bench in benches.map(|replaced| bench(replaced.map(Replaced))) {
            for _ in 0..20 {
                bench.status(get("/")).await;
            }
            assert_eq!(bench.calls(), 20 + 10, "each has its own reserve");
        }
    }

    #[test]
    fn a_budget_for_nothing_is_warned_of() {
        let budget = Some(RetryBudgetConfig::default());
        let warned = |attempts, budget| {
            let config = RetryConfig { budget, ..retry(attempts) };
            let (_, warnings) = Setting::default().build(&config).unwrap();
            warnings.into_iter().map(|warning| warning.option).collect::<Vec<_>>()
        };
        assert_eq!(warned(1, budget.clone()), ["budget"]);
        assert!(warned(2, budget).is_empty() && warned(1, None).is_empty());
    }

    #[test]
    fn budgets_are_checked() {
        let of = |percent, min_per_second| {
            let budget = Some(RetryBudgetConfig { percent, min_per_second });
            build(&RetryConfig { budget, ..retry(2) }).err().map(|error| error.option)
        };
        assert_eq!(of(0, 1), None);
        assert_eq!(of(100, 0), None);
        assert_eq!(of(101, 1).as_deref(), Some("budget.percent"));
        assert_eq!(of(-1, 1).as_deref(), Some("budget.percent"));
        assert_eq!(of(1, -1).as_deref(), Some("budget.minPerSecond"));
        assert_eq!(of(0, 0).as_deref(), Some("budget"));
        let text = r#"{"attempts": 2, "budget": {}}"#;
        let config: RetryConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.budget, Some(RetryBudgetConfig { percent: 20, min_per_second: 10 }));
        let shown = serde_json::to_value(retry(2)).unwrap();
        assert_eq!(shown, serde_json::json!({"attempts": 2, "maxRequestBodyBytes": 2_097_152}));
    }
}
