//! Mirrors with services that do as they are told: who gets a copy, of what, and when.

use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::*;
use crate::exchange::ready;
use crate::service::tests::{Fake, World, ask, context, local, request, until};

fn world() -> (World, Arc<Fake>, Arc<Fake>) {
    let mut world = World::new();
    let (main, mirror) = (Fake::new("main", true), Fake::new("mirror", false));
    world.services.insert("main".to_owned(), Arc::<Fake>::clone(&main));
    world.services.insert("mirror".to_owned(), Arc::<Fake>::clone(&mirror));
    (world, main, mirror)
}

fn mirroring(percent: i64, options: &Value) -> Value {
    let mut config = json!({
        "service": "main",
        "mirrors": [{"name": "mirror", "percent": percent}],
    });
    for (name, value) in options.as_object().unwrap() {
        config[name] = value.clone();
    }
    json!({"mirroring": config})
}

fn with_body(body: &'static str) -> Request {
    let mut request = request(None);
    request.headers_mut().insert(CONTENT_LENGTH, body.len().into());
    *request.body_mut() = Body::from_static(body.as_bytes());
    request
}

/// RP-5.7
#[test]
fn shares_are_exact_and_the_first_request_counts() {
    for (percent, want) in [
        (0, "....................".to_owned()),
        (10, "x.........".repeat(2)),
        (50, "x.".repeat(10)),
        (100, "x".repeat(20)),
    ] {
        let turns = Turns::new(vec![percent]);
        let got: String =
            (0..20).map(|_| if turns.next().is_empty() { '.' } else { 'x' }).collect();
        assert_eq!(got, want, "{percent}");
    }
    let turns = Turns::new(vec![100, 0, 50]);
    assert_eq!((turns.next().to_vec(), turns.next().to_vec()), (vec![0, 2], vec![0]));
}

/// RP-5.7
#[test]
fn a_mirror_gets_the_same_request_and_the_client_the_main_answer() {
    local(async {
        let (mut world, main, mirror) = world();
        mirror.answer(500);
        let service = world.build("m", mirroring(100, &json!({}))).unwrap();
        for body in ["", "payload"] {
            let (answer, response) = ask(&*service, with_body(body)).await;
            assert_eq!((&*answer, response.status().as_u16()), ("main", 200));
            until("the mirror has it", || mirror.requests() == 1).await;
            assert_eq!((main.got(), mirror.got()), (body.to_owned(), body.to_owned()));
        }
    });
}

/// RP-5.7
#[test]
fn a_body_that_is_too_long_is_not_mirrored() {
    local(async {
        let (mut world, main, mirror) = world();
        let service = world.build("m", mirroring(100, &json!({"maxBodySize": 4}))).unwrap();
        ask(&*service, with_body("12345")).await;
        ask(&*service, with_body("1234")).await;
        until("the second is mirrored", || mirror.requests() == 1).await;
        assert_eq!((mirror.got(), main.requests()), ("1234".to_owned(), 2));
    });
}

/// RP-5.7
#[test]
fn a_mirror_may_do_without_the_body() {
    local(async {
        let (mut world, main, mirror) = world();
        let service = world.build("m", mirroring(100, &json!({"mirrorBody": false}))).unwrap();
        ask(&*service, with_body("payload")).await;
        until("it is mirrored", || mirror.requests() == 1).await;
        assert_eq!((main.got(), mirror.got()), ("payload".to_owned(), String::new()));
    });
}

/// RP-5.7
#[test]
fn nothing_is_mirrored_when_the_client_goes_away() {
    local(async {
        let (mut world, main, mirror) = world();
        let service = world.build("m", mirroring(100, &json!({}))).unwrap();
        let cx = context();
        drop(service.handle(&cx, with_body("gone")).await);
        let mut response = service.handle(&cx, with_body("stays")).await;
        // Nothing goes out before the answer is over.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!((main.requests(), mirror.requests()), (2, 0));
        response.body_mut().collect().await.unwrap();
        until("it is mirrored", || mirror.requests() == 1).await;
        assert_eq!(mirror.got(), "stays");
        until("no work is left", || cx.connection.work.count() == 0).await;
        assert_eq!(mirror.requests(), 0);
    });
}

/// Never answers.
struct Silent;

impl Handler for Silent {
    fn handle<'a>(&'a self, _: &'a Context, _: Request) -> ResponseFuture<'a> {
        Box::pin(std::future::pending())
    }
}

impl Service for Silent {
    fn is_up(&self) -> bool {
        true
    }

    fn checks_health(&self) -> bool {
        false
    }
}

#[test]
fn a_mirror_that_never_answers_holds_up_nobody() {
    local(async {
        let (mut world, _, mirror) = world();
        world.services.insert("silent".to_owned(), Arc::new(Silent));
        let mirrors =
            json!([{"name": "silent", "percent": 100}, {"name": "mirror", "percent": 100}]);
        let service = world.build("m", mirroring(100, &json!({"mirrors": mirrors}))).unwrap();
        let cx = context();
        for sent in 1..=300 {
            let response = service.handle(&cx, with_body("x")).await;
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "main");
            until("the other mirror has it", || mirror.requests() == sent).await;
        }
        until("only so many are on their way", || cx.connection.work.count() == 256).await;
        // A shutdown does not wait for ever.
        cx.connection.work.cut();
        until("the copies are given up", || cx.connection.work.count() == 0).await;
    });
}

