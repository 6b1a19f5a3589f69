//! The middleware as requests meet it, and the list under a flood. The clock is tokio's, turned by
//! hand.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::RETRY_AFTER;

use super::list::{CAPACITY, Order, SHARDS};
use super::*;
use crate::exchange::Body;
use crate::middleware::basic_auth::BasicAuthConfig;
use crate::middleware::ip_strategy::IpStrategyConfig;
use crate::middleware::testing::{Bench, Setting, body, build, context, get, with};
use crate::observability::metrics::{BanCount, BanCounts};
use crate::values::{Profile, QualifiedName, Secret};

const SECOND: Duration = Duration::from_secs(1);

fn config(json: &str) -> BanConfig {
    serde_json::from_str(json).unwrap()
}

/// Three answers 401 within a minute are a minute.
const LOGIN: &str =
    r#"{"conditions": [{"status": ["401"]}], "threshold": 3, "window": "1m", "duration": "1m"}"#;

/// A backend that answers with the status that the path names.
fn bench_of(middleware: Arc<dyn Middleware>) -> Bench {
    Bench::answering(vec![middleware], |_, request| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = request.uri().path()[1..].parse().unwrap();
        response
    })
}

fn bench(json: &str) -> Bench {
    bench_of(build(&config(json)).unwrap())
}

async fn statuses(bench: &Bench, path: &str, count: usize) -> Vec<u16> {
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(bench.status(get(path)).await.as_u16());
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn the_threshold_bans_for_a_time() {
    let bench = bench(LOGIN);
    assert_eq!(statuses(&bench, "/200", 5).await, [200; 5]);
    assert_eq!(statuses(&bench, "/401", 3).await, [401; 3]);
    tokio::time::advance(SECOND / 2).await;
    let response = bench.send(get("/200")).await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()[RETRY_AFTER], "60");
    assert_eq!(response.headers().len(), 1);
    assert_eq!(body(response).await, "Forbidden");
    assert_eq!(bench.calls(), 8);
    tokio::time::advance(SECOND * 60).await;
    assert_eq!(statuses(&bench, "/401", 3).await, [401; 3]);
    assert_eq!(statuses(&bench, "/200", 1).await, [403]);
}

#[tokio::test(start_paused = true)]
async fn a_switch_of_protocols_is_judged_by_its_head() {
    let bench = bench(r#"{"conditions": [{"status": ["101"]}], "threshold": 1}"#);
    let tunnel = bench.send(get("/101")).await;
    assert_eq!(statuses(&bench, "/200", 1).await, [403]);
    drop(tunnel);
}

#[tokio::test(start_paused = true)]
async fn only_offences_of_the_window_count() {
    let bench = bench(LOGIN);
    for _ in 0..10 {
        assert_eq!(statuses(&bench, "/401", 2).await, [401; 2]);
        tokio::time::advance(SECOND * 60).await;
    }
    // The window slides: two at its end and one behind it are three within a minute.
    assert_eq!(statuses(&bench, "/401", 1).await, [401]);
    tokio::time::advance(SECOND * 59).await;
    assert_eq!(statuses(&bench, "/401", 1).await, [401]);
    tokio::time::advance(SECOND * 2).await;
    assert_eq!(statuses(&bench, "/401", 2).await, [401; 2]);
    assert_eq!(statuses(&bench, "/200", 1).await, [403]);
}

#[tokio::test(start_paused = true)]
async fn further_bans_are_longer_until_they_are_forgotten() {
    let bench = bench(
        r#"{"conditions": [{"status": ["401"]}], "threshold": 1, "duration": "1m",
            "escalation": {"factor": 2, "max": "5m", "forget": "1h"}}"#,
    );
    for minutes in [1, 2, 4, 5, 5, 1] {
        if minutes == 1 {
            tokio::time::advance(SECOND * 3600).await;
        }
        assert_eq!(statuses(&bench, "/401", 1).await, [401]);
        tokio::time::advance(SECOND * (60 * minutes - 1)).await;
        assert_eq!(statuses(&bench, "/200", 1).await, [403], "{minutes}");
        tokio::time::advance(SECOND).await;
        assert_eq!(statuses(&bench, "/200", 1).await, [200], "{minutes}");
    }
}

