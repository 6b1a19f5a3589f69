//! One balancer with real servers: shares, cookies, failures, and what a reload keeps.

use std::time::Duration;

use http::StatusCode;
use http::header::SET_COOKIE;
use serde_json::{Value, json};

use super::*;
use crate::exchange::Body;
use crate::service::tests::{Origin, World, ask, context, local, nowhere, request, until};

fn balancer(servers: &[(&str, i64)], options: &Value) -> Value {
    let servers: Vec<Value> =
        servers.iter().map(|(url, weight)| json!({"url": url, "weight": weight})).collect();
    let mut config = json!({"servers": servers});
    for (name, value) in options.as_object().unwrap() {
        config[name] = value.clone();
    }
    json!({"loadBalancer": config})
}

fn cookie_of(response: &Response) -> Option<String> {
    let line = response.headers().get(SET_COOKIE)?.to_str().unwrap();
    Some(line.split_once(';').unwrap().0.to_owned())
}

#[test]
fn weights_are_shares() {
    local(async {
        let (a, b, never) = (Origin::start(), Origin::start(), nowhere());
        let mut world = World::new();
        let config = balancer(&[(&a.url, 3), (&b.url, 1), (&never, 0)], &json!({}));
        let service = world.build("s", config).unwrap();
        for _ in 0..8 {
            assert_eq!(ask(&*service, request(None)).await.1.status(), StatusCode::OK);
        }
        assert_eq!((a.asked(), b.asked()), (6, 2));
    });
}

#[test]
fn without_a_server_the_answer_is_503() {
    local(async {
        let mut world = World::new();
        let zero = nowhere();
        for config in [balancer(&[], &json!({})), balancer(&[(&zero, 0)], &json!({}))] {
            let service = world.build("s", config).unwrap();
            let (body, mut response) = ask(&*service, request(None)).await;
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(body, "no available server\n");
            let outcome = Outcome::of(&mut response);
            assert_eq!(outcome.error, Some(ProxyError::NoAvailableServer));
            assert!(!service.is_up());
        }
    });
}

#[test]
fn what_cannot_be_built_names_the_option() {
    let mut world = World::new();
    let (option, _) = world.error(balancer(&[("http://a", 1), ("ftp://b", 1)], &json!({})));
    assert_eq!(option, "loadBalancer.servers[1].url");
    let (option, message) = world.error(balancer(&[], &json!({"strategy": "WRR"})));
    assert_eq!(option, "loadBalancer.strategy");
    assert_eq!(message, "unsupported load-balancer strategy \"WRR\"");
    world.transport = None;
    let (option, message) = world.error(balancer(&[], &json!({})));
    assert_eq!(option, "loadBalancer.serversTransport");
    assert_eq!(message, "servers transport not found");
}

#[test]
fn a_cookie_keeps_a_client_at_its_server() {
    local(async {
        let (a, b) = (Origin::start(), Origin::start());
        let mut world = World::new();
        let sticky = json!({"sticky": {"cookie": {"name": "lb", "httpOnly": true}}});
        let config = balancer(&[(&a.url, 1), (&b.url, 1)], &sticky);
        let service = world.build("s", config).unwrap();
        let (first, response) = ask(&*service, request(None)).await;
        let cookie = cookie_of(&response).unwrap();
        for _ in 0..5 {
            let (body, response) = ask(&*service, request(Some(&cookie))).await;
            assert_eq!(body, first);
            assert_eq!(cookie_of(&response), None);
        }
        let (_, response) = ask(&*service, request(Some("lb=forged"))).await;
        assert!(cookie_of(&response).unwrap().starts_with("lb="));
        // A value of an earlier release is honoured and replaced.
        let old = format!("lb={}", a.url);
        let (body, response) = ask(&*service, request(Some(&old))).await;
        assert_eq!((body, cookie_of(&response)), (a.name.clone(), Some(cookie)));
    });
}

#[test]
fn a_client_whose_server_is_gone_gets_another_and_a_new_cookie() {
    local(async {
        let (a, b) = (nowhere(), Origin::start());
        let mut world = World::new();
        let options = json!({
            "sticky": {"cookie": {"name": "lb"}},
            "passiveHealthCheck": {"failureWindow": "1h", "maxFailedAttempts": 1},
        });
        let config = balancer(&[(&a, 1), (&b.url, 1)], &options);
        let service = world.build("s", config).unwrap();
        // The cookie is there although the answer is an error.
        let (_, response) = ask(&*service, request(None)).await;
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        let cookie = cookie_of(&response).unwrap();
        let (body, response) = ask(&*service, request(Some(&cookie))).await;
        assert_eq!(body, b.name);
        assert_ne!(cookie_of(&response).unwrap(), cookie);
    });
}

