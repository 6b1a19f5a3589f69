//! The middlewares that limit: circuitBreaker, and rateLimit with its buckets in Redis (RP 7.5, 7.6).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use crate::harness::binary::Process;
use crate::harness::certs::Ca;
use crate::harness::redis::Redis;
use crate::harness::{Ask, DEADLINE, Origin, Proxy, Reply, pause, until};

/// Two routers, `/a` and `/b`, through one middleware.
fn through(url: &str, middleware: &str) -> String {
    format!(
        "
        http:
          routers:
            a: {{rule: PathPrefix(`/a`), service: app, middlewares: [one]}}
            b: {{rule: PathPrefix(`/b`), service: app, middlewares: [one]}}
          middlewares:
            one: {{{middleware}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{url}'}}]}}}}
        "
    )
}

/// One request a minute, after `burst` at once.
fn slow(burst: u32, redis: &str) -> String {
    format!(
        "rateLimit: {{average: 1, period: 1m, burst: {burst}, redis: {{{redis}}}, \
         sourceCriterion: {{requestHeaderName: X-Who}}}}"
    )
}

fn ask(proxy: &Proxy, who: &str) -> u16 {
    proxy.send(&Ask::get("a.test/a").header("X-Who", who)).status
}

#[test]
fn a_circuit_opens_closes_and_outlives_a_reload() {
    let status = Arc::new(AtomicU16::new(200));
    let told = Arc::clone(&status);
    let origin = Origin::with(move |_| Reply::status(told.load(Ordering::Relaxed)));
    let breaker = |code: &str| {
        through(
            &origin.url(),
            &format!(
                "circuitBreaker: {{expression: 'ResponseCodeRatio(500, 600, 0, 600) > 0.5', \
                 checkPeriod: 1ms, fallbackDuration: 3s, recoveryDuration: 1s{code}}}"
            ),
        )
    };
    let proxy = Proxy::start(&breaker(""));
    assert_eq!(proxy.get("a.test/a").status, 200);
    status.store(500, Ordering::Relaxed);
    let mut answer = proxy.get("a.test/a");
    while answer.status != 503 {
        pause(Duration::from_millis(5));
        answer = proxy.get("a.test/a");
    }
    assert_eq!(answer.text(), "Service Unavailable");
    assert_eq!(answer.header("content-type"), None);
    // The state is of the router.
    assert_eq!(proxy.get("a.test/b").status, 500);
    let asked = origin.count();
    proxy.reload(&breaker(", responseCode: 418"));
    assert_eq!(proxy.get("a.test/a").text(), "I'm a teapot");
    assert_eq!(origin.count(), asked);
    status.store(200, Ordering::Relaxed);
    until("the circuit recovers", || proxy.get("a.test/a").status == 200);
    until("the circuit is closed", || (0..20).all(|_| proxy.get("a.test/a").status == 200));
}

#[test]
fn routers_and_proxies_share_buckets_in_redis() {
    let (redis, origin) = (Redis::start(&[]), Origin::start());
    let config = through(
        &origin.url(),
        &format!(
            "rateLimit: {{average: 1, period: 1m, burst: 4, redis: {{endpoints: ['{}']}}}}",
            redis.address()
        ),
    );
    let (first, second) = (Proxy::start(&config), Proxy::start(&config));
    for (proxy, place) in [(&first, "/a"), (&second, "/a"), (&first, "/b"), (&second, "/b")] {
        assert_eq!(proxy.get(&format!("a.test{place}")).status, 200);
    }
    for proxy in [&first, &second] {
        let answer = proxy.get("a.test/a");
        assert_eq!(answer.status, 429);
        assert_eq!(answer.text(), "Too Many Requests");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        assert!(answer.header("x-retry-in").unwrap().ends_with('s'));
    }
    assert_eq!(origin.count(), 4);
    assert_eq!(redis.cli(&["keys", "*"]).trim(), "rate:one@file:127.0.0.1");
    let bucket = redis.cli(&["hgetall", "rate:one@file:127.0.0.1"]);
    let bucket: Vec<_> = bucket.split_whitespace().collect();
    assert_eq!((bucket.len(), bucket[0], bucket[2]), (4, "last", "tokens"), "{bucket:?}");
    assert_eq!(bucket[1].len(), 16, "microseconds: {bucket:?}");
    let kept: i64 = redis.cli(&["ttl", "rate:one@file:127.0.0.1"]).trim().parse().unwrap();
    assert!((180..=242).contains(&kept), "four tokens take four minutes: {kept}");
}

/// RP-7.5.8: a decision is one command, whoever asks and whatever it says.
#[test]
fn a_decision_is_one_command_to_redis() {
    const DECISIONS: usize = 30;
    let (redis, origin) = (Redis::start(&[]), Origin::start());
    let limit = slow(4, &format!("endpoints: ['{}'], maxActiveConns: 1", redis.address()));
    let proxy = Proxy::start(&through(&origin.url(), &limit));
    // The first connects, and makes the script known.
    assert_eq!(ask(&proxy, "first"), 200);
    let mut watch = BufReader::new(TcpStream::connect(redis.address()).unwrap());
    watch.get_ref().set_read_timeout(Some(DEADLINE)).unwrap();
    watch.get_mut().write_all(b"MONITOR\r\n").unwrap();
    let mut line = String::new();
    watch.read_line(&mut line).unwrap();
    assert_eq!(line, "+OK\r\n");
    let statuses: Vec<_> =
        (0..DECISIONS).map(|number| ask(&proxy, ["a", "b"][number % 2])).collect();
    let passed = statuses.iter().filter(|&&status| status == 200).count();
    assert_eq!((passed, statuses.len() - passed), (8, DECISIONS - 8));
    redis.cli(&["echo", "that was all"]);
    let mut commands = Vec::new();
    while !line.contains("that was all") {
        line.clear();
        assert!(watch.read_line(&mut line).unwrap() > 0);
        // What the script does inside of Redis costs no way there.
        if !line.contains(" lua] ") {
            commands.push(line.split('"').nth(1).unwrap_or_default().to_ascii_uppercase());
        }
    }
    assert_eq!(commands.pop().as_deref(), Some("ECHO"));
    assert_eq!(commands, vec!["EVALSHA"; DECISIONS]);
}

/// RP-7.5: `scope: router` gives each router buckets of its own, in Redis too.
#[test]
fn a_router_may_have_buckets_of_its_own_in_redis() {
    let (redis, origin) = (Redis::start(&[]), Origin::start());
    let limit = format!(
        "rateLimit: {{average: 1, period: 1m, burst: 2, scope: router, responseHeaders: true, \
         redis: {{endpoints: ['{}']}}}}",
        redis.address()
    );
    let proxy = Proxy::start(&through(&origin.url(), &limit));
    for place in ["/a", "/b"] {
        let answer = proxy.get(&format!("a.test{place}"));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"one@file\";q=1;w=60"));
        assert_eq!(answer.header("ratelimit"), Some("\"one@file\";r=1;t=60"));
        assert!(
            proxy.get(&format!("a.test{place}")).header("ratelimit").unwrap().contains(";r=0;t=")
        );
        let answer = proxy.get(&format!("a.test{place}"));
        assert_eq!(answer.status, 429);
        let left = format!("\"one@file\";r=0;t={}", answer.header("retry-after").unwrap());
        assert_eq!(answer.header("ratelimit"), Some(&*left));
    }
    let keys = redis.cli(&["keys", "*"]);
    let mut keys: Vec<_> = keys.split_whitespace().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["rate:one@file:a@file:127.0.0.1", "rate:one@file:b@file:127.0.0.1"]);
}

