//! Services made of services, with children that do as they are told.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::SET_COOKIE;
use serde_json::json;

use super::*;
use crate::exchange::{Body, Outcome, Request, Response};
use crate::service::tests::{Fake, Origin, World, ask, local, nowhere, request};
use crate::values::Profile;

fn world(checks: bool) -> (World, Arc<Fake>, Arc<Fake>) {
    let mut world = World::new();
    let (a, b) = (Fake::new("a", checks), Fake::new("b", checks));
    world.services.insert("a".to_owned(), Arc::<Fake>::clone(&a));
    world.services.insert("b".to_owned(), Arc::<Fake>::clone(&b));
    (world, a, b)
}

async fn bodies(service: &dyn Service, count: usize) -> String {
    let mut all = String::new();
    for _ in 0..count {
        all.push_str(&ask(service, request(None)).await.0);
    }
    all
}

#[test]
fn children_share_by_weight() {
    local(async {
        let (mut world, a, _) = world(false);
        let config = json!({"weighted": {"services": [
            {"name": "a", "weight": 3}, {"name": "b"}, {"name": "b", "weight": -1},
        ]}});
        let service = world.build("w", config).unwrap();
        let all = bodies(&*service, 8).await;
        assert_eq!(all.matches('a').count(), 6, "{all}");
        // Nobody asked for health, so it changes nothing.
        a.set(false);
        assert_eq!(bodies(&*service, 4).await.matches('a').count(), 3);
        assert!(service.is_up());
        assert!(!service.checks_health());
    });
}

#[test]
fn children_that_are_down_are_left_out() {
    local(async {
        let (mut world, a, b) = world(true);
        let config = json!({"weighted": {
            "services": [{"name": "a"}, {"name": "b"}], "healthCheck": {},
        }});
        let service = world.build("w", config).unwrap();
        a.set(false);
        assert_eq!(bodies(&*service, 3).await, "bbb");
        assert!(service.is_up());
        b.set(false);
        assert!(!service.is_up());
        let (body, response) = ask(&*service, request(None)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "no available server\n");
        a.set(true);
        assert_eq!(bodies(&*service, 2).await, "aa");
    });
}

#[test]
fn a_child_must_check_health_when_its_parent_asks() {
    let (mut world, ..) = world(false);
    let leaf = json!({"loadBalancer": {"passiveHealthCheck": {}}});
    world.build("leaf", leaf.clone()).unwrap();
    let weighted = json!({"weighted": {"services": [{"name": "leaf"}], "healthCheck": {}}});
    let (option, message) = world.error(weighted);
    assert_eq!(option, "weighted.services[0]");
    assert_eq!(
        message,
        "cannot register leaf as updater for s@file: healthCheck not enabled in config for this \
         weighted service"
    );
    let mut p2c = leaf;
    p2c["loadBalancer"]["strategy"] = json!("p2c");
    world.build("leaf", p2c).unwrap();
    let (option, message) = world.error(json!({"failover": {"service": "leaf", "fallback": "a"}}));
    assert_eq!(option, "failover.service");
    assert!(message.ends_with("healthCheck not enabled in config for this P2C service"));
    let (_, message) = world.error(json!({"failover": {"service": "a", "fallback": "b"}}));
    assert_eq!(message, "child service a of s@file not a healthcheck.StatusUpdater");
}

#[test]
fn a_child_that_is_not_there_is_named() {
    let (mut world, ..) = world(true);
    let (option, message) = world.error(json!({"weighted": {"services": [{"name": "c"}]}}));
    assert_eq!(option, "weighted.services[0]");
    assert_eq!(message, "building HTTP service \"c\": the service \"c\" does not exist");
    let (option, _) = world.error(json!({"failover": {"service": "a"}}));
    assert_eq!(option, "failover.fallback");
}