#[test]
fn a_cookie_does_not_lead_to_a_server_that_is_never_chosen() {
    local(async {
        let (a, b) = (Origin::start(), Origin::start());
        let mut world = World::new();
        let options = json!({"sticky": {"cookie": {"name": "lb"}}});
        let service = world.build("s", balancer(&[(&a.url, 0), (&b.url, 1)], &options)).unwrap();
        let (body, _) = ask(&*service, request(Some(&format!("lb={}", a.url)))).await;
        assert_eq!(body, b.name);
    });
}

#[test]
fn failing_requests_take_a_server_out() {
    local(async {
        let (a, b) = (Origin::start(), Origin::start());
        let mut world = World::new();
        let options = json!({
            "passiveHealthCheck": {"failureWindow": "500ms", "maxFailedAttempts": 1},
        });
        let config = balancer(&[(&a.url, 1), (&b.url, 1)], &options);
        let service = world.build("s", config).unwrap();
        a.answer(500);
        assert_eq!(ask(&*service, request(None)).await.1.status(), 500);
        assert_eq!(world.gauge.value("s@file", &a.url), Some(false));
        let before = a.asked();
        assert_eq!(ask(&*service, request(None)).await.0, b.name);
        a.answer(200);
        until("the gauge is back", || world.gauge.value("s@file", &a.url) == Some(true)).await;
        assert!(service.server_status()[0].1);
        assert_eq!(a.asked(), before);
        ask(&*service, request(None)).await;
        ask(&*service, request(None)).await;
        assert_eq!(a.asked(), before + 1);
        // A passive check alone tells no parent.
        assert!(!service.checks_health());
    });
}

#[test]
fn a_failing_client_is_not_held_against_a_server() {
    let answered = |status| {
        let origin_status = Some(StatusCode::from_u16(status).unwrap());
        failed(&Outcome { origin_status, ..Outcome::default() })
    };
    assert_eq!((answered(200), answered(499)), (Some(false), Some(false)));
    assert_eq!((answered(500), answered(503)), (Some(true), Some(true)));
    let failing = |error| failed(&Outcome { error: Some(error), ..Outcome::default() });
    assert_eq!(failing(ProxyError::ConnectFailed), Some(true));
    assert_eq!(failing(ProxyError::ResponseTimeout), Some(true));
    assert_eq!(failing(ProxyError::ClientGone), None);
    assert_eq!(failing(ProxyError::BadRequestBody), None);
    // A 501 for CONNECT, say, is our own.
    assert_eq!(failed(&Outcome::default()), None);
}

#[test]
fn a_reload_goes_on_where_the_last_one_was() {
    local(async {
        let (a, b) = (Origin::start(), Origin::start());
        let mut world = World::new();
        let config = balancer(&[(&a.url, 1), (&b.url, 1)], &json!({}));
        for turn in 0..6 {
            // Something else changes every time.
            let mut config = config.clone();
            config["loadBalancer"]["passHostHeader"] = json!(turn % 2 == 0);
            let service = world.build("s", config).unwrap();
            let want = if turn % 2 == 0 { &a.name } else { &b.name };
            assert_eq!(ask(&*service, request(None)).await.0, *want);
        }
    });
}

#[test]
fn a_server_stays_out_when_its_service_gains_another() {
    local(async {
        let (a, b) = (nowhere(), Origin::start());
        let mut world = World::new();
        let options = json!({"passiveHealthCheck": {"failureWindow": "1h"}});
        let service = world.build("s", balancer(&[(&a, 1)], &options)).unwrap();
        assert_eq!(ask(&*service, request(None)).await.1.status(), StatusCode::BAD_GATEWAY);
        assert!(!service.is_up());
        let both = [(&*a, 1), (&*b.url, 1)];
        let service = world.build("s", balancer(&both, &options)).unwrap();
        assert!(service.server_status().iter().map(|(_, up)| *up).eq([false, true]));
        for _ in 0..3 {
            assert_eq!(ask(&*service, request(None)).await.0, b.name);
        }
        // Another service has its own opinion, and other settings start afresh.
        let other = world.build("other", balancer(&both, &options)).unwrap();
        assert!(other.server_status()[0].1);
        let options = json!({"passiveHealthCheck": {"failureWindow": "2h"}});
        let service = world.build("s", balancer(&both, &options)).unwrap();
        assert!(service.server_status()[0].1);
        assert_eq!(world.gauge.value("s@file", &a), Some(true));
    });
}

