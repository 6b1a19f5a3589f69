//! `rateLimit`: a token bucket per source, in memory or in Redis. Who comes a little early waits,
//! who comes much too early is refused.

#[cfg(feature = "redis")]
mod redis;
mod shared;
mod tell;

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

#[cfg(feature = "redis")]
use self::redis::{Rate, Store};
use self::shared::RedisConfig;
pub(super) use self::tell::Left;
use self::tell::Teller;
use super::source::{Criterion, Fallback, SourceCriterionConfig};
use super::token_buckets::{Buckets, Verdict};
use super::{Build, BuildContext};
use crate::exchange::error::{bare, text};
use crate::exchange::{Context, Middleware, Next, Request, Response, ResponseFuture, ready};
use crate::values::{BuildError, GoDuration, Profile, is_default, whole_seconds};

/// Options of `rateLimit`.
///
/// In memory a limit knows 65,536 sources at most. Sources whose bucket has filled up again are
/// forgotten, which loses nothing. If there is no room all the same, those that asked least often
/// go first, refused requests counted up to 15, and of equals those with the fullest bucket. So a
/// flood of sources that come once frees nobody who runs against the limit. But each source has a
/// bucket of its own, and a client in IPv6 has as many addresses as it likes:
/// `sourceCriterion.ipStrategy.ipv6Subnet: 64` makes one source of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RateLimitConfig {
    /// Requests per `period`. Default: 0, no limit.
    pub average: i64,
    /// Default: 1s.
    pub period: GoDuration,
    /// Requests that may come at once after a pause. Default, and least: 1.
    pub burst: i64,
    /// Whom requests count for. Default: the peer's address; in the `hardened` profile the first
    /// 64 bits of it if it is IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_criterion: Option<SourceCriterionConfig>,
    /// Keep the buckets in Redis. Default: in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisConfig>,
    /// Doorward's own: whose requests a bucket counts, those of one `router` or of all that name
    /// this `middleware`. Default: as in Traefik, `router` in memory and `middleware` in Redis.
    #[serde(skip_serializing_if = "is_default")]
    pub scope: String,
    /// Doorward's own: tell clients of the limit in `RateLimit-Policy` and `RateLimit`
    /// (draft-ietf-httpapi-ratelimit-headers-10): `q` is the larger of what passes in `w` seconds and
    /// `burst`; `r` more pass at once, or within the coming second (`t=1`) where more than one passes in
    /// a second. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub response_headers: bool,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self {
            average: 0,
            period: GoDuration::from_secs(1),
            burst: 1,
            source_criterion: None,
            redis: None,
            scope: String::new(),
            response_headers: false,
        }
    }
}

impl Build for RateLimitConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        if self.period.is_negative() {
            return Err(BuildError::at(
                "period",
                format!("negative value not valid for period: {}", self.period),
            ));
        }
        if self.average < 0 {
            let message =
                format!("`average` is {}, which means 0: there is no limit", self.average);
            cx.warnings.push(BuildError::at("average", message));
        }
        if self.burst < 0 {
            let message = format!("`burst` is {}, which means 1", self.burst);
            cx.warnings.push(BuildError::at("burst", message));
        }
        if self.burst > i64::from(u32::MAX) && self.redis.is_none() {
            let message = format!("`burst` is {}, which means {}", self.burst, u32::MAX);
            cx.warnings.push(BuildError::at("burst", message));
        }
        if let Some(redis) = &self.redis {
            redis.warn(cx.warnings);
        }
        let scope = self.scope()?;
        let criterion = Criterion::build(self.source_criterion.as_ref(), Fallback::PeerIp, cx)?;
        let Some(average) = u64::try_from(self.average).ok().filter(|&average| average > 0) else {
            if self.response_headers {
                let message =
                    "`responseHeaders` has no effect without `average`: there is no limit";
                cx.warnings.push(BuildError::at("responseHeaders", message));
            }
            return Ok(match &self.redis {
                // Traefik has no such bucket in Redis.
                Some(_) if cx.profile == Profile::Exact => Arc::new(Nobody),
                _ => Arc::new(Unlimited),
            });
        };
        let period = self.period.positive().unwrap_or(Duration::from_secs(1));
        let interval = Duration::from_nanos_u128(period.as_nanos() / u128::from(average));
        let burst = u32::try_from(self.burst.max(1)).unwrap_or(u32::MAX);
        let teller = || Teller::new(cx.name.as_str(), (average, period), burst.into());
        let teller = self.response_headers.then(teller).transpose()?;
        let max_delay = max_delay(period, average);
        if let Some(config) = &self.redis {
            let prefix = match scope {
                Some(Scope::Router) => format!("rate:{}:{}:", cx.name, cx.owner),
                Some(Scope::Middleware) | None => format!("rate:{}:", cx.name),
            };
            let bucket = (period, average, self.burst.max(1), max_delay);
            return shared(config, (criterion, teller), prefix, bucket, cx);
        }
        let settings = format!("{average}/{period:?} {burst} {:?}", self.source_criterion);
        let make = || Buckets::new(interval, burst, max_delay);
        let buckets = match scope {
            Some(Scope::Middleware) => cx.carry_over_for_all(&settings, make),
            Some(Scope::Router) | None => cx.carry_over(&settings, make),
        };
        Ok(Arc::new(RateLimit { criterion, buckets, teller }))
    }
}

