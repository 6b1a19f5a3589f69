//! CNAME flattening (`hostResolver`): the name that a request's host is an alias of, for rules to compare as well.
//!
//! Clients choose the host, so whatever they choose must cost little: only names are looked up, each name once at a
//! time, a bounded number of them at a time, and what was found, nothing included, is kept in a bounded cache that
//! gives up names without an alias first. No request waits longer than `PATIENCE`; then it goes on without.

pub mod dns;
mod resolver;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use self::resolver::{Found, Resolver};

/// `hostResolver`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HostResolverConfig {
    /// Compare the name that the host is an alias of too. Default: false.
    pub cname_flattening: bool,
    /// The file that names the DNS servers. Default: `/etc/resolv.conf`.
    pub resolv_config: String,
    /// How many aliases are followed, at most 16. Default: 5.
    pub resolv_depth: i64,
}

impl Default for HostResolverConfig {
    fn default() -> Self {
        Self {
            cname_flattening: false,
            resolv_config: "/etc/resolv.conf".to_owned(),
            resolv_depth: 5,
        }
    }
}

/// How long a request waits for its host to be looked up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lookups at a time, in the process: of names that clients bring, and of those that were aliases before.
const LOOKUPS: usize = 48;
const RENEWALS: usize = 16;
/// How long an alias goes on to be one while nobody can tell whether it still is (RFC 8767).
const STALE: Duration = Duration::from_hours(1);
const SHARDS: usize = 16;
/// Names that are remembered, per shard.
const CAPACITY: usize = 1024;
/// How long it is remembered that a name is no alias.
const NO_ALIAS: Duration = Duration::from_mins(5);
/// How long that nobody could tell.
const NO_ANSWER: Duration = Duration::from_secs(5);
/// A `CNAME` may be kept for less, or for longer, than makes sense.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_hours(24);

/// Finds what hosts are aliases of.
pub struct Flattener {
    resolver: Resolver,
    lookups: Semaphore,
    renewals: Semaphore,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

type Shard = HashMap<Box<str>, Entry>;
/// The name that a host is an alias of.
type Flat = Option<Arc<str>>;

enum Entry {
    Known {
        flat: Flat,
        until: Instant,
        /// Until when it may be taken for it while nobody can tell.
        end: Instant,
    },
    /// It is being looked up; `answer` is set when it was.
    Sought {
        answer: watch::Receiver<Option<Flat>>,
        /// The alias that it was, and until when it may go on to be it.
        before: Option<(Arc<str>, Instant)>,
    },
}

impl Entry {
    fn is_stale(&self, now: Instant) -> bool {
        match self {
            Self::Known { until, .. } => *until <= now,
            // Who looked went away with its runtime.
            Self::Sought { answer, .. } => answer.has_changed().is_err(),
        }
    }

    /// The alias that it was, if it may still be taken for it.
    fn before(&self, now: Instant) -> Option<(Arc<str>, Instant)> {
        let (flat, end) = match self {
            Self::Known { flat: Some(flat), end, .. }
            | Self::Sought { before: Some((flat, end)), .. } => (flat, *end),
            _ => return None,
        };
        (now < end).then(|| (Arc::clone(flat), end))
    }
}

impl Flattener {
    /// Reads the file that names the DNS servers.
    pub fn new(config: &HostResolverConfig) -> io::Result<Self> {
        let depth = usize::try_from(config.resolv_depth).unwrap_or(0);
        Ok(Self {
            resolver: Resolver::read(Path::new(&config.resolv_config), depth)?,
            lookups: Semaphore::new(LOOKUPS),
            renewals: Semaphore::new(RENEWALS),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        })
    }

    /// What `host`, which is in lower case, is an alias of; `None` when it is none, or it cannot be told.
    pub async fn flat(self: &Arc<Self>, host: &str) -> Flat {
        if !is_name(host) {
            return None;
        }
        let mut answer = match self.remembered(host, Instant::now()) {
            Ok(flat) => return flat,
            Err(answer) => answer?,
        };
        let answer = timeout(PATIENCE, answer.wait_for(Option::is_some)).await;
        answer.ok()?.ok()?.clone().flatten()
    }