#[test]
fn two_choices_avoid_the_busy_server() {
    local(async {
        let (a, b) = (Origin::start(), Origin::start());
        let mut world = World::new();
        // Weights mean nothing here.
        let config = balancer(&[(&a.url, 0), (&b.url, 1)], &json!({"strategy": "p2c"}));
        let service = world.build("s", config).unwrap();
        let cx = context();
        let held = service.handle(&cx, request(None)).await;
        let busy = if a.asked() == 1 { &a } else { &b };
        // A reload does not forget the request in flight.
        let config = balancer(&[(&a.url, 0), (&b.url, 1)], &json!({"strategy": "p2c"}));
        let service = world.build("s", config).unwrap();
        for _ in 0..20 {
            assert_ne!(ask(&*service, request(None)).await.0, busy.name);
        }
        drop(held);
        let mut tries = 0;
        while ask(&*service, request(None)).await.0 != busy.name {
            tries += 1;
            assert!(tries < 200);
        }
    });
}

#[test]
fn a_request_given_up_is_not_in_flight() {
    let in_flight = Arc::new(InFlight::default());
    let counted = in_flight.enter();
    assert_eq!(in_flight.count(), 1);
    let mut response = Response::new(Body::empty());
    on_end(&mut response, counted);
    assert_eq!(in_flight.count(), 1);
    drop(response);
    assert_eq!(in_flight.count(), 0);
    drop(in_flight.enter());
    assert_eq!(in_flight.count(), 0);
}

/// RP-5.3
#[test]
fn a_client_always_gets_the_same_server() {
    local(async {
        let (a, b, never) = (Origin::start(), Origin::start(), nowhere());
        let mut world = World::new();
        let options = json!({
            "strategy": "hrw",
            "sticky": {"cookie": {"name": "lb"}},
            "passiveHealthCheck": {"failureWindow": "1h", "maxFailedAttempts": 1},
        });
        let config = balancer(&[(&a.url, 1), (&b.url, 1), (&never, 0)], &options);
        let service = world.build("s", config).unwrap();
        assert_eq!(world.warnings[0].option, "loadBalancer.sticky");
        let (first, response) = ask(&*service, request(None)).await;
        assert_eq!(cookie_of(&response), None);
        for _ in 0..4 {
            assert_eq!(ask(&*service, request(None)).await.0, first);
        }
        let (hers, other) = if first == a.name { (&a, &b) } else { (&b, &a) };
        hers.answer(500);
        assert_eq!(ask(&*service, request(None)).await.1.status(), 500);
        assert_eq!(ask(&*service, request(None)).await.0, other.name);
        assert_eq!(service.kind(), Some("HRW"));
    });
}

/// RP-5.3
#[test]
fn the_quickest_server_gets_the_requests() {
    local(async {
        let (a, b, never) = (Origin::start(), Origin::start(), nowhere());
        let mut world = World::new();
        let options = json!({"strategy": "leasttime", "sticky": {"cookie": {"name": "lb"}}});
        let config = balancer(&[(&a.url, 1), (&b.url, 1), (&never, 0)], &options);
        let service = world.build("s", config.clone()).unwrap();
        a.delay(Duration::from_millis(300));
        let (_, response) = ask(&*service, request(None)).await;
        let cookie = cookie_of(&response).unwrap();
        assert_eq!((a.asked(), b.asked()), (1, 0), "the first of equals");
        for _ in 0..4 {
            assert_eq!(ask(&*service, request(None)).await.0, b.name);
        }
        // Who comes with a cookie stays, and says nothing about the times.
        assert_eq!(ask(&*service, request(Some(&cookie))).await.0, a.name);
        // A reload knows what was known.
        let service = world.build("s", config).unwrap();
        assert_eq!(ask(&*service, request(None)).await.0, b.name);
        assert_eq!(service.kind(), Some("LeastTime"));
    });
}