/// Whose requests a bucket counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Router,
    Middleware,
}

impl RateLimitConfig {
    fn scope(&self) -> Result<Option<Scope>, BuildError> {
        match self.scope.as_str() {
            "" => Ok(None),
            "router" => Ok(Some(Scope::Router)),
            "middleware" => Ok(Some(Scope::Middleware)),
            other => {
                let message = format!("{other:?} is no scope: write `router` or `middleware`");
                Err(BuildError::at("scope", message))
            }
        }
    }
}

/// Whom a request counts for, and what it is told.
type Counted = (Criterion, Option<Teller>);
/// Period, requests in it, requests at once, longest wait.
type Bucket = (Duration, u64, i64, Duration);

#[cfg(feature = "redis")]
#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
fn shared(
    config: &RedisConfig,
    (criterion, teller): Counted,
    prefix: String,
    (period, average, burst, max_delay): Bucket,
    cx: &BuildContext<'_>,
) -> Result<Arc<dyn Middleware>, BuildError> {
    let per_microsecond = average as f64 * 1_000.0 / period.as_nanos() as f64;
    Ok(Arc::new(SharedLimit {
        criterion,
        teller,
        prefix,
        rate: Rate { per_microsecond, burst, max_delay },
        store: Store::of(config, cx)?,
    }))
}

#[cfg(not(feature = "redis"))]
fn shared(
    config: &RedisConfig,
    _: Counted,
    _: String,
    _: Bucket,
    cx: &BuildContext<'_>,
) -> Result<Arc<dyn Middleware>, BuildError> {
    config.places()?;
    if let Some(tls) = &config.tls {
        tls.read(cx.files)?;
    }
    Err(BuildError::at("redis", "this build has no Redis: the feature `redis` is off"))
}

/// Half the time between two requests, by the whole number of requests per second; half a second
/// at most.
fn max_delay(period: Duration, average: u64) -> Duration {
    let per_second = u128::from(average) * 1_000_000_000 / period.as_nanos().max(1);
    if per_second == 0 {
        return Duration::from_millis(500);
    }
    Duration::from_nanos_u128(1_000_000_000 / (per_second * 2))
}

/// `average: 0`.
struct Unlimited;

impl Middleware for Unlimited {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        next.run(cx, request)
    }
}

/// `average: 0` with Redis, under `core.profile: exact`.
struct Nobody;

impl Middleware for Nobody {
    fn handle<'a>(&'a self, _: &'a Context, _: Request, _: Next<'a>) -> ResponseFuture<'a> {
        ready(text(StatusCode::TOO_MANY_REQUESTS, "No bursty traffic allowed\n"))
    }
}

const X_RETRY_IN: HeaderName = HeaderName::from_static("x-retry-in");

struct RateLimit {
    criterion: Criterion,
    buckets: Arc<Buckets>,
    teller: Option<Teller>,
}

impl Middleware for RateLimit {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let taken = self.buckets.take(self.criterion.source(cx, request.headers()));
        if let Some(teller) = &self.teller {
            let left = self.buckets.left(&taken);
            return Box::pin(async move {
                let passed = !matches!(taken.verdict, Verdict::Refused(_));
                let mut response = match taken.verdict {
                    Verdict::Now => next.run(cx, request).await,
                    Verdict::After(wait) => {
                        tokio::time::sleep(wait).await;
                        next.run(cx, request).await
                    }
                    Verdict::Refused(wait) => refusal(wait),
                };
                teller.tell(&mut response, left, passed);
                response
            });
        }
        match taken.verdict {
            Verdict::Now => next.run(cx, request),
            Verdict::After(wait) => Box::pin(async move {
                tokio::time::sleep(wait).await;
                next.run(cx, request).await
            }),
            Verdict::Refused(wait) => ready(refusal(wait)),
        }
    }
}