    /// What is known of `host`, else who tells it when it is known; nobody where there is no room for one more.
    fn remembered(
        self: &Arc<Self>,
        host: &str,
        now: Instant,
    ) -> Result<Flat, Option<watch::Receiver<Option<Flat>>>> {
        let mut shard = self.shard(host);
        let entry = shard.get(host);
        let before = entry.and_then(|entry| entry.before(now));
        match entry {
            Some(entry) if entry.is_stale(now) => {}
            Some(Entry::Known { flat, .. }) => return Ok(flat.clone()),
            Some(Entry::Sought { answer, .. }) => {
                return before.map(|(flat, _)| Some(flat)).ok_or_else(|| Some(answer.clone()));
            }
            None => {}
        }
        if shard.len() >= CAPACITY && !shard.contains_key(host) && !make_room(&mut shard, now) {
            return Err(None);
        }
        let (tell, answer) = watch::channel(None);
        let sought = Entry::Sought { answer: answer.clone(), before: before.clone() };
        shard.insert(host.into(), sought);
        // A task of its own: whoever asked first may go away, and others wait too.
        tokio::spawn(look_up(Arc::clone(self), host.into(), before.clone(), tell));
        before.map(|(flat, _)| Some(flat)).ok_or(Some(answer))
    }

    fn shard(&self, host: &str) -> MutexGuard<'_, Shard> {
        let hash = usize::try_from(self.hasher.hash_one(host) % SHARDS as u64).unwrap_or(0);
        let [first, ..] = &self.shards;
        self.shards.get(hash).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_up(
    flattener: Arc<Flattener>,
    host: Box<str>,
    before: Option<(Arc<str>, Instant)>,
    tell: watch::Sender<Option<Flat>>,
) {
    // Who floods us with names must not keep us from those that we know.
    let places = if before.is_some() { &flattener.renewals } else { &flattener.lookups };
    let (told, pause) = match timeout(PATIENCE, places.acquire()).await {
        Ok(Ok(_permit)) => (found(&flattener.resolver, &host).await, NO_ANSWER),
        _ => (None, Duration::ZERO),
    };
    let now = Instant::now();
    let (flat, until, end) = match (told, before) {
        (Some((flat, keep)), _) => (flat, now + keep, now + keep + STALE),
        (None, Some((flat, end))) if now < end => (Some(flat), (now + pause).min(end), end),
        (None, _) => (None, now + pause, now),
    };
    let known = Entry::Known { flat: flat.clone(), until, end };
    flattener.shard(&host).insert(host, known);
    tell.send_replace(Some(flat));
}

/// What it is an alias of, and for how long; `None` when nobody could tell.
async fn found(resolver: &Resolver, host: &str) -> Option<(Flat, Duration)> {
    match timeout(PATIENCE, resolver.flatten(host)).await {
        Ok(Found::Alias { of, ttl }) => {
            tracing::debug!(host, cname = &*of, "flattened");
            Some((Some(of.into()), ttl.clamp(SHORTEST, LONGEST)))
        }
        Ok(Found::NoAlias) => Some((None, NO_ALIAS)),
        Ok(Found::NoAnswer) | Err(_) => {
            tracing::debug!(host, "no DNS server could tell its CNAME");
            None
        }
    }
}

/// Forgets what is stale, else one name that is no alias, else any one. `false` when all are being looked up.
fn make_room(shard: &mut Shard, now: Instant) -> bool {
    shard.retain(|_, entry| !entry.is_stale(now));
    if shard.len() < CAPACITY {
        return true;
    }
    let known = |entry: &Entry| matches!(entry, Entry::Known { .. });
    let empty = |entry: &Entry| matches!(entry, Entry::Known { flat: None, .. });
    let victim = shard.iter().find(|(_, entry)| empty(entry));
    let victim = victim.or_else(|| shard.iter().find(|(_, entry)| known(entry)));
    let Some(victim) = victim.map(|(host, _)| host.clone()) else { return false };
    shard.remove(&victim);
    true
}

/// Whether a host may stand in the DNS: labels of letters, digits, `-` and `_`, more than one, and no address.
fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    host.len() <= 253
        && host.split('.').all(label)
        && host.rsplit_once('.').is_some_and(|(_, last)| !numeric(last))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::UdpSocket;

