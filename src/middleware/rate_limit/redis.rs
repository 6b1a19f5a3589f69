//! Token buckets in Redis: one script per request, in one round trip.
//!
//! The keys and fields are Traefik's, so that both may count together. A request is decided within
//! `readTimeout`, whatever Redis does: connecting goes on without it.

mod link;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use self::link::{Connected, Link, Target};
use super::shared::RedisConfig;
use super::tell::Left;
use crate::middleware::BuildContext;
use crate::values::{BuildError, hex};

/// Decides and takes in one step. `KEYS[1]` is the bucket; the arguments are tokens per
/// microsecond, capacity, the moment and the longest wait in microseconds. Returns the wait and
/// the tokens that are left, which are less than none while somebody waits for one.
///
/// A moment before the last one comes from a clock that is behind: time is not given twice. One
/// that is far behind is a clock that was set back. A full bucket may be forgotten.
const SCRIPT: &str = "\
local rate, burst, now, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local known = redis.call('HMGET', KEYS[1], 'last', 'tokens')
local last, tokens = tonumber(known[1] or ''), tonumber(known[2] or '')
if not last or not tokens then
  last, tokens = now, burst
end
if last > now + 5000000 then
  last = now
end
local moment = math.max(last, now)
tokens = math.min(tokens + (moment - last) * rate, burst) - 1
local wait = 0
if tokens < 0 then
  wait = math.ceil(-tokens / rate)
  if wait > most then
    tokens = tokens + 1
  end
end
redis.call('HSET', KEYS[1], 'last', string.format('%.0f', moment), 'tokens', tostring(tokens))
redis.call('EXPIRE', KEYS[1], math.min(math.ceil((burst - tokens) / rate / 1000000) + 1, 2592000))
return string.format('%.0f %.6f', wait, tokens)
";

static SCRIPT_NAME: LazyLock<String> = LazyLock::new(|| hex(&Sha1::digest(SCRIPT)));

/// Why Redis did not decide.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It cannot be reached.
    #[error("{0}")]
    Unreachable(Arc<str>),
    /// It answered with an error, or the connection broke.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// It answered, but with something else.
    #[error("its answer to the script is none")]
    Nonsense,
    /// It did not answer.
    #[error("no answer within `readTimeout`")]
    Late,
}

/// The bucket that a rate limit asks for.
pub(super) struct Rate {
    /// Tokens that come back in a microsecond.
    pub(super) per_microsecond: f64,
    pub(super) burst: i64,
    pub(super) max_delay: Duration,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Taken {
    /// How long it waits. More than the longest delay: it is refused, and no token was taken.
    pub(super) wait: Duration,
    tokens: f64,
}

impl Taken {
    fn read(answer: &str) -> Option<Self> {
        let (wait, tokens) = answer.split_once(' ')?;
        Some(Self {
            wait: Duration::from_micros(wait.parse().ok()?),
            tokens: tokens.parse().ok().filter(|tokens: &f64| tokens.is_finite())?,
        })
    }

    /// What is left in the bucket, when the wait is over.
    pub(super) fn left(&self, rate: &Rate) -> Left {
        if self.wait > rate.max_delay {
            return Left { requests: 0, next: self.wait };
        }
        let tokens = self.tokens.max(0.0);
        let missing = (1.0 - tokens.fract()) / rate.per_microsecond / 1_000_000.0;
        Left {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is no less than 0, and where it is too large, the largest is right"
            )]
            requests: tokens as u64,
            next: Duration::try_from_secs_f64(missing).unwrap_or(Duration::MAX),
        }
    }
}

/// One Redis, shared by all rate limits with the same options.
pub(super) struct Store {
    target: Arc<Target>,
    answer: Option<Duration>,
    most: usize,
    links: Mutex<Vec<(ThreadId, Arc<Link>)>>,
    failing: AtomicBool,
}

