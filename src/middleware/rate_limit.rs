//! `rateLimit`: a token bucket per source, in memory or in Redis. Who comes a little early waits,
//! who comes much too early is refused.

#[cfg(feature = "redis")]
mod redis;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

#[cfg(feature = "redis")]
use self::redis::{Rate, Store};
use self::shared::RedisConfig;
use super::source::{Criterion, Fallback, SourceCriterionConfig};
use super::token_buckets::{Buckets, Verdict};
use super::{Build, BuildContext};
use crate::exchange::error::{bare, text};
use crate::exchange::{Context, Middleware, Next, Request, Response, ResponseFuture, ready};
use crate::values::{BuildError, GoDuration, Profile};

/// Options of `rateLimit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RateLimitConfig {
    /// Requests per `period`. Default: 0, no limit.
    pub average: i64,
    /// Default: 1s.
    pub period: GoDuration,
    /// Requests that may come at once after a pause. Default, and least: 1.
    pub burst: i64,
    /// Whom requests count for. Default: the peer's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_criterion: Option<SourceCriterionConfig>,
    /// Keep the buckets in Redis. Default: in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisConfig>,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self {
            average: 0,
            period: GoDuration::from_secs(1),
            burst: 1,
            source_criterion: None,
            redis: None,
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
        let criterion = Criterion::build(self.source_criterion.as_ref(), Fallback::PeerIp, cx)?;
        let Some(average) = u64::try_from(self.average).ok().filter(|&average| average > 0) else {
            return Ok(match &self.redis {
                // Traefik has no such bucket in Redis.
                Some(_) if cx.profile == Profile::Exact => Arc::new(Nobody),
                _ => Arc::new(Unlimited),
            });
        };
        let period = self.period.positive().unwrap_or(Duration::from_secs(1));
        let interval = Duration::from_nanos_u128(period.as_nanos() / u128::from(average));
        if let Some(config) = &self.redis {
            return self.shared(config, criterion, period, average, cx);
        }
        let burst = u32::try_from(self.burst.max(1)).unwrap_or(u32::MAX);
        let max_delay = max_delay(period, average);
        let settings = format!("{average}/{period:?} {burst} {:?}", self.source_criterion);
        let buckets = cx.carry_over(&settings, || Buckets::new(interval, burst, max_delay));
        Ok(Arc::new(RateLimit { criterion, buckets }))
    }
}

impl RateLimitConfig {
    #[cfg(feature = "redis")]
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    fn shared(
        &self,
        config: &RedisConfig,
        criterion: Criterion,
        period: Duration,
        average: u64,
        cx: &BuildContext<'_>,
    ) -> Result<Arc<dyn Middleware>, BuildError> {
        Ok(Arc::new(SharedLimit {
            criterion,
            prefix: format!("rate:{}:", cx.name),
            rate: Rate {
                per_microsecond: average as f64 * 1_000.0 / period.as_nanos() as f64,
                burst: self.burst.max(1),
                max_delay: max_delay(period, average),
            },
            store: Store::of(config, cx)?,
        }))
    }

    #[cfg(not(feature = "redis"))]
    #[expect(clippy::unused_self, reason = "the other one of this name uses it")]
    fn shared(
        &self,
        config: &RedisConfig,
        _: Criterion,
        _: Duration,
        _: u64,
        cx: &BuildContext<'_>,
    ) -> Result<Arc<dyn Middleware>, BuildError> {
        config.places()?;
        if let Some(tls) = &config.tls {
            tls.read(cx.files)?;
        }
        Err(BuildError::at("redis", "this build has no Redis: the feature `redis` is off"))
    }
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
}

impl Middleware for RateLimit {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        match self.buckets.take(self.criterion.source(cx, request.headers())) {
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
            match self.store.take(&key, &self.rate).await {
                Ok(Duration::ZERO) => {}
                Ok(wait) if wait > self.rate.max_delay => return refusal(wait),
                Ok(wait) => tokio::time::sleep(wait).await,
                Err(_) => {
                    let status = StatusCode::INTERNAL_SERVER_ERROR;
                    return text(status, "Could not insert/update bucket\n");
                }
            }
            next.run(cx, request).await
        })
    }
}

fn refusal(wait: Duration) -> Response {
    let mut response = bare(StatusCode::TOO_MANY_REQUESTS);
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
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
    use crate::middleware::testing::{Bench, Setting, body, build, get, with};

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
        let default: RateLimitConfig = serde_json::from_str("{}").unwrap();
        assert_eq!((default.burst, default.period), (1, GoDuration::from_secs(1)));
    }
}