    use super::*;

    /// A DNS server: answers with these bytes behind the question, or not at all.
    async fn server(
        answer: impl Fn(&str) -> Option<(u8, Vec<u8>)> + Send + 'static,
    ) -> (SocketAddr, Arc<AtomicUsize>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::AcqRel);
                let question = &buffer[..length];
                let name = dns::tests::asked_name(question);
                if let Some((code, records)) = answer(&name) {
                    let reply = dns::tests::reply(question, code, &records);
                    socket.send_to(&reply, from).await.unwrap();
                }
            }
        });
        (address, asked)
    }

    fn flattener(text: &str, depth: i64) -> Arc<Flattener> {
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("resolv.conf");
        std::fs::write(&file, text).unwrap();
        let resolv_config = file.display().to_string();
        let config =
            HostResolverConfig { cname_flattening: true, resolv_config, resolv_depth: depth };
        Arc::new(Flattener::new(&config).unwrap())
    }

    fn through(server: SocketAddr, depth: i64) -> Arc<Flattener> {
        flattener(&format!("nameserver [{}]:{}\n", server.ip(), server.port()), depth)
    }

    fn shop(name: &str) -> (u8, Vec<u8>) {
        match name {
            "www.customer.test" => (0, dns::tests::cname("Edge.Shop.test", 60)),
            "edge.shop.test" => (0, dns::tests::cname("lb.shop.test", 0)),
            "loop.test" => (0, dns::tests::cname("loop.test", 60)),
            "gone.test" => (3, Vec::new()),
            _ => (0, Vec::new()),
        }
    }

    /// RP-3.7
    #[tokio::test]
    async fn aliases_are_followed_as_deep_as_is_said() {
        let (address, asked) = server(|name| Some(shop(name))).await;
        for (depth, want) in [(5, Some("lb.shop.test")), (1, Some("edge.shop.test")), (0, None)] {
            let flat = through(address, depth).flat("www.customer.test").await;
            assert_eq!(flat.as_deref(), want, "{depth}");
        }
        let flattener = through(address, 5);
        assert_eq!(flattener.flat("gone.test").await, None);
        assert_eq!(flattener.flat("lb.shop.test").await, None);
        assert_eq!(flattener.flat("loop.test").await.as_deref(), Some("loop.test"));
        let before = asked.load(Ordering::Acquire);
        for no_name in ["", "localhost", "10.0.0.1", "::1", "a..test", "a b.test", "-.1", "ä.test"]
        {
            assert_eq!(flattener.flat(no_name).await, None, "{no_name}");
        }
        assert_eq!(asked.load(Ordering::Acquire), before);
    }

    /// RP-3.7: kept for the TTL of the first; what is no alias is remembered too, and many who ask are one question.
    #[tokio::test]
    async fn what_was_found_is_kept() {
        let (address, asked) = server(|name| Some(shop(name))).await;
        let flattener = through(address, 5);
        let all = (0..20).map(|_| flattener.flat("www.customer.test"));
        for flat in futures_util::future::join_all(all).await {
            assert_eq!(flat.as_deref(), Some("lb.shop.test"));
        }
        assert_eq!(asked.load(Ordering::Acquire), 3);
        for _ in 0..3 {
            assert_eq!(flattener.flat("gone.test").await, None);
        }
        assert_eq!(asked.load(Ordering::Acquire), 4);
        let now = Instant::now();
        let known = |host: &str, at| flattener.remembered(host, at).is_ok();
        assert!(known("www.customer.test", now + Duration::from_secs(55)));
        // Looked up again, and meanwhile it is what it was.
        assert!(known("www.customer.test", now + Duration::from_secs(65)));
        assert!(!known("www.customer.test", now + Duration::from_secs(65) + STALE));
        assert!(known("gone.test", now + Duration::from_secs(250)));
        assert!(!known("gone.test", now + Duration::from_secs(350)));
    }

    /// Nobody waits for ever, and the second server is asked when the first is silent or broken.
    #[tokio::test]
    async fn a_silent_server_holds_nobody_up() {
        let (silent, _) = server(|_| None).await;
        let (broken, _) = server(|_| Some((2, Vec::new()))).await;
        let (good, _) = server(|name| Some(shop(name))).await;
        let lines = |servers: &[SocketAddr]| {
            let line = |one: &SocketAddr| format!("nameserver [{}]:{}\n", one.ip(), one.port());
            servers.iter().map(line).collect::<String>() + "options timeout:1 attempts:1\n"
        };
        let start = Instant::now();
        let flat = flattener(&lines(&[silent, broken, good]), 5).flat("www.customer.test").await;
        assert_eq!(flat.as_deref(), Some("lb.shop.test"));
        let alone = flattener(&lines(&[silent]), 5);
        assert_eq!(alone.flat("www.customer.test").await, None);
        assert!(start.elapsed() < 2 * PATIENCE, "{:?}", start.elapsed());
        // It is not asked again at once.
        assert!(alone.remembered("www.customer.test", Instant::now()).is_ok());
    }

    /// An alias that is known stays one while its servers are silent, and nobody waits for them.
    #[tokio::test]
    async fn a_known_alias_outlives_its_servers() {
        let silent = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let switch = Arc::clone(&silent);
        let (address, asked) =
            server(move |name| (!switch.load(Ordering::Acquire)).then(|| shop(name))).await;
        let flattener = through(address, 1);
        assert_eq!(flattener.flat("www.customer.test").await.as_deref(), Some("edge.shop.test"));
        silent.store(true, Ordering::Release);
        let later = Instant::now() + Duration::from_secs(65);
        let before = asked.load(Ordering::Acquire);
        for _ in 0..3 {
            let flat = flattener.remembered("www.customer.test", later);
            assert_eq!(flat.unwrap().as_deref(), Some("edge.shop.test"));
        }
        timeout(PATIENCE, async {
            while asked.load(Ordering::Acquire) == before {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert!(flattener.remembered("www.customer.test", later + STALE).is_err());
    }

    #[tokio::test]
    async fn clients_cannot_fill_the_memory() {
        let (address, _) = server(|name| Some(shop(name))).await;
        let flattener = through(address, 5);
        assert!(flattener.flat("www.customer.test").await.is_some());
        let now = Instant::now();
        for number in 0..2 * SHARDS * CAPACITY {
            let host: Box<str> = format!("h{number}.test").into();
            let mut shard = flattener.shard(&host);
            if shard.len() < CAPACITY || make_room(&mut shard, now) {
                shard.insert(host, Entry::Known { flat: None, until: now + NO_ALIAS, end: now });
            }
            assert!(shard.len() <= CAPACITY);
        }
        // Names without an alias go first.
        assert!(matches!(flattener.remembered("www.customer.test", now), Ok(Some(_))));
        let mut shard = Shard::new();
        let (_tell, answer) = watch::channel(None);
        for number in 0..CAPACITY {
            shard.insert(
                number.to_string().into(),
                Entry::Sought { answer: answer.clone(), before: None },
            );
        }
        assert!(!make_room(&mut shard, now));
    }

    #[test]
    fn names() {
        for (host, want) in [
            ("a.test", true),
            ("_x.a-b.test", true),
            ("a.1x", true),
            ("test", false),
            ("1.2.3.4", false),
            ("a.test.", false),
            ("[::1]", false),
        ] {
            assert_eq!(is_name(host), want, "{host}");
        }
        assert!(!is_name(&format!("{}.test", "a".repeat(64))));
        assert!(!is_name(&"a.".repeat(130)));
    }
}