#[test]
fn a_cookie_keeps_a_client_at_its_child() {
    local(async {
        let (mut world, a, _) = world(true);
        let config = json!({"weighted": {
            "services": [{"name": "a"}, {"name": "b"}],
            "sticky": {"cookie": {"name": "lvl1"}},
            "healthCheck": {},
        }});
        let service = world.build("w", config).unwrap();
        let (body, response) = ask(&*service, request(None)).await;
        assert_eq!(body, "a");
        // The first digits of the SHA-256 of "a".
        let line = response.headers()[SET_COOKIE].to_str().unwrap();
        assert_eq!(line, "lvl1=ca978112ca1bbdca; Path=/");
        let cookie = Some("lvl1=ca978112ca1bbdca");
        for _ in 0..3 {
            let (body, response) = ask(&*service, request(cookie)).await;
            assert_eq!((&*body, response.headers().get(SET_COOKIE)), ("a", None));
        }
        a.set(false);
        let (body, response) = ask(&*service, request(cookie)).await;
        assert_eq!(body, "b");
        assert!(response.headers().contains_key(SET_COOKIE));
    });
}

#[test]
fn a_session_leaves_a_child_that_cannot_be_reached() {
    local(async {
        let alive = Origin::start();
        let mut world = World::new();
        for (name, url) in [("dead", nowhere()), ("alive", alive.url.clone())] {
            let config = json!({"loadBalancer": {"servers": [{"url": url}]}});
            world.build(name, config).unwrap();
        }
        let config = json!({"weighted": {
            "services": [{"name": "dead"}, {"name": "alive"}],
            "sticky": {"cookie": {"name": "lb"}},
        }});
        let service = world.build("w", config).unwrap();
        let (_, response) = ask(&*service, request(None)).await;
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        let line = response.headers()[SET_COOKIE].to_str().unwrap();
        let cookie = line.split(';').next().unwrap().to_owned();
        let attempts = Attempts::default();
        for (status, moves) in [(502, false), (200, true)] {
            let mut request = request(Some(&cookie));
            request.extensions_mut().insert(attempts.clone());
            let (_, response) = ask(&*service, request).await;
            let told = response.headers().contains_key(SET_COOKIE);
            assert_eq!((response.status().as_u16(), told), (status, moves));
        }
    });
}

/// A child that was only tried keeps its clients, also against cookies of the same name below.
#[test]
fn an_attempt_at_another_child_moves_no_session() {
    local(async {
        let (a, b, c) = (Origin::start(), Origin::start(), Origin::start());
        let mut world = World::new();
        let leaf = |servers: &[&Origin]| {
            let servers: Vec<_> = servers.iter().map(|one| json!({"url": one.url})).collect();
            json!({"loadBalancer": {
                "servers": servers,
                "sticky": {"cookie": {"name": "below"}},
                "passiveHealthCheck": {"failureWindow": "1h", "maxFailedAttempts": 1},
            }})
        };
        world.build("one", leaf(&[&a])).unwrap();
        world.build("two", leaf(&[&b, &c])).unwrap();
        let config = json!({"weighted": {
            "services": [{"name": "one"}, {"name": "two"}],
            "sticky": {"cookie": {"name": "above"}},
        }});
        let service = world.build("w", config).unwrap();
        let cookies = |response: &Response| {
            let lines = response.headers().get_all(SET_COOKIE).iter();
            let pairs = lines.map(|line| line.to_str().unwrap().split(';').next().unwrap());
            pairs.map(str::to_owned).collect::<Vec<_>>().join("; ")
        };
        let after = |tried: &[&Origin], cookie: &str| {
            let mut again = request(Some(cookie));
            let attempts = Attempts::default();
            for one in tried {
                attempts.note(&one.url.as_str().into());
            }
            again.extensions_mut().insert(attempts);
            again
        };
        let (body, response) = ask(&*service, request(None)).await;
        let to_one = cookies(&response);
        assert_eq!((body, to_one.matches('=').count()), (a.name.clone(), 2), "{to_one}");
        let (body, response) = ask(&*service, after(&[&a], &to_one)).await;
        assert_ne!(body, a.name);
        assert_eq!(cookies(&response), "");
        let (body, response) = ask(&*service, request(Some(&to_one))).await;
        assert_eq!((body, cookies(&response)), (a.name.clone(), String::new()));
        // One whose servers are all down lets go of them.
        a.answer(500);
        assert_eq!(ask(&*service, request(Some(&to_one))).await.1.status(), 500);
        let (body, response) = ask(&*service, after(&[&a], &to_one)).await;
        assert_ne!(body, a.name);
        let to_two = cookies(&response);
        assert_eq!(to_two.matches('=').count(), 2, "{to_two}");
        let (again, response) = ask(&*service, request(Some(&to_two))).await;
        assert_eq!((again, cookies(&response)), (body, String::new()));
    });
}