/// Sends attempts of one request until `count` servers have answered.
async fn attempts(service: &dyn Service, cookie: Option<&str>, count: usize) -> Vec<String> {
    let attempts = Attempts::default();
    let mut names = Vec::new();
    for _ in 0..count {
        let mut request = request(cookie);
        request.extensions_mut().insert(attempts.clone());
        names.push(ask(service, request).await.0);
    }
    names
}

/// RP-7.6
#[test]
fn attempts_go_to_every_server_that_is_up_before_one_gets_a_second() {
    local(async {
        let (a, b, c, never) = (Origin::start(), Origin::start(), Origin::start(), nowhere());
        let mut world = World::new();
        let sticky = json!({"cookie": {"name": "lb"}});
        for (at, options) in [
            json!({"strategy": "wrr"}),
            json!({"strategy": "p2c"}),
            json!({"strategy": "hrw"}),
            json!({"strategy": "leasttime"}),
            json!({"strategy": "wrr", "sticky": sticky}),
            json!({"strategy": "leasttime", "sticky": sticky}),
        ]
        .iter()
        .enumerate()
        {
            let mut servers = vec![(&*a.url, 9), (&*b.url, 1), (&*c.url, 1)];
            // Weights mean nothing to p2c.
            if options["strategy"] != "p2c" {
                servers.push((&never, 0));
            }
            let service = world.build(&format!("s{at}"), balancer(&servers, options)).unwrap();
            let cookie = format!("lb={}", b.url);
            let names = attempts(&*service, Some(&cookie), 7).await;
            if options.get("sticky").is_some() {
                assert_eq!(names[0], b.name, "{options}");
            }
            for first in [0, 3] {
                let mut round = names[first..first + 3].to_vec();
                round.sort_unstable();
                round.dedup();
                assert_eq!(round.len(), 3, "{options}: {names:?}");
            }
            assert!(names.windows(2).all(|two| two[0] != two[1]), "{options}: {names:?}");
        }
        // Who is alone is tried again, and who is down is not tried at all.
        let service = world.build("alone", balancer(&[(&a.url, 1)], &json!({}))).unwrap();
        assert_eq!(attempts(&*service, None, 3).await, [&*a.name; 3]);
        let passive = json!({
            "passiveHealthCheck": {"failureWindow": "1h", "maxFailedAttempts": 1},
        });
        let config = balancer(&[(&never, 1), (&a.url, 1)], &passive);
        let service = world.build("down", config).unwrap();
        assert_eq!(ask(&*service, request(None)).await.1.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(attempts(&*service, None, 3).await, [&*a.name; 3]);
    });
}

/// RP-5.3, RP-7.6: that a request may be sent again does not change where it goes first.
#[test]
fn first_attempts_go_in_turns_as_ever() {
    local(async {
        let (a, b) = (Origin::start(), Origin::start());
        let mut world = World::new();
        let config = balancer(&[(&a.url, 3), (&b.url, 2)], &json!({}));
        let plain = world.build("plain", config.clone()).unwrap();
        let retried = world.build("retried", config).unwrap();
        for _ in 0..12 {
            let want = ask(&*plain, request(None)).await.0;
            assert_eq!(attempts(&*retried, None, 1).await, [want]);
        }
    });
}

#[test]
fn an_attempt_elsewhere_moves_no_session() {
    local(async {
        let (a, b) = (Origin::start(), Origin::start());
        let mut world = World::new();
        let options = json!({
            "sticky": {"cookie": {"name": "lb"}},
            "passiveHealthCheck": {"failureWindow": "1h", "maxFailedAttempts": 2},
        });
        let service = world.build("s", balancer(&[(&a.url, 1), (&b.url, 1)], &options)).unwrap();
        let after = |tried: &Origin, cookie: Option<&str>| {
            let mut again = request(cookie);
            let attempts = Attempts::default();
            attempts.note(&tried.url.as_str().into());
            again.extensions_mut().insert(attempts);
            again
        };
        let to_b = ask(&*service, after(&a, None)).await.1;
        let to_a = ask(&*service, after(&b, None)).await.1;
        let (to_a, to_b) = (cookie_of(&to_a).unwrap(), cookie_of(&to_b).unwrap());
        // The server that the cookie names is up, and has only been tried.
        let (body, response) = ask(&*service, after(&a, Some(&to_a))).await;
        assert_eq!((body, cookie_of(&response)), (b.name.clone(), None));
        let (body, response) = ask(&*service, after(&b, Some(&to_a))).await;
        assert_eq!((body, cookie_of(&response)), (a.name.clone(), None));
        // A value of an earlier release is replaced by one that names the same.
        let old = format!("lb={}", a.url);
        let (body, response) = ask(&*service, after(&a, Some(&old))).await;
        assert_eq!((body, cookie_of(&response)), (b.name.clone(), Some(to_a.clone())));
        // Who has none, or one of nobody, belongs to the server that answered.
        for none in [None, Some("lb=forged")] {
            let (body, response) = ask(&*service, after(&a, none)).await;
            assert_eq!((body, cookie_of(&response)), (b.name.clone(), Some(to_b.clone())));
        }
        // Whose server is down moves.
        a.answer(500);
        for _ in 0..2 {
            assert_eq!(ask(&*service, request(Some(&to_a))).await.1.status(), 500);
        }
        let (body, response) = ask(&*service, after(&a, Some(&to_a))).await;
        assert_eq!((body, cookie_of(&response)), (b.name.clone(), Some(to_b)));
    });
}

/// Without checks too, or each of the client's requests would knock at the dead server first.
#[test]
fn a_session_leaves_a_server_that_cannot_be_reached() {
    local(async {
        let (dead, alive) = (nowhere(), Origin::start());
        let mut world = World::new();
        let options = json!({"sticky": {"cookie": {"name": "lb"}}});
        let config = balancer(&[(&dead, 1), (&alive.url, 1)], &options);
        let service = world.build("s", config).unwrap();
        let (_, response) = ask(&*service, request(None)).await;
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        let cookie = cookie_of(&response).unwrap();
        let attempts = Attempts::default();
        for (status, moves) in [(502, false), (200, true)] {
            let mut request = request(Some(&cookie));
            request.extensions_mut().insert(attempts.clone());
            let (_, response) = ask(&*service, request).await;
            assert_eq!(
                (response.status().as_u16(), cookie_of(&response).is_some()),
                (status, moves)
            );
        }
    });
}

/// Nobody takes a server out by asking for what fails.
#[test]
fn how_a_server_failed_is_told_apart() {
    let heard = |error, status: Option<u16>| {
        let origin_status = status.map(|status| StatusCode::from_u16(status).unwrap());
        worked(&Outcome { error, origin_status, ..Outcome::default() })
    };
    for error in [ProxyError::ConnectFailed, ProxyError::ConnectTimeout, ProxyError::UpstreamClosed]
    {
        assert_eq!(heard(Some(error), None), Some(Heard::Nothing), "{error:?}");
    }
    for error in [ProxyError::ResponseTimeout, ProxyError::UpstreamInvalid] {
        assert_eq!(heard(Some(error), None), Some(Heard::Refusal), "{error:?}");
    }
    for (status, want) in [
        (200, Heard::Answer),
        (404, Heard::Answer),
        (500, Heard::Answer),
        (501, Heard::Answer),
        (502, Heard::Refusal),
        (503, Heard::Refusal),
        (504, Heard::Refusal),
    ] {
        assert_eq!(heard(None, Some(status)), Some(want), "{status}");
    }
    assert_eq!(heard(Some(ProxyError::ClientGone), None), None);
    assert_eq!(heard(None, None), None);
}

/// RP-5.3.4: Traefik keeps sending everything to a server that refuses connections: it never learns its time.
#[test]
fn a_dead_server_is_not_the_quickest() {
    local(async {
        let (alive, unfit) = (Origin::start(), Origin::start());
        alive.delay(Duration::from_millis(30));
        unfit.answer(503);
        let mut world = World::new();
        let options = json!({"strategy": "leasttime"});
        let config = balancer(&[(&nowhere(), 1), (&unfit.url, 1), (&alive.url, 1)], &options);
        let service = world.build("s", config.clone()).unwrap();
        let mut failed = 0;
        for _ in 0..12 {
            failed += usize::from(ask(&*service, request(None)).await.0 != alive.name);
        }
        assert_eq!((failed, unfit.asked()), (4, 3), "one of the dead one, three in a row");
        world.profile = Profile::Exact;
        let service = world.build("exact", config).unwrap();
        for _ in 0..9 {
            ask(&*service, request(None)).await;
        }
        assert!(alive.asked() <= 11, "as in Traefik, nearly all go to the dead one");
    });
}
