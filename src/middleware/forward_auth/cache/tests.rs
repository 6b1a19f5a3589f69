//! What tells questions apart, what is kept of their answers, and who asks.

use super::memory::LONGEST_HEADERS;
use super::*;

fn made(ttl: u64, most: usize, ignored: &[&'static str]) -> AuthCache {
    let ignored = ignored.iter().map(|name| HeaderName::from_static(name)).collect();
    AuthCache::new(Duration::from_secs(ttl), most, ignored)
}

fn question(lines: &[(&str, &str)]) -> http::Request<Bytes> {
    let mut request = http::Request::builder();
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    request.body(Bytes::new()).unwrap()
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// Asks, and is allowed.
async fn allow(cache: &AuthCache, key: Key, seconds: u64) {
    let Found::Lead(flight) = cache.find(key).await else { panic!("it was asked before") };
    flight.allow(&Arc::default(), Instant::now() + Duration::from_secs(seconds));
}

async fn is_kept(cache: &AuthCache, key: Key) -> bool {
    matches!(cache.find(key).await, Found::Allowed(_))
}

#[test]
fn whatever_the_server_is_told_tells_questions_apart() {
    let cache = made(1, 1, &[]);
    let base = [("x-forwarded-uri", "/"), ("cookie", "a=1"), ("x-b", "c")];
    let key = cache.key(&question(&base), None);
    assert_eq!(cache.key(&question(&base), None), key);
    for other in [
        &[("x-forwarded-uri", "/"), ("cookie", "a=1"), ("x-b", "d")][..],
        &[("x-forwarded-uri", "/"), ("cookie", "a=1"), ("x-c", "c")],
        &[("x-forwarded-uri", "/"), ("cookie", "a=1")],
        &[("x-forwarded-uri", "/"), ("cookie", "a=1x-bc")],
        &[("x-forwarded-uri", "/"), ("cookie", "a=1"), ("x-b", "c"), ("x-b", "")],
    ] {
        assert_ne!(cache.key(&question(other), None), key, "{other:?}");
    }
    let mut post = question(&base);
    *post.method_mut() = http::Method::POST;
    assert_ne!(cache.key(&post, None), key);
}

#[test]
fn what_is_ignored_tells_nothing_apart() {
    let cache = made(1, 1, &["x-forwarded-for", "x-forwarded-uri", "user-agent"]);
    let key = |lines: &[(&str, &str)]| cache.key(&question(lines), None);
    let base = ("x-forwarded-uri", "/a");
    for same in [("x-forwarded-uri", "/b"), ("x-forwarded-for", "::1"), ("user-agent", "x")] {
        assert_eq!(key(&[same]), key(&[base]), "{same:?}");
    }
    for other in [
        "authorization",
        "cookie",
        "x-forwarded-method",
        "x-forwarded-tls-client-cert",
        "x-real-ip",
        "x-tenant",
        // Only what was named.
        "x_forwarded_uri",
    ] {
        assert_ne!(key(&[base, (other, "1")]), key(&[base]), "{other}");
    }
}

#[test]
fn the_name_of_a_request_is_none_of_its_properties() {
    let cache = made(1, 1, &[]);
    let name = HeaderName::from_static("x-request-id");
    let key = |id: &str, lines: &[(&str, &str)]| {
        let id = HeaderValue::from_str(id).unwrap();
        cache.key(&question(lines), Some((&name, &id)))
    };
    let first = key("1", &[("cookie", "a"), ("x-request-id", "1")]);
    assert_eq!(key("2", &[("cookie", "a"), ("x-request-id", "2")]), first);
    assert_ne!(key("1", &[("cookie", "b"), ("x-request-id", "1")]), first);
    // What somebody has changed on the way, and what only looks like it.
    assert_ne!(key("1", &[("cookie", "a"), ("x-request-id", "2")]), first);
    assert_ne!(key("1", &[("cookie", "a"), ("x-other", "1")]), first);
    assert_ne!(key("1", &[("cookie", "a"), ("x-request-id", "1"), ("x_request_id", "1")]), first);
    let id = HeaderValue::from_static("1");
    let answer = headers(&[("vary", "X-Request-Id")]);
    let until = |naming| cache.until(&answer, Instant::now(), naming);
    assert!(until(None).is_some() && until(Some((&name, &id))).is_none());
}

#[test]
fn an_answer_says_how_long_it_may_be_used() {
    let start = Instant::now();
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (lines, want) in [
        (&[][..], Some(60)),
        (&[("cache-control", "max-age=5")], Some(5)),
        (&[("cache-control", "public, Max-Age = 5")], Some(5)),
        (&[("cache-control", "max-age=\"5\"")], Some(5)),
        (&[("cache-control", "max-age=500")], Some(60)),
        (&[("cache-control", "max-age=500, s-maxage=5")], Some(5)),
        (&[("cache-control", "max-age=5"), ("cache-control", "max-age=7")], Some(5)),
        (&[("cache-control", "max-age=5"), ("age", "2")], Some(3)),
        (&[("cache-control", "max-age=5"), ("age", "5")], None),
        (&[("cache-control", "max-age=0")], None),
        (&[("cache-control", "max-age=x")], None),
        (&[("cache-control", "max-age=-1")], None),
        (&[("cache-control", "no-store, max-age=5")], None),
        (&[("cache-control", "x"), ("cache-control", "No-Cache")], None),
        (&[("cache-control", "private=\"set-cookie, x\"")], None),
        (&[("date", date), ("expires", "Sun, 06 Nov 1994 08:49:47 GMT")], Some(10)),
        (&[("date", date), ("expires", date)], None),
        (&[("expires", date)], None),
        (&[("expires", "0")], None),
        (&[("expires", "0"), ("cache-control", "max-age=5")], Some(5)),
    ] {
        let until = made(60, 1, &[]).until(&headers(lines), start, None);
        assert_eq!(until.map(|until| (until - start).as_secs()), want, "{lines:?}");
    }
}

#[test]
fn what_an_answer_depends_on_must_be_in_the_key() {
    let (all, some) = (made(1, 1, &[]), made(1, 1, &["x-other", "origin"]));
    for (vary, in_all, in_some) in [
        ("X-Other", true, false),
        ("Accept-Encoding, X-Tenant, cookie", true, true),
        ("Cookie, Origin", true, false),
        ("*", false, false),
    ] {
        let answer = headers(&[("vary", vary)]);
        let is_kept = |cache: &AuthCache| cache.until(&answer, Instant::now(), None).is_some();
        assert_eq!((is_kept(&all), is_kept(&some)), (in_all, in_some), "{vary}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_soonest_makes_room() {
    let cache = made(3600, 16, &[]);
    let key = |at: u8| [at; 32];
    for at in 0..16 {
        allow(&cache, key(at), 100 + u64::from(at)).await;
    }
    assert_eq!(cache.len(), 16);
    allow(&cache, key(16), 50).await;
    assert_eq!(cache.len(), 14, "an eighth, and one, is gone");
    for at in 0..3 {
        assert!(!is_kept(&cache, key(at)).await, "{at}");
    }
    assert!(is_kept(&cache, key(3)).await && is_kept(&cache, key(16)).await);
    // What is over goes before anything else does.
    tokio::time::advance(Duration::from_secs(105)).await;
    assert!(!is_kept(&cache, key(16)).await && !is_kept(&cache, key(5)).await);
    for at in 20..26 {
        allow(&cache, key(at), 300).await;
    }
    assert!(is_kept(&cache, key(6)).await);
    for most in [1, 2] {
        let cache = made(60, most, &[]);
        for at in 0..9 {
            allow(&cache, key(at), 60).await;
            assert!(cache.len() <= most && is_kept(&cache, key(at)).await);
        }
    }
    // Long headers are not kept at all.
    let Found::Lead(flight) = cache.find(key(99)).await else { panic!() };
    let long = headers(&[("x-long", &"x".repeat(LONGEST_HEADERS))]);
    flight.allow(&Arc::new(long), Instant::now() + Duration::from_secs(9));
    assert!(!is_kept(&cache, key(99)).await);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_gets_what_is_allowed_or_asks_for_itself() {
    let cache = made(60, 16, &[]);
    let key = [7; 32];
    for ending in 0..3 {
        let Found::Lead(flight) = cache.find(key).await else { panic!() };
        let waiting = async { tokio::join!(cache.find(key), cache.find(key)) };
        let landing = async {
            tokio::task::yield_now().await;
            match ending {
                0 => drop(flight),
                1 => flight.alone(),
                _ => flight.allow(&Arc::default(), Instant::now() + Duration::from_secs(9)),
            }
            if ending == 0 {
                // The one that asks now is dropped as well, and the last one asks.
                tokio::task::yield_now().await;
            }
        };
        let waiting = async {
            if ending > 0 {
                return Some(waiting.await);
            }
            // Both come to ask, one after the other.
            for _ in 0..2 {
                assert!(matches!(cache.find(key).await, Found::Lead(_)));
            }
            None
        };
        match tokio::join!(waiting, landing).0 {
            None => assert_eq!(ending, 0),
            Some((Found::Alone, Found::Alone)) => assert_eq!(ending, 1),
            Some((Found::Allowed(_), Found::Allowed(_))) => assert_eq!(ending, 2),
            Some(_) => panic!("{ending}"),
        }
    }
    assert!(is_kept(&cache, key).await);
    cache.forget(&key);
    let Found::Lead(flight) = cache.find(key).await else { panic!() };
    // An answer that came too late is for nobody else.
    flight.allow(&Arc::default(), Instant::now());
    assert!(!is_kept(&cache, key).await);
    assert!(cache.memory.asking() == 0);
}

#[test]
fn options_are_checked() {
    let build = |config: &AuthCacheConfig| {
        let mut warnings = Vec::new();
        let built = config.build(&[], &mut warnings).map(|_| ()).map_err(|error| error.option);
        (built, warnings.len())
    };
    let base = AuthCacheConfig::default;
    assert_eq!(build(&base()), (Ok(()), 0));
    let long = AuthCacheConfig { ttl: GoDuration::from_secs(301), ..base() };
    assert_eq!(build(&long), (Ok(()), 1));
    let ignoring = |names: &[&str]| AuthCacheConfig {
        ignore_headers: names.iter().map(|&name| name.to_owned()).collect(),
        ..base()
    };
    assert_eq!(build(&ignoring(&["X-Forwarded-For", "User-Agent", "X-App"])), (Ok(()), 0));
    let mut warnings = Vec::new();
    let risky = ignoring(&["User-Agent", "X-Forwarded-Uri", "X-Forwarded-Method"]);
    risky.build(&[], &mut warnings).unwrap();
    let told: Vec<_> = warnings.iter().map(|warning| &*warning.option).collect();
    assert_eq!(told, ["cache.ignoreHeaders[1]", "cache.ignoreHeaders[2]"]);
    assert!(warnings[0].message.ends_with("for one path is allowed for all"), "{warnings:?}");
    for name in [
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "X-Forwarded-Host",
        "X_Forwarded_Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Tls-Client-Cert",
        "X-Forwarded-Tls-Client-Cert-Info",
    ] {
        let place = "cache.ignoreHeaders[1]".to_owned();
        assert_eq!(build(&ignoring(&["X-App", name])), (Err(place), 0), "{name}");
    }
    let passed = [HeaderName::from_static("x-api-key")];
    let error = ignoring(&["X-Api-Key"]).build(&passed, &mut Vec::new()).err().unwrap();
    assert_eq!(error.option, "cache.ignoreHeaders[0]");
    for (config, option) in [
        (AuthCacheConfig { ttl: GoDuration::ZERO, ..base() }, "cache.ttl"),
        (AuthCacheConfig { ttl: GoDuration::from_secs(-1), ..base() }, "cache.ttl"),
        (AuthCacheConfig { max_entries: 0, ..base() }, "cache.maxEntries"),
        (ignoring(&["X-A", "x a"]), "cache.ignoreHeaders[1]"),
    ] {
        assert_eq!(build(&config).0, Err(option.into()));
    }
}