/// What a client's connection counts for, and its end, are no mirror's business.
#[test]
fn a_slow_mirror_holds_nothing_of_the_clients_connection() {
    local(async {
        let (mut world, ..) = world();
        world.services.insert("mirror".to_owned(), Arc::new(Silent));
        let service = world.build("m", mirroring(100, &json!({}))).unwrap();
        let seat: Arc<dyn std::any::Any + Send + Sync> = Arc::new("a seat");
        let mut cx = context();
        let connection = Arc::get_mut(&mut cx.connection).unwrap();
        let work = connection.work.clone();
        connection.work = work.keeping(&seat);
        let response = service.handle(&cx, with_body("x")).await;
        response.into_body().collect().await.unwrap();
        until("the mirror is asked", || Arc::strong_count(&cx.connection) > 1).await;
        let tunnel = cx.connection.work.begin();
        drop(cx);
        let weak = Arc::downgrade(&seat);
        drop(seat);
        assert!(weak.upgrade().is_some(), "a tunnel has it");
        drop(tunnel);
        assert!(weak.upgrade().is_none() && work.count() > 0, "the mirror has nothing");
    });
}

/// RP-5.7.6
#[test]
fn a_mirror_that_never_answers_is_given_up() {
    local(async {
        let (mut world, ..) = world();
        world.services.insert("mirror".to_owned(), Arc::new(Silent));
        let service = world.build("m", mirroring(100, &json!({}))).unwrap();
        let cx = context();
        let response = service.handle(&cx, with_body("x")).await;
        response.into_body().collect().await.unwrap();
        tokio::time::pause();
        let start = tokio::time::Instant::now();
        while cx.connection.work.count() > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let took = start.elapsed();
        assert!((LONGEST_HEAD..LONGEST_HEAD * 2).contains(&took), "{took:?}");
    });
}

/// Switches protocols, or says what it was asked.
struct Switching(StatusCode);

impl Handler for Switching {
    fn handle<'a>(&'a self, _: &'a Context, request: Request) -> ResponseFuture<'a> {
        let upgrade =
            request.headers().get(UPGRADE).map_or("none", |value| value.to_str().unwrap());
        let mut response = Response::new(Body::from(upgrade.to_owned()));
        *response.status_mut() = self.0;
        ready(response)
    }
}

impl Service for Switching {
    fn is_up(&self) -> bool {
        true
    }

    fn checks_health(&self) -> bool {
        false
    }
}

#[test]
fn tunnels_are_not_mirrored() {
    local(async {
        let (mut world, _, mirror) = world();
        for (status, mirrored) in [(101, 0), (200, 1)] {
            let main = Switching(StatusCode::from_u16(status).unwrap());
            world.services.insert("main".to_owned(), Arc::new(main));
            let service = world.build("m", mirroring(100, &json!({}))).unwrap();
            let mut request = request(None);
            request.headers_mut().insert(UPGRADE, "websocket".parse().unwrap());
            let cx = context();
            let response = service.handle(&cx, request).await;
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "websocket");
            until("no work is left", || cx.connection.work.count() == 0).await;
            assert_eq!(mirror.requests(), mirrored);
        }
    });
}

/// RP-5.7: health is that of the main service, and only told when it is asked for.
#[test]
fn health_is_the_main_services() {
    let (mut world, main, _) = world();
    let told = world.build("told", mirroring(0, &json!({"healthCheck": {}}))).unwrap();
    let silent = world.build("silent", mirroring(0, &json!({}))).unwrap();
    assert!(told.checks_health() && !silent.checks_health());
    main.set(false);
    assert!(!told.is_up() && silent.is_up());
    let weighted =
        |name: &str| json!({"weighted": {"services": [{"name": name}], "healthCheck": {}}});
    assert!(!world.build("above", weighted("told")).unwrap().is_up());
    let (_, message) = world.error(weighted("silent"));
    assert!(message.ends_with("healthCheck not enabled in config for this mirroring service"));
}

#[test]
fn what_cannot_be_built_names_the_option() {
    let (mut world, ..) = world();
    for percent in [-1, 101] {
        let (option, message) = world.error(mirroring(percent, &json!({})));
        assert_eq!(option, "mirroring.mirrors[0].percent");
        assert_eq!(message, "percent must be between 0 and 100");
    }
    let missing = json!({"mirrors": [{"name": "mirror"}, {"name": "gone"}]});
    assert_eq!(world.error(mirroring(0, &missing)).0, "mirroring.mirrors[1].name");
    assert_eq!(world.error(json!({"mirroring": {}})).0, "mirroring.service");
}