#[test]
fn who_is_a_little_early_waits_for_redis_buckets_too() {
    let (redis, origin) = (Redis::start(&[]), Origin::start());
    let limit = format!("rateLimit: {{average: 2, redis: {{endpoints: ['{}']}}}}", redis.address());
    let proxy = Proxy::start(&through(&origin.url(), &limit));
    assert_eq!(proxy.get("a.test/a").status, 200);
    assert_eq!(proxy.get("a.test/a").status, 429);
    // The next token comes after half a second, and half of that may be waited for.
    pause(Duration::from_millis(300));
    assert_eq!(proxy.get("a.test/a").status, 200);
    assert_eq!(origin.count(), 2);
}

/// F-67: the documented choice is to refuse, within `readTimeout`.
#[test]
fn a_redis_that_is_away_refuses_and_comes_back() {
    let (mut redis, origin) = (Redis::start(&[]), Origin::start());
    let options = format!("endpoints: ['{}'], readTimeout: 500ms", redis.address());
    // Each worker has a connection of its own.
    let one_worker = Proxy::with(json!({"core": {"workers": 1}}));
    let proxy = one_worker.start(&through(&origin.url(), &slow(1, &options)));
    assert_eq!(ask(&proxy, "before"), 200);
    redis.kill();
    let answer = proxy.send(&Ask::get("a.test/a").header("X-Who", "dead"));
    assert_eq!(answer.status, 500);
    assert_eq!(answer.text(), "Could not insert/update bucket\n");
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    redis.restart();
    // Also the first request of a connection that died unseen passes.
    until("Redis is used again", || ask(&proxy, "back") != 500);
    assert_eq!(ask(&proxy, "back"), 429);
    redis.kill();
    redis.restart();
    assert_eq!(ask(&proxy, "at once"), 200);

    redis.signal(Signal::STOP);
    let start = Instant::now();
    for who in ["stopped", "still"] {
        assert_eq!(ask(&proxy, who), 500);
    }
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
    redis.signal(Signal::CONT);
    until("Redis is used again", || ask(&proxy, "awake") != 500);
    assert_eq!(ask(&proxy, "awake"), 429);
}