#[tokio::test(start_paused = true)]
async fn sources_and_those_allowed() {
    let json = r#"{"conditions": [{"status": ["401"]}], "threshold": 1,
                   "allow": ["192.0.2.9", "2001:db8::5"]}"#;
    let setting = Setting::default();
    let _bans = Bans::of(&setting.state);
    let from =
        |peer: &str| bench_of(setting.build(&config(json)).unwrap().0).with_context(context(peer));
    for (offender, victim, want) in [
        ("192.0.2.1", "192.0.2.1", 403),
        ("192.0.2.1", "192.0.2.2", 200),
        ("192.0.2.9", "192.0.2.9", 200),
        ("::ffff:192.0.2.77", "192.0.2.77", 403),
        ("2001:db8:1:1::1", "2001:db8:1:1::2", 403),
        ("2001:db8:1:1::1", "2001:db8:1:2::1", 200),
        ("2001:db8::1", "2001:db8::5", 200),
        ("2001:db8::1", "2001:db8::4", 403),
    ] {
        from(offender).status(get("/401")).await;
        assert_eq!(from(victim).status(get("/200")).await, want, "{offender} {victim}");
    }
}

/// An address on the list is asked for as a whole, however much of it is the source.
#[tokio::test(start_paused = true)]
async fn networks_are_cut_by_the_ban_alone() {
    for profile in [Profile::Safe, Profile::Hardened] {
        for (subnet, neighbour) in [("", 403), (r#""ipv6Subnet": 128, "#, 200)] {
            let json = format!(
                r#"{{{subnet}"conditions": [{{"status": ["401"]}}], "threshold": 1,
                     "allow": ["2001:db8::5"]}}"#
            );
            let setting = Setting { profile, ..Setting::default() };
            let _bans = Bans::of(&setting.state);
            let from = |peer: &str| {
                bench_of(setting.build(&config(&json)).unwrap().0).with_context(context(peer))
            };
            from("2001:db8::5").status(get("/401")).await;
            assert_eq!(from("2001:db8::4").status(get("/200")).await, 200);
            from("2001:db8::4").status(get("/401")).await;
            for (peer, want) in
                [("2001:db8::4", 403), ("2001:db8::5", 200), ("2001:db8::6", neighbour)]
            {
                assert_eq!(from(peer).status(get("/200")).await, want, "{profile:?} {peer}");
            }
        }
    }
}