/// A limit whose buckets are in Redis.
#[cfg(feature = "redis")]
struct SharedLimit {
    criterion: Criterion,
    teller: Option<Teller>,
    prefix: String,
    rate: Rate,
    store: Arc<Store>,
}

#[cfg(feature = "redis")]
impl Middleware for SharedLimit {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let mut key = self.prefix.as_bytes().to_vec();
        self.criterion.write_source(cx, request.headers(), &mut key);
        Box::pin(async move {
            let Ok(taken) = self.store.take(&key, &self.rate).await else {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                return text(status, "Could not insert/update bucket\n");
            };
            let passed = taken.wait <= self.rate.max_delay;
            let mut response = if passed {
                if !taken.wait.is_zero() {
                    tokio::time::sleep(taken.wait).await;
                }
                next.run(cx, request).await
            } else {
                refusal(taken.wait)
            };
            if let Some(teller) = &self.teller {
                teller.tell(&mut response, taken.left(&self.rate), passed);
            }
            response
        })
    }
}

fn refusal(wait: Duration) -> Response {
    let mut response = bare(StatusCode::TOO_MANY_REQUESTS);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    if let Ok(text) = HeaderValue::from_bytes(GoDuration::from(wait).to_string().as_bytes()) {
        response.headers_mut().insert(X_RETRY_IN, text);
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::middleware::ip_strategy::IpStrategyConfig;
    use crate::middleware::testing::{Bench, Setting, body, build, context, get, with};

    fn limit(average: i64, burst: i64) -> RateLimitConfig {
        RateLimitConfig { average, burst, ..RateLimitConfig::default() }
    }

    fn bench(config: &RateLimitConfig) -> Bench {
        Bench::new(vec![build(config).unwrap()])
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_much_too_early_is_refused() {
        let bench = bench(&limit(10, 1));
        assert_eq!(bench.status(get("/")).await, 200);
        tokio::time::advance(Duration::from_micros(12_500)).await;
        let response = bench.send(get("/")).await;
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["x-retry-in"], "87.5ms");
        assert_eq!(response.headers().len(), 2);
        assert_eq!(body(response).await, "Too Many Requests");
        assert_eq!(bench.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_a_little_early_waits() {
        let bench = bench(&limit(10, 1));
        bench.status(get("/")).await;
        tokio::time::advance(Duration::from_millis(60)).await;
        let start = Instant::now();
        assert_eq!(bench.status(get("/")).await, 200);
        assert_eq!(start.elapsed().as_millis(), 40);
    }

    /// RP-7.5.10
    #[tokio::test(start_paused = true)]
    async fn who_leaves_while_it_waits_asks_nobody() {
        let bench = bench(&limit(10, 1));
        bench.status(get("/")).await;
        tokio::time::advance(Duration::from_millis(60)).await;
        let mut early = bench.send(get("/"));
        let waits = std::future::poll_fn(|task| {
            std::task::Poll::Ready(early.as_mut().poll(task).is_pending())
        });
        assert!(waits.await);
        drop(early);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(bench.calls(), 1);
        assert_eq!(bench.status(get("/")).await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once() {
        let bench = bench(&limit(1, 5));
        let start = Instant::now();
        for _ in 0..5 {
            assert_eq!(bench.status(get("/")).await, 200);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(bench.status(get("/")).await, 429);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(bench.status(get("/")).await, 200);
        assert_eq!(bench.status(get("/")).await, 200);
        assert_eq!(bench.status(get("/")).await, 429);
    }

    #[tokio::test(start_paused = true)]
    async fn no_average_is_no_limit() {
        for average in [0, -1] {
            let bench = bench(&limit(average, 1));
            for _ in 0..50 {
                assert_eq!(bench.status(get("/")).await, 200);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sources_do_not_share() {
        let config = RateLimitConfig {
            source_criterion: Some(SourceCriterionConfig {
                ip_strategy: Some(IpStrategyConfig { depth: 1, ..IpStrategyConfig::default() }),
                ..SourceCriterionConfig::default()
            }),
            ..limit(1, 1)
        };
        let bench = bench(&config);
        for (forwarded, want) in [
            ("6.6.6.6", 200),
            ("1.1.1.1, 6.6.6.6", 429),
            ("::ffff:6.6.6.6", 429),
            ("6.6.6.7", 200),
            ("6.6.6.7:1", 200),
            ("nonsense", 429),
        ] {
            let request = with(get("/"), "x-forwarded-for", forwarded);
            assert_eq!(bench.status(request).await, want, "{forwarded}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_keeps_buckets_unless_the_limit_changes() {
        let setting = Setting::default();
        let (first, _) = setting.build(&limit(1, 1)).unwrap();
        let (same, _) = setting.build(&limit(1, 1)).unwrap();
        let (changed, _) = setting.build(&limit(1, 2)).unwrap();
        let (first, same, changed) =
            (Bench::new(vec![first]), Bench::new(vec![same]), Bench::new(vec![changed]));
        assert_eq!(first.status(get("/")).await, 200);
        assert_eq!(same.status(get("/")).await, 429);
        assert_eq!(changed.status(get("/")).await, 200);
    }

    /// RP-7.5: in memory a bucket is of a router, unless `scope` says otherwise (row 15 of what
    /// users wish for). A reload keeps either.
    #[tokio::test(start_paused = true)]
    async fn a_scope_says_who_shares_buckets() {
        for (scope, want) in [("", 200), ("router", 200), ("middleware", 429)] {
            let config = RateLimitConfig { scope: scope.into(), ..limit(1, 1) };
            let setting = Setting::default();
            let bench =
                |owner: &str| Bench::new(vec![setting.build_for(owner, &config).unwrap().0]);
            let (one, two) = (bench("one"), bench("two"));
            assert_eq!(one.status(get("/")).await, 200);
            assert_eq!(two.status(get("/")).await, want, "{scope}");
            for again in [bench("one"), bench("two")] {
                assert_eq!(again.status(get("/")).await, 429, "{scope}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clients_are_told_of_the_limit_when_it_is_asked_for() {
        let config = RateLimitConfig {
            response_headers: true,
            period: GoDuration::from_secs(60),
            ..limit(6, 3)
        };
        let bench = Bench::new(vec![build(&config).unwrap()]);
        let told = async |status: u16, left: &str| {
            let response = bench.send(get("/")).await;
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["ratelimit-policy"], "\"mid@file\";q=6;w=60");
            assert_eq!(response.headers()["ratelimit"], format!("\"mid@file\";{left}"));
            response
        };
        told(200, "r=2;t=10").await;
        tokio::time::advance(Duration::from_secs(4)).await;
        told(200, "r=1;t=6").await;
        told(200, "r=0;t=6").await;
        let refused = told(429, "r=0;t=6").await;
        assert_eq!(refused.headers()["retry-after"], "6");
        // Who waits for the last half second has the next token to itself.
        tokio::time::advance(Duration::from_millis(5_500)).await;
        told(200, "r=0;t=10").await;
        // Of what comes faster than seconds go by it is told what a second has.
        let config = RateLimitConfig { response_headers: true, ..limit(100, 1) };
        let bench = Bench::new(vec![build(&config).unwrap()]);
        let told = async || {
            let response = bench.send(get("/")).await;
            assert_eq!(response.headers()["ratelimit-policy"], "\"mid@file\";q=100;w=1");
            (response.status().as_u16(), response.headers()["ratelimit"].clone())
        };
        for _ in 0..3 {
            assert_eq!(told().await, (200, HeaderValue::from_static("\"mid@file\";r=100;t=1")));
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        told().await;
        assert_eq!(told().await, (429, HeaderValue::from_static("\"mid@file\";r=0;t=1")));
        // Nothing is told unasked.
        let silent = Bench::new(vec![build(&limit(6, 3)).unwrap()]);
        assert!(silent.send(get("/")).await.headers().is_empty());
    }

    /// RP-7.5: `ipv6Subnet` alone masks the peer; without it, only the `hardened` profile does.
    #[tokio::test(start_paused = true)]
    async fn the_addresses_of_one_network_can_be_one_source() {
        let masked = |bits| {
            let ipv6_subnet = Some(bits);
            let ip_strategy = Some(IpStrategyConfig { ipv6_subnet, ..IpStrategyConfig::default() });
            SourceCriterionConfig { ip_strategy, ..SourceCriterionConfig::default() }
        };
        let peer = SourceCriterionConfig {
            ip_strategy: Some(IpStrategyConfig::default()),
            ..SourceCriterionConfig::default()
        };
        for (profile, criterion, same, other) in [
            (Profile::Safe, None, 200, 200),
            (Profile::Hardened, None, 429, 200),
            (Profile::Hardened, Some(peer), 200, 200),
            (Profile::Exact, Some(masked(64)), 429, 200),
            (Profile::Safe, Some(masked(48)), 429, 429),
        ] {
            let setting = Setting { profile, ..Setting::default() };
            let config = RateLimitConfig { source_criterion: criterion, ..limit(1, 1) };
            let limit = setting.build(&config).unwrap().0;
            for (peer, want) in [
                ("2001:db8:0:1::1", 200),
                ("2001:db8:0:1:ffff::2", same),
                ("2001:db8:0:2::1", other),
                ("192.0.2.1", 200),
                ("192.0.2.2", 200),
                ("::ffff:192.0.2.2", 429),
            ] {
                let bench = Bench::new(vec![Arc::clone(&limit)]).with_context(context(peer));
                assert_eq!(bench.status(get("/")).await, want, "{peer} {profile:?} {config:?}");
            }
        }
    }

    /// RP 17, number 4.
    #[tokio::test(start_paused = true)]
    async fn no_average_in_redis_is_nobody_under_exact() {
        let config = RateLimitConfig { redis: Some(RedisConfig::default()), ..limit(0, 1) };
        for (profile, want) in
            [(Profile::Exact, 429), (Profile::Safe, 200), (Profile::Hardened, 200)]
        {
            let setting = Setting { profile, ..Setting::default() };
            let bench = Bench::new(vec![setting.build(&config).unwrap().0]);
            let response = bench.send(get("/")).await;
            assert_eq!(response.status(), want, "{profile:?}");
            if want == 429 {
                assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
                assert_eq!(body(response).await, "No bursty traffic allowed\n");
            }
        }
    }

    #[cfg(feature = "redis")]
    #[tokio::test]
    async fn a_redis_that_nobody_serves_is_an_error_of_each_request() {
        // `tcpmux`, which is served by no machine that runs tests.
        let redis = RedisConfig { endpoints: vec!["127.0.0.1:1".into()], ..RedisConfig::default() };
        let bench = bench(&RateLimitConfig { redis: Some(redis), ..limit(1, 1) });
        for _ in 0..3 {
            let response = bench.send(get("/")).await;
            assert_eq!(response.status(), 500);
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
            assert_eq!(body(response).await, "Could not insert/update bucket\n");
        }
        assert_eq!(bench.calls(), 0);
    }

    #[test]
    fn waiting_times_follow_the_rate() {
        for (period, average, want) in [
            (1, 10, Duration::from_millis(50)),
            (1, 1, Duration::from_millis(500)),
            (60, 6, Duration::from_millis(500)),
            (60, 90, Duration::from_millis(500)),
            (1, 1000, Duration::from_micros(500)),
        ] {
            assert_eq!(max_delay(Duration::from_secs(period), average), want);
        }
    }

    #[test]
    fn options_are_checked() {
        let redis = |endpoint: &str| RateLimitConfig {
            redis: Some(RedisConfig { endpoints: vec![endpoint.into()], ..RedisConfig::default() }),
            ..limit(1, 1)
        };
        assert_eq!(build(&redis("nowhere")).err().unwrap().option, "redis.endpoints[0]");
        assert_eq!(build(&redis("localhost:1")).is_ok(), cfg!(feature = "redis"));
        let period = RateLimitConfig { period: GoDuration::from_secs(-1), ..limit(1, 1) };
        assert_eq!(
            build(&period).err().unwrap().message,
            "negative value not valid for period: -1s"
        );
        let scope = RateLimitConfig { scope: "Router".into(), ..limit(1, 1) };
        let error = build(&scope).err().unwrap();
        assert_eq!(error.option, "scope");
        assert_eq!(error.message, "\"Router\" is no scope: write `router` or `middleware`");
        let nothing = RateLimitConfig { response_headers: true, ..limit(0, 1) };
        let (_, warnings) = Setting::default().build(&nothing).unwrap();
        assert_eq!(warnings[0].option, "responseHeaders");
        let default: RateLimitConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(
            serde_json::to_value(&default).unwrap(),
            serde_json::json!({"average": 0, "period": "1s", "burst": 1})
        );
        assert_eq!((default.burst, default.period), (1, GoDuration::from_secs(1)));
    }
}