impl Store {
    /// The store for these options, a running one if there is one.
    pub(super) fn of(config: &RedisConfig, cx: &BuildContext<'_>) -> Result<Arc<Self>, BuildError> {
        let endpoints = config.places()?;
        let tls = config.tls.as_ref().map(|tls| tls.read(cx.files)).transpose()?;
        // Passwords and keys are no names of things, their digest is.
        let secrets = format!("{tls:?} {}", config.password.expose());
        let settings = format!("redis {config:?} {}", hex(&Sha256::digest(secrets.as_bytes())));
        let target = Target::new(config, &endpoints, tls.as_ref())?;
        Ok(cx.state.carry_over(&settings, || Self {
            target: Arc::new(target),
            answer: config.read_timeout.positive(),
            most: usize::try_from(config.max_active_conns)
                .ok()
                .filter(|&most| most > 0)
                .unwrap_or(usize::MAX),
            links: Mutex::default(),
            failing: AtomicBool::new(false),
        }))
    }

    /// Takes a token from the bucket at `key`.
    pub(super) async fn take(&self, key: &[u8], rate: &Rate) -> Result<Taken, Failure> {
        let taken = self.ask(key, rate).await;
        match &taken {
            Ok(_) if self.failing.load(Ordering::Relaxed) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("Redis answers again");
                }
            }
            Ok(_) => {}
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "Redis does not keep the buckets of a rate limit");
                }
            }
        }
        taken
    }

    async fn ask(&self, key: &[u8], rate: &Rate) -> Result<Taken, Failure> {
        let link = self.link();
        let deadline = self.answer.and_then(|answer| Instant::now().checked_add(answer));
        let mut again = true;
        loop {
            let connecting = link.connection(&self.target);
            let (mut connection, number) = within(deadline, connecting).await??;
            match within(deadline, run(&mut connection, key, rate)).await {
                Ok(Ok(answer)) => return Taken::read(&answer).ok_or(Failure::Nonsense),
                Ok(Err(error)) => {
                    if !error.is_unrecoverable_error() {
                        return Err(error.into());
                    }
                    link.drop_connection(number);
                    // A connection may be found to be dead only when it is used.
                    if !std::mem::take(&mut again) {
                        return Err(error.into());
                    }
                }
                Err(late) => {
                    // Nobody knows whether a silent connection is still one. A cluster sees to its
                    // connections itself.
                    if matches!(connection, Connected::Single(_)) {
                        link.drop_connection(number);
                    }
                    return Err(late);
                }
            }
        }
    }

    /// This worker's connection, or one that it shares when there may not be more.
    fn link(&self) -> Arc<Link> {
        let worker = std::thread::current().id();
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, link)) = links.iter().find(|(of, _)| *of == worker) {
            return Arc::clone(link);
        }
        let link = match links.get(links.len() % self.most.max(1)) {
            Some((_, shared)) if links.len() >= self.most => Arc::clone(shared),
            _ => Arc::default(),
        };
        links.push((worker, Arc::clone(&link)));
        link
    }
}

async fn within<T>(
    deadline: Option<Instant>,
    future: impl Future<Output = T>,
) -> Result<T, Failure> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.map_err(|_| Failure::Late),
        None => Ok(future.await),
    }
}

async fn run(connection: &mut Connected, key: &[u8], rate: &Rate) -> Result<String, RedisError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    let command = |name: &str, script: &str| -> Cmd {
        let mut command = redis::cmd(name);
        command
            .arg(script)
            .arg(1)
            .arg(key)
            .arg(rate.per_microsecond)
            .arg(rate.burst)
            .arg(now)
            .arg(u64::try_from(rate.max_delay.as_micros()).unwrap_or(u64::MAX));
        command
    };
    match connection.query(&command("EVALSHA", &SCRIPT_NAME)).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            connection.query(&command("EVAL", SCRIPT)).await
        }
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_says_is_what_is_left() {
        let rate = Rate { per_microsecond: 1e-6, burst: 5, max_delay: Duration::from_millis(500) };
        let second = Duration::from_secs(1);
        for (answer, requests, next) in [
            ("0 4.000000", 4, second),
            ("0 0.250000", 0, second * 3 / 4),
            // Who waits has the next token to itself.
            ("400000 -0.400000", 0, second),
            ("700000 0.300000", 0, Duration::from_millis(700)),
        ] {
            let left = Taken::read(answer).unwrap().left(&rate);
            assert_eq!(left, Left { requests, next }, "{answer}");
        }
        for answer in ["", "1", "x 1.0", "1 x", "-1 1.0", "1 nan", "1 inf"] {
            assert_eq!(Taken::read(answer), None, "{answer}");
        }
    }
}