/// What every client gets before its first request bans nobody, and guesses do.
#[tokio::test(start_paused = true)]
async fn being_asked_for_credentials_is_no_offence() {
    let user = "test:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/".to_owned();
    let login = BasicAuthConfig { users: vec![Secret::from(user)], ..Default::default() };
    let chain = || vec![build(&config(LOGIN)).unwrap(), build(&login).unwrap()];
    let bench = Bench::new(chain());
    for _ in 0..9 {
        assert_eq!(bench.status(get("/")).await, 401);
    }
    let with_password = |password: &str| {
        let credentials = STANDARD.encode(format!("test:{password}"));
        with(get("/"), "authorization", &format!("Basic {credentials}"))
    };
    assert_eq!(bench.status(with_password("test")).await, 200);
    for _ in 0..3 {
        assert_eq!(bench.status(with_password("guess")).await, 401);
    }
    assert_eq!(bench.status(with_password("test")).await, 403);
    // A condition that asks for no status is none of an answer.
    let certain = config(r#"{"conditions": [{"path": "^/"}], "threshold": 3}"#);
    let bench = Bench::new(vec![build(&certain).unwrap(), build(&login).unwrap()]);
    assert_eq!(statuses(&bench, "/", 4).await, [401, 401, 401, 403]);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_told_apart_is_not_banned_with_others() {
    let json = |criterion: &str| {
        format!(
            r#"{{"conditions": [{{"status": ["401"]}}], "threshold": 1,
                 "sourceCriterion": {criterion}}}"#
        )
    };
    let key = bench(&json(r#"{"requestHeaderName": "X-Api-Key"}"#));
    assert_eq!(statuses(&key, "/401", 3).await, [401; 3]);
    let keyed = |path: &str, value: &str| with(get(path), "x-api-key", value);
    assert_eq!(key.status(keyed("/401", "a")).await, 401);
    for (value, want) in [("a", 403), ("b", 200), ("", 200)] {
        assert_eq!(key.status(keyed("/200", value)).await, want, "{value:?}");
    }
    let depth = bench(&json(r#"{"ipStrategy": {"depth": 1}}"#));
    let forwarded = |path: &str, value: &str| with(get(path), "x-forwarded-for", value);
    for _ in 0..3 {
        assert_eq!(depth.status(forwarded("/401", "unknown")).await, 401);
    }
    assert_eq!(depth.status(forwarded("/401", "6.6.6.6:4711")).await, 401);
    assert_eq!(depth.status(forwarded("/200", "6.6.6.6:4712")).await, 403);
    // Who comes without an entry is the peer, and does not take anybody along.
    assert_eq!(statuses(&depth, "/401", 2).await, [401, 403]);
    assert_eq!(depth.status(forwarded("/200", "unknown")).await, 200);
    assert_eq!(depth.status(forwarded("/200", "6.6.6.7")).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_criterion_says_who_is_banned() {
    let config = BanConfig {
        source_criterion: Some(SourceCriterionConfig {
            ip_strategy: Some(IpStrategyConfig { depth: 1, ..IpStrategyConfig::default() }),
            ..SourceCriterionConfig::default()
        }),
        ..config(r#"{"conditions": [{"status": ["401"]}], "threshold": 1}"#)
    };
    let bench = bench_of(build(&config).unwrap());
    let from = |path: &str, client: &str| with(get(path), "x-forwarded-for", client);
    bench.status(from("/401", "6.6.6.6")).await;
    for (client, want) in [("6.6.6.6", 403), ("1.1.1.1, 6.6.6.6", 403), ("6.6.6.7", 200)] {
        assert_eq!(bench.status(from("/200", client)).await, want, "{client}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_is_counted_where_the_request_is_enough() {
    for (json, want) in [
        (r#"{"conditions": [{"path": "login"}], "threshold": 1}"#, 403),
        (r#"{"conditions": [{"path": "login", "status": ["401"]}], "threshold": 1}"#, 200),
    ] {
        let bench = Bench::waiting(vec![build(&config(json)).unwrap()], |call, _| {
            Box::pin(async move {
                if call == 1 {
                    std::future::pending::<()>().await;
                }
                Response::new(Body::empty())
            })
        });
        let gone = tokio::time::timeout(SECOND, bench.send(get("/login"))).await;
        assert!(gone.is_err());
        assert_eq!(bench.status(get("/")).await, want, "{json}");
    }
}

#[tokio::test(start_paused = true)]
async fn routers_share_and_reloads_keep() {
    let setting = Setting::default();
    let bans = Bans::of(&setting.state);
    let built = |json: &str| bench_of(setting.build(&config(json)).unwrap().0);
    let (first, second) = (built(LOGIN), built(LOGIN));
    assert_eq!(statuses(&first, "/401", 2).await, [401; 2]);
    assert_eq!(statuses(&second, "/401", 1).await, [401]);
    assert_eq!(statuses(&first, "/200", 1).await, [403]);
    drop((first, second));
    // Also while no router has it.
    bans.configured(|name| name == "mid@file");
    bans.sweep(Instant::now());
    let changed =
        built(&LOGIN.replace('3', "1").replace("\"duration\": \"1m\"", "\"duration\": \"5s\""));
    let response = changed.send(get("/200")).await;
    assert_eq!(response.headers()[RETRY_AFTER], "60");
    tokio::time::advance(SECOND * 60).await;
    assert_eq!(statuses(&changed, "/401", 2).await, [401, 403]);
    assert_eq!(bans.counts(), [BanCount { middleware: "mid@file".into(), total: 2, in_force: 1 }]);
    // A name that is gone takes its bans along, once no table has it.
    bans.configured(|_| false);
    bans.sweep(Instant::now());
    assert_eq!(statuses(&changed, "/200", 1).await, [403]);
    assert!(bans.all().is_empty() && bans.get("mid@file").is_none());
    drop(changed);
    bans.sweep(Instant::now());
    assert_eq!(statuses(&built(LOGIN), "/200", 1).await, [200]);
}

#[tokio::test(start_paused = true)]
async fn bans_are_shown_ended_and_made_by_hand() {
    let setting = Setting::default();
    let bans = Bans::of(&setting.state);
    let json = r#"{"conditions": [{"status": ["401"]}], "threshold": 1, "allow": ["192.0.2.9"]}"#;
    let bench = bench_of(setting.build(&config(json)).unwrap().0);
    let list = bans.get("mid@file").unwrap();
    bench.status(get("/401")).await;
    let view = list.views().remove(0);
    assert_eq!((&*view.source, view.offences, view.level), ("192.0.2.1", 1, 1));
    assert!(view.until > view.since && view.since.ends_with('Z') && view.since.len() == 20);
    assert_eq!(list.unban("192.0.2.1"), Ok(true));
    assert_eq!(list.unban("192.0.2.1"), Ok(false));
    assert!(matches!(list.unban("nonsense"), Err(Refused::Wrong(_))));
    assert_eq!(statuses(&bench, "/200", 1).await, [200]);

    let hour = Some(GoDuration::from_secs(3600));
    let made = list.ban_by_hand("192.0.2.1", hour, "ops", "told so").unwrap();
    assert_eq!((made.by.as_deref(), made.reason.as_deref()), (Some("ops"), Some("told so")));
    assert_eq!(bench.send(get("/200")).await.headers()[RETRY_AFTER], "3600");
    let network = list.ban_by_hand("2001:db8::7", None, "ops", "").unwrap();
    assert_eq!((&*network.source, network.reason), ("2001:db8::/64", None));
    assert_eq!(list.views().len(), 2);
    // What lies within the network that counts is that network.
    let single = list.ban_by_hand("2001:db8:1::7/128", None, "ops", "").unwrap();
    assert_eq!(single.source, "2001:db8:1::/64");
    assert_eq!(list.unban("2001:db8:1::8/128"), Ok(true));
    for allowed in ["192.0.2.9", "192.0.2.9/32", "::ffff:192.0.2.9"] {
        assert!(matches!(list.ban_by_hand(allowed, hour, "", ""), Err(Refused::Useless(_))));
    }
    let wide = list.ban_by_hand("2001:db8::/48", hour, "", "").unwrap_err().to_string();
    assert!(wide.contains("IPv6 networks of /64"), "{wide}");
    for wrong in ["hash:00000000000000000000000000000001", "2001:db8::/48", "common"] {
        assert!(matches!(list.ban_by_hand(wrong, hour, "", ""), Err(Refused::Wrong(_))));
    }
    let never = Some(GoDuration::ZERO);
    assert!(matches!(list.ban_by_hand("192.0.2.1", never, "", ""), Err(Refused::Wrong(_))));
    tokio::time::advance(SECOND * 3600).await;
    assert!(list.views().is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_subnet_ends_bans_of_networks() {
    let setting = Setting::default();
    let bans = Bans::of(&setting.state);
    let json = r#"{"conditions": [{"status": ["401"]}], "threshold": 1}"#;
    let from = |json: &str, peer: &str| {
        bench_of(setting.build(&config(json)).unwrap().0).with_context(context(peer))
    };
    for peer in ["192.0.2.1", "2001:db8::1"] {
        from(json, peer).status(get("/401")).await;
        assert_eq!(from(json, peer).status(get("/200")).await, 403, "{peer}");
    }
    let changed = json.replace("\"threshold\"", "\"ipv6Subnet\": 48, \"threshold\"");
    assert_eq!(from(&changed, "192.0.2.1").status(get("/200")).await, 403);
    assert_eq!(from(&changed, "2001:db8::1").status(get("/200")).await, 200);
    assert_eq!(bans.get("mid@file").unwrap().views().len(), 1);
}

#[test]
fn options_are_checked() {
    let with = |option: &str| {
        let json = format!(r#"{{"conditions": [{{"status": ["401"]}}], {option}}}"#);
        build(&config(&json)).err().map(|error| error.option)
    };
    for (option, place) in [
        (r#""threshold": 0"#, "threshold"),
        (r#""threshold": 1001"#, "threshold"),
        (r#""window": "0s""#, "window"),
        (r#""window": "721h""#, "window"),
        (r#""duration": "-1s""#, "duration"),
        (r#""escalation": {"factor": 0.5}"#, "escalation.factor"),
        (r#""escalation": {"max": "1m"}"#, "escalation.max"),
        (r#""escalation": {"forget": "0s"}"#, "escalation.forget"),
        (r#""ipv6Subnet": 0"#, "ipv6Subnet"),
        (r#""allow": ["::1", "x"]"#, "allow[1]"),
        (r#""rejectStatusCode": 101"#, "rejectStatusCode"),
        (r#""sourceCriterion": {"requestHost": true}"#, "sourceCriterion.requestHost"),
        (
            r#""sourceCriterion": {"ipStrategy": {"ipv6Subnet": 64}}"#,
            "sourceCriterion.ipStrategy.ipv6Subnet",
        ),
        (r#""sourceCriterion": {"ipStrategy": {"depth": -1}}"#, "sourceCriterion.ipStrategy.depth"),
        (r#""sourceCriterion": {"ipStrategy": {}, "requestHeaderName": "a"}"#, "sourceCriterion"),
    ] {
        assert_eq!(with(option).as_deref(), Some(place), "{option}");
    }
    assert_eq!(with(r#""escalation": {}, "rejectStatusCode": 429"#), None);
    assert_eq!(build(&BanConfig::default()).err().unwrap().option, "conditions");
    let warned = |option: &str| {
        let json = format!(
            r#"{{"conditions": [{{"status": ["401"]}}], "allow": ["::1"], "ipv6Subnet": 48,
                 "sourceCriterion": {option}}}"#
        );
        let (_, warnings) = Setting::default().build(&config(&json)).unwrap();
        warnings.into_iter().map(|warning| warning.option).collect::<Vec<_>>()
    };
    assert_eq!(warned(r#"{"requestHeaderName": "X-Key"}"#), ["allow", "ipv6Subnet"]);
    assert!(warned(r#"{"ipStrategy": {"depth": 1}}"#).is_empty());
}

fn policy(threshold: u32) -> Policy {
    Policy {
        threshold,
        window: SECOND * 60,
        duration: SECOND * 600,
        factor: 2.0,
        max: SECOND * 3600,
        remember: SECOND * 3600,
    }
}

fn list() -> BanList {
    BanList::new(QualifiedName::new("a", "file").shared())
}

fn v4(number: u32) -> Source {
    Source::Ip(Ipv4Addr::from_bits(number).into())
}

/// A /64 of the /48 that the upper bits are.
fn v6(network: u128, number: u128) -> Source {
    Source::Ip(Ipv6Addr::from_bits(0x2001 << 112 | network << 80 | number << 64).into())
}

#[tokio::test(start_paused = true)]
async fn threads_may_come_in_another_order_than_they_looked_at_the_clock() {
    let list = list();
    let now = Instant::now();
    assert_eq!(list.offend(v4(1), &policy(2), now + SECOND), Sentence::None);
    assert!(list.sweep(now).is_empty());
    assert!(matches!(list.offend(v4(1), &policy(2), now), Sentence::Banned { offences: 2, .. }));
}

#[tokio::test(start_paused = true)]
async fn one_network_pushes_out_nobody_else() {
    let list = list();
    let now = Instant::now();
    let others: Vec<Source> = (0..1000).map(|number| v4(number << 8)).collect();
    for &source in &others {
        assert!(matches!(list.offend(source, &policy(1), now), Sentence::Banned { .. }));
    }
    for number in 0..20_000 {
        let now = now + SECOND + Duration::from_micros(number);
        let sentence = list.offend(v6(1, number.into()), &policy(1), now);
        assert!(matches!(sentence, Sentence::Banned { .. }), "{number}");
    }
    assert!(list.in_force(now) <= CAPACITY / SHARDS + others.len());
    assert!(others.iter().all(|&source| list.banned_for(source).is_some()));
    assert!(list.banned_for(v6(1, 19_999)).is_some() && list.banned_for(v6(1, 0)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_full_list_keeps_what_it_has() {
    let list = list();
    let now = Instant::now();
    let text = |number: u64| Source::Text(number, 0);
    let mut banned = Vec::new();
    for number in 0..(CAPACITY + CAPACITY / 4) as u64 {
        match list.offend(text(number), &policy(1), now) {
            Sentence::Banned { .. } => banned.push(text(number)),
            sentence => assert_eq!(sentence, Sentence::NoRoom),
        }
    }
    assert_eq!((banned.len(), list.in_force(now)), (CAPACITY, CAPACITY));
    assert!(banned.iter().all(|&source| list.banned_for(source).is_some()));
    let order = Order { by: String::new(), reason: String::new() };
    assert!(!list.impose(text(u64::MAX), SECOND, order));
    // What is over goes, though it is remembered.
    tokio::time::advance(SECOND * 600).await;
    let now = Instant::now();
    assert!(matches!(list.offend(text(u64::MAX), &policy(1), now), Sentence::Banned { .. }));
}

#[tokio::test(start_paused = true)]
async fn bans_by_hand_and_heavy_ones_outlast_their_neighbours() {
    let list = list();
    let now = Instant::now();
    let order = Order { by: "ops".to_owned(), reason: String::new() };
    assert!(list.impose(v6(1, 0), SECOND * 60, order));
    let repeated = v6(1, 1);
    list.offend(repeated, &policy(1), now);
    tokio::time::advance(SECOND * 601).await;
    let now = Instant::now();
    assert!(matches!(
        list.offend(repeated, &policy(1), now),
        Sentence::Banned { level: 2, duration, .. } if duration == SECOND * 1200
    ));
    let order = Order { by: "ops".to_owned(), reason: String::new() };
    assert!(list.impose(v6(1, 0), SECOND * 60, order));
    for number in 2..20_000 {
        list.offend(v6(1, number), &policy(1), now);
    }
    assert!((CAPACITY / SHARDS / 2..=CAPACITY / SHARDS).contains(&list.in_force(now)));
    assert!(list.banned_for(repeated).is_some() && list.banned_for(v6(1, 0)).is_some());
}

#[tokio::test(start_paused = true)]
async fn counting_is_bounded_and_keeps_the_worst() {
    let list = list();
    let now = Instant::now();
    let worst = v6(1, 0);
    for _ in 0..2 {
        list.offend(worst, &policy(3), now);
    }
    for number in 1..100_000 {
        list.offend(v6(number % 50, number), &policy(3), now);
    }
    assert!(list.counted() <= CAPACITY);
    assert!(matches!(list.offend(worst, &policy(3), now), Sentence::Banned { .. }));
    tokio::time::advance(SECOND * 60).await;
    list.sweep(Instant::now());
    assert_eq!(list.counted(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_ban_is_told_once() {
    let list = list();
    list.offend(v4(1), &policy(1), Instant::now());
    assert!(list.sweep(Instant::now()).is_empty());
    tokio::time::advance(SECOND * 600).await;
    assert_eq!(list.sweep(Instant::now()), [v4(1)]);
    assert!(list.sweep(Instant::now()).is_empty());
    // Remembered until the hour is over.
    let known =
        |now| matches!(list.offend(v4(1), &policy(2), now), Sentence::Banned { level: 2, .. });
    assert!(!known(Instant::now()) && known(Instant::now()));
}
