//! `ban`: whoever offends too often is turned away by every router that names the middleware, and
//! a reload frees nobody.

use serde_json::json;

use crate::harness::binary::Process;
use crate::harness::{Ask, Client, Origin, Proxy, Reply, until};

fn config(origin: &Origin, ban: &str) -> String {
    format!(
        "
        http:
          routers:
            one: {{rule: 'Host(`one.test`)', service: app, middlewares: [jail]}}
            two: {{rule: 'Host(`two.test`)', service: app, middlewares: [jail, login]}}
            free: {{rule: 'Host(`free.test`)', service: app}}
          middlewares:
            jail: {{ban: {ban}}}
            login: {{basicAuth: {{users: ['user:$apr1$salt$nothing']}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url()
    )
}

const JAIL: &str = "{threshold: 3, duration: 1h, conditions: [{status: ['401']}]}";

#[test]
fn bans_are_shared_by_routers_and_outlive_reloads() {
    let origin = Origin::with(|_| Reply::ok("open"));
    let proxy = Proxy::start(&config(&origin, JAIL));
    // To be asked for credentials is no offence, wrong ones are.
    for _ in 0..4 {
        assert_eq!(proxy.get("two.test/").status, 401);
    }
    let guess = Ask::get("two.test/").header("Authorization", "Basic dXNlcjpndWVzcw==");
    for _ in 0..3 {
        assert_eq!(proxy.get("one.test/").status, 200);
        assert_eq!(proxy.send(&guess).status, 401);
    }
    for place in ["one.test/", "two.test/"] {
        let answer = proxy.get(place);
        assert_eq!((answer.status, &*answer.text()), (403, "Forbidden"));
        let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((3500..=3600).contains(&wait), "{wait}");
    }
    assert_eq!(proxy.get("free.test/").status, 200);
    let counted = |name: &str| proxy.metric(&format!("{name}{{middleware=\"jail@file\"}}"));
    assert_eq!((counted("doorward_bans_total"), counted("doorward_banned")), (1.0, 1.0));

    // Whatever changes, as long as the name is there.
    let other = "{threshold: 50, duration: 1s, rejectStatusCode: 429, conditions: [{path: x}]}";
    for (text, status) in [
        (
            config(&origin, JAIL)
                + "    other: {loadBalancer: {servers: [{url: 'http://127.0.0.1:1'}]}}",
            403,
        ),
        (config(&origin, other), 429),
        (config(&origin, "{threshold: 0}"), 503),
        (config(&origin, JAIL), 403),
    ] {
        proxy.reload(&text);
        assert_eq!(proxy.get("one.test/").status, status, "{text}");
    }
    // Without it they are gone.
    let without = config(&origin, JAIL).replace("jail", "cell");
    proxy.reload(&without);
    assert_eq!(proxy.get("one.test/").status, 200);
    until("the list is gone", || counted("doorward_bans_total") < 1.0);
}

#[test]
fn a_request_that_is_enough_by_itself_and_an_allowed_one() {
    let origin = Origin::with(|_| Reply::ok("open"));
    let ban = "{threshold: 1, conditions: [{path: '\\.env$', method: [GET]}]}";
    let proxy = Proxy::start(&config(&origin, ban));
    assert_eq!(proxy.send(&Ask::post("one.test/.env", "")).status, 200);
    assert_eq!(proxy.get("one.test/%2eenv").status, 200);
    assert_eq!(proxy.get("one.test/").status, 403);
    let allowed = ban.replace("threshold", "allow: [127.0.0.0/8], threshold");
    proxy.reload(&config(&origin, &allowed));
    for _ in 0..3 {
        assert_eq!(proxy.get("one.test/.env").status, 200);
    }
}

#[test]
fn the_log_tells_of_bans_and_their_end() {
    let origin = Origin::with(|_| Reply::ok("open"));
    let ban = "{threshold: 1, duration: 1s, conditions: [{path: bad}]}";
    let process = Process::start(&json!({}), &config(&origin, ban));
    let ask = |place: &str| {
        Client::connect(process.address("web")).unwrap().send(&Ask::get(place)).unwrap().status
    };
    assert_eq!(ask("one.test/bad"), 200);
    assert_eq!(ask("one.test/"), 403);
    until("the ban is over", || ask("one.test/") == 200);
    let told = |message: &str| {
        let log = process.log();
        let line = log.lines().find(|line| line.contains(&format!("\"message\":\"{message}\"")));
        line.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
    };
    until("the end of the ban is told", || told("unbanned").is_some());
    let (banned, unbanned) = (told("banned").unwrap(), told("unbanned").unwrap());
    for line in [&banned, &unbanned] {
        assert_eq!(
            (&line["level"], &line["middlewareName"], &line["source"]),
            (&json!("warn"), &json!("jail@file"), &json!("127.0.0.1"))
        );
    }
    assert_eq!((&banned["duration"], &banned["offences"]), (&json!("1s"), &json!(1)));
}