#[test]
fn a_reload_keeps_the_connection_to_redis() {
    let (redis, origin) = (Redis::start(&[]), Origin::start());
    let config = |burst| slow(burst, &format!("endpoints: ['{}']", redis.address()));
    let proxy =
        Proxy::with(json!({"core": {"workers": 1}})).start(&through(&origin.url(), &config(2)));
    assert_eq!(ask(&proxy, "x"), 200);
    let connections = || redis.cli(&["info", "stats"]);
    let received = |info: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.unwrap().trim().parse::<u32>().unwrap()
    };
    let before = received(&connections());
    proxy.reload(&through(&origin.url(), &config(3)));
    assert_eq!([ask(&proxy, "x"), ask(&proxy, "x"), ask(&proxy, "x")], [200, 429, 429]);
    // The one that asks.
    assert_eq!(received(&connections()), before + 1);
}

#[test]
fn redis_users_and_databases() {
    let (redis, origin) = (Redis::start(&["--requirepass", "hush"]), Origin::start());
    redis.cli(&["-a", "hush", "acl", "setuser", "limiter", "on", ">quiet", "~rate:*", "+@all"]);
    for (login, db, want) in [
        ("password: hush, db: 3", 3, 200),
        ("username: limiter, password: quiet", 0, 200),
        ("password: wrong", 0, 500),
        ("username: limiter, password: hush", 0, 500),
        ("db: 1", 0, 500),
        ("password: hush, db: 99", 0, 500),
    ] {
        let options = format!("endpoints: ['{}'], {login}", redis.address());
        let proxy = Proxy::start(&through(&origin.url(), &slow(1, &options)));
        let who = login.replace([' ', ',', ':'], "_");
        assert_eq!(ask(&proxy, &who), want, "{login}");
        let keys = redis.cli(&["-a", "hush", "-n", &db.to_string(), "keys", "*"]);
        assert_eq!(keys.contains(&who), want == 200, "{login}: {keys}");
    }
    let options = format!("endpoints: ['{}'], password: wrong", redis.address());
    let process = Process::start(&json!({}), &through(&origin.url(), &slow(1, &options)));
    let mut client = crate::harness::Client::connect(process.address("web")).unwrap();
    assert_eq!(client.send(&Ask::get("a.test/a")).unwrap().status, 500);
    let log = process.log();
    assert!(log.contains("Redis does not keep the buckets of a rate limit"), "{log}");
    assert!(!log.contains("wrong\""), "{log}");
}