#[test]
fn a_fallback_stands_in() {
    local(async {
        let (mut world, a, b) = world(true);
        let config = json!({"failover": {"service": "a", "fallback": "b"}});
        let careless = world.build("careless", config).unwrap();
        let config = json!({"failover": {"service": "a", "fallback": "b", "healthCheck": {}}});
        let careful = world.build("careful", config).unwrap();
        for service in [&careless, &careful] {
            assert_eq!(bodies(&**service, 2).await, "aa");
        }
        a.set(false);
        for service in [&careless, &careful] {
            assert_eq!(bodies(&**service, 2).await, "bb");
            assert!(service.is_up());
        }
        b.set(false);
        assert_eq!(bodies(&*careless, 1).await, "b");
        assert!(careless.is_up());
        let (body, mut response) = ask(&*careful, request(None)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "Service Unavailable\n");
        assert_eq!(Outcome::of(&mut response).error, Some(ProxyError::NoAvailableServer));
        assert!(!careful.is_up());
        a.set(true);
        assert_eq!(bodies(&*careful, 1).await, "a");
    });
}

#[test]
fn services_in_services_are_asked_once_a_level() {
    const LEVELS: usize = 30;
    local(async {
        let (mut world, a, b) = world(true);
        let pair = |name: &str| {
            json!({"weighted": {
                "services": [{"name": name}, {"name": name}], "healthCheck": {},
            }})
        };
        let config = json!({"failover": {"service": "a", "fallback": "b", "healthCheck": {}}});
        let mut top = world.build("0", config).unwrap();
        for level in 0..LEVELS {
            world.services.insert(level.to_string(), top);
            top = world.build("next", pair(&level.to_string())).unwrap();
        }
        assert_eq!(bodies(&*top, 1).await, "a");
        assert_eq!(a.asked(), 2 * LEVELS + 1, "for each child on the way, and below");
        a.set(false);
        assert_eq!(bodies(&*top, 1).await, "b");
        assert_eq!((a.asked(), b.asked()), (2 * LEVELS + 1, 2 * LEVELS + 1));
        b.set(false);
        assert!(!top.is_up());
        assert_eq!((a.asked(), b.asked()), (1, 1));
        let (_, response) = ask(&*top, request(None)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!((a.asked(), b.asked()), (2, 2), "for each child of the first");
        a.set(true);
        assert!(top.is_up());
    });
}

/// The same child for the same client, by the hash of RP-5.3: of 127.0.0.1 and these names.
#[test]
fn a_client_always_gets_the_same_child() {
    local(async {
        let (mut world, a, b) = world(true);
        let children = json!([{"name": "a"}, {"name": "b"}, {"name": "b", "weight": 0}]);
        let config = json!({"highestRandomWeight": {"services": children, "healthCheck": {}}});
        let service = world.build("h", config).unwrap();
        let config = json!({"highestRandomWeight": {"services": children}});
        let careless = world.build("careless", config).unwrap();
        let all = bodies(&*service, 5).await;
        let (first, second, other) = if all == "aaaaa" { (&a, &b, "b") } else { (&b, &a, "a") };
        assert!(all == "aaaaa" || all == "bbbbb", "{all}");
        first.set(false);
        assert_eq!(bodies(&*service, 2).await, other.repeat(2));
        assert_eq!(bodies(&*careless, 2).await, all[..2], "nobody asked for health");
        assert!(service.is_up() && service.checks_health() && !careless.checks_health());
        second.set(false);
        assert!(!service.is_up() && careless.is_up());
        let (body, response) = ask(&*service, request(None)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "no available server\n");
        first.set(true);
        assert_eq!(bodies(&*service, 2).await, all[..2], "it is back with its clients");
    });
}

#[test]
fn hashed_children_that_cannot_be_had_are_named() {
    let (mut world, ..) = world(false);
    let hashed = |more: serde_json::Value| json!({"highestRandomWeight": more});
    let (option, message) =
        world.error(hashed(json!({"services": [{"name": "a"}, {"name": "c"}]})));
    assert_eq!(option, "highestRandomWeight.services[1]");
    assert_eq!(message, "the service \"c\" does not exist");
    world.build("inner", hashed(json!({"services": [{"name": "a"}]}))).unwrap();
    let outer = json!({"services": [{"name": "inner"}], "healthCheck": {}});
    let (option, message) = world.error(hashed(outer));
    assert_eq!(option, "highestRandomWeight.services[0]");
    assert!(message.ends_with("healthCheck not enabled in config for this HRW service"));
    let empty = world.build("empty", hashed(json!({}))).unwrap();
    assert!(!empty.is_up());
}

fn with_body(body: Body) -> Request {
    let mut request = request(None);
    *request.body_mut() = body;
    request
}

/// RP-5.8
#[test]
fn a_status_is_a_reason_to_ask_the_other() {
    local(async {
        let (mut world, a, b) = world(false);
        let config = json!({"failover": {
            "service": "a", "fallback": "b", "errors": {"status": ["500-599", "404"]},
        }});
        let service = world.build("f", config).unwrap();
        for (status, who) in [(200, "a"), (404, "b"), (500, "b"), (499, "a"), (599, "b")] {
            a.answer(status);
            let (body, _) = ask(&*service, with_body(Body::from_static(b"payload"))).await;
            assert_eq!(body, who, "{status}");
            assert_eq!(a.got(), "payload", "{status}");
            assert_eq!(b.got(), if who == "b" { "payload" } else { "" }, "{status}");
        }
        assert!(service.is_up());
        // Whoever stands in is not stood in for.
        b.answer(503);
        assert_eq!(ask(&*service, request(None)).await.1.status(), 503);
    });
}

/// RP-5.8
#[test]
fn a_body_that_is_too_long_to_be_kept_is_refused() {
    local(async {
        let (mut world, a, b) = world(false);
        let config = json!({"failover": {
            "service": "a", "fallback": "b",
            "errors": {"status": ["500"], "maxRequestBodyBytes": 4},
        }});
        let service = world.build("f", config).unwrap();
        let (body, response) = ask(&*service, with_body(Body::from_static(b"12345"))).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(body, "Request body too large\n");
        assert_eq!((a.requests(), b.requests()), (0, 0));
        a.answer(500);
        assert_eq!(ask(&*service, with_body(Body::from_static(b"1234"))).await.0, "b");
        assert_eq!(b.got(), "1234");
    });
}

/// RP-5.8.4
#[test]
fn where_no_limit_is_set_the_profile_decides() {
    local(async {
        let long = || with_body(Body::from(Bytes::from(vec![b'x'; (2 << 20) + 1])));
        let errors = json!({"status": ["500"]});
        let any = json!({"status": ["500"], "maxRequestBodyBytes": -1});
        for (profile, errors, status, warned) in [
            (Profile::Exact, &errors, 200, true),
            (Profile::Safe, &errors, 200, true),
            (Profile::Safe, &any, 200, false),
            (Profile::Hardened, &errors, 413, false),
            (Profile::Hardened, &any, 200, false),
        ] {
            let (mut world, ..) = world(false);
            world.profile = profile;
            let config = json!({"failover": {"service": "a", "fallback": "b", "errors": errors}});
            let service = world.build("f", config).unwrap();
            assert_eq!(ask(&*service, long()).await.1.status(), status, "{profile:?} {errors}");
            let options: Vec<&str> =
                world.warnings.iter().map(|warning| &*warning.option).collect();
            let want = ["failover.errors.maxRequestBodyBytes"];
            assert_eq!(options, want[..usize::from(warned)], "{profile:?} {errors}");
        }
    });
}

/// RP-5.8: with a health check, the main service is not asked while it is down.
#[test]
fn status_and_health_work_together() {
    local(async {
        let (mut world, a, b) = world(true);
        let config = json!({"failover": {
            "service": "a", "fallback": "b", "errors": {"status": ["500"]}, "healthCheck": {},
        }});
        let service = world.build("f", config).unwrap();
        a.set(false);
        assert_eq!((bodies(&*service, 1).await.as_str(), a.requests()), ("b", 0));
        a.set(true);
        a.answer(500);
        b.set(false);
        let (body, response) = ask(&*service, request(None)).await;
        assert_eq!((response.status().as_u16(), &*body), (503, "Service Unavailable\n"));
        assert_eq!(a.requests(), 1);
        assert!(service.is_up());
    });
}

#[test]
fn statuses_that_cannot_be_read_are_named() {
    let (mut world, ..) = world(true);
    let errors = json!({"status": ["500", "5xx"]});
    let config = json!({"failover": {"service": "a", "fallback": "b", "errors": errors}});
    assert_eq!(world.error(config).0, "failover.errors.status[1]");
    // Without one there is nothing to do on a status, and health must be known.
    let (mut world, ..) = self::world(false);
    let config = json!({"failover": {"service": "a", "fallback": "b", "errors": {}}});
    assert_eq!(world.error(config).0, "failover.service");
}

/// RP-7.6: services made of services pass over a child whose servers were all tried.
#[test]
fn attempts_reach_the_servers_of_other_children() {
    local(async {
        let origins = [Origin::start(), Origin::start(), Origin::start()];
        let mut world = World::new();
        for (name, servers) in [("a", &origins[..2]), ("b", &origins[2..])] {
            let servers: Vec<_> = servers.iter().map(|one| json!({"url": one.url})).collect();
            let service = world.build(name, json!({"loadBalancer": {"servers": servers}})).unwrap();
            world.services.insert(name.to_owned(), service);
        }
        let children = json!([{"name": "a", "weight": 50}, {"name": "b", "weight": 1}]);
        let inner = world.build("inner", json!({"weighted": {"services": children}})).unwrap();
        world.services.insert("inner".to_owned(), inner);
        let sticky = json!({"cookie": {"name": "w"}});
        for config in [
            json!({"weighted": {"services": children}}),
            json!({"weighted": {"services": children, "sticky": sticky}}),
            json!({"weighted": {"services": [{"name": "inner"}]}}),
            json!({"highestRandomWeight": {"services": children}}),
            json!({"mirroring": {"service": "inner"}}),
        ] {
            let service = world.build("tried", config.clone()).unwrap();
            let attempts = Attempts::default();
            let mut names = Vec::new();
            for _ in 0..6 {
                let mut request = request(Some("w=a"));
                request.extensions_mut().insert(attempts.clone());
                names.push(ask(&*service, request).await.0);
            }
            for round in names.chunks(3) {
                for origin in &origins {
                    assert!(round.contains(&origin.name), "{config}: {names:?}");
                }
            }
        }
    });
}

/// The service that stands in asks nobody whom the main one has asked, while another is up.
#[test]
fn who_stands_in_does_not_ask_the_server_that_failed() {
    local(async {
        let (failing, other) = (Origin::start(), Origin::start());
        failing.answer(503);
        let mut world = World::new();
        let servers = |more: &[&Origin]| {
            let one = |origin: &&Origin| json!({"url": origin.url});
            let mut servers = vec![json!({"url": failing.url, "weight": 20})];
            servers.extend(more.iter().map(one));
            json!({"loadBalancer": {"servers": servers}})
        };
        for (name, config) in [("main", servers(&[])), ("second", servers(&[&other]))] {
            let service = world.build(name, config).unwrap();
            world.services.insert(name.to_owned(), service);
        }
        let config = json!({"failover": {
            "service": "main", "fallback": "second", "errors": {"status": ["503"]},
        }});
        let service = world.build("f", config).unwrap();
        for _ in 0..10 {
            assert_eq!(ask(&*service, request(None)).await.0, other.name);
        }
    });
}