#[test]
fn redis_over_tls() {
    let directory = tempfile::TempDir::new().unwrap();
    let (ca, stranger) = (Ca::new(), Ca::new());
    let (cert, key) = ca.issue(&["localhost", "127.0.0.1"]).write(directory.path(), "server");
    let (our_cert, our_key) = ca.issue(&["doorward"]).write(directory.path(), "us");
    let (ca_file, stranger_file) =
        (directory.path().join("ca.pem"), directory.path().join("stranger.pem"));
    std::fs::write(&ca_file, ca.pem()).unwrap();
    std::fs::write(&stranger_file, stranger.pem()).unwrap();
    let [cert, key, our_cert, our_key, ca_file, stranger_file] =
        [cert, key, our_cert, our_key, ca_file, stranger_file]
            .map(|path| path.to_str().unwrap().to_owned());
    // `clients`: whether they need a certificate.
    let start = |clients: &str| {
        Redis::start(&[
            "--port",
            "0",
            "--tls-port",
            "{port}",
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca_file,
            "--tls-auth-clients",
            clients,
        ])
    };
    let redis = start("optional");
    let origin = Origin::start();
    let identity = format!("cert: {our_cert}, key: {our_key}");
    for (tls, want) in [
        (format!("ca: {ca_file}"), 200),
        (format!("ca: {ca_file}, {identity}"), 200),
        ("insecureSkipVerify: true".to_owned(), 200),
        (format!("ca: {stranger_file}"), 500),
        (String::new(), 500),
    ] {
        let options = format!("endpoints: ['localhost:{}'], tls: {{{tls}}}", redis.port());
        let proxy = Proxy::start(&through(&origin.url(), &slow(1, &options)));
        assert_eq!(ask(&proxy, &tls.replace([' ', ','], "_")), want, "{tls}");
    }
    let strict = start("yes");
    for (identity, want) in [(identity.as_str(), 200), ("", 500)] {
        let options =
            format!("endpoints: ['{}'], tls: {{ca: {ca_file}, {identity}}}", strict.address());
        let proxy = Proxy::start(&through(&origin.url(), &slow(1, &options)));
        assert_eq!(ask(&proxy, "x"), want, "{identity}");
    }
}

#[test]
fn a_redis_cluster_goes_on_without_one_of_its_nodes() {
    let mut nodes: Vec<_> = (0..3)
        .map(|_| {
            Redis::start(&[
                "--cluster-enabled",
                "yes",
                "--cluster-require-full-coverage",
                "no",
                "--cluster-port",
                "0",
                "--cluster-node-timeout",
                "1000",
            ])
        })
        .collect();
    let addresses: Vec<_> = nodes.iter().map(Redis::address).collect();
    let mut create = vec!["--cluster", "create"];
    create.extend(addresses.iter().map(String::as_str));
    create.push("--cluster-yes");
    let said = nodes[0].cli(&create);
    assert!(said.contains("All 16384 slots covered"), "{said}");
    until("the cluster stands", || {
        nodes.iter().all(|node| node.cli(&["cluster", "info"]).contains("cluster_state:ok"))
    });
    let origin = Origin::start();
    let options = format!("endpoints: ['{}', '{}'], readTimeout: 2s", addresses[0], addresses[1]);
    let proxy = Proxy::start(&through(&origin.url(), &slow(1, &options)));
    let sources: Vec<_> = (0..30).map(|number| format!("source-{number}")).collect();
    for who in &sources {
        assert_eq!(ask(&proxy, who), 200, "{who}");
        assert_eq!(ask(&proxy, who), 429, "{who}");
    }
    let kept = |node: &Redis| node.cli(&["dbsize"]).trim().parse::<usize>().unwrap();
    let counts: Vec<_> = nodes.iter().map(kept).collect();
    assert_eq!(counts.iter().sum::<usize>(), 30, "{counts:?}");
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    // Those of the third node cannot be counted any more, all others can.
    nodes[2].kill();
    until("all others are counted", || {
        let mut statuses = BTreeMap::<u16, usize>::new();
        for who in &sources {
            *statuses.entry(ask(&proxy, who)).or_default() += 1;
        }
        statuses == [(429, 30 - counts[2]), (500, counts[2])].into()
    });
}
