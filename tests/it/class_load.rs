//! What costs more than it should: patterns, rules, bodies, retries, and tunnels that stay open (G-39, G-42 to G-44, G-46,
//! G-69, G-70).

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::harness::client::socket;
use crate::harness::{Answer, Ask, Client, NOBODY, Origin, Proxy, Reply, until};
use crate::wire::{echoed, websocket, websocket_echo};

/// A router for everything through `middleware`, in front of these servers.
fn through(middleware: &str, urls: &[&str]) -> String {
    let servers: Vec<_> = urls.iter().map(|url| format!("{{url: '{url}'}}")).collect();
    let servers = servers.join(", ");
    format!(
        "
        http:
          routers:
            all: {{rule: PathPrefix(`/`), service: app, middlewares: [one]}}
          middlewares:
            one: {{{middleware}}}
          services:
            app: {{loadBalancer: {{servers: [{servers}]}}}}
        "
    )
}

/// G-39: a body whose length nobody has said is counted while it comes: what is too much is refused then, and neither
/// read on nor passed on as if it were whole.
#[test]
fn a_body_of_unknown_length_is_cut_at_its_limit() {
    let reached = Arc::new(AtomicUsize::new(0));
    let whole = Arc::new(AtomicUsize::new(0));
    let (bytes, ends) = (Arc::clone(&reached), Arc::clone(&whole));
    let app = Origin::raw(move |mut stream: TcpStream, _| {
        let mut buffer = vec![0; 65536];
        let mut last = Vec::new();
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            bytes.fetch_add(length, Ordering::AcqRel);
            last.extend_from_slice(&buffer[..length]);
            last.drain(..last.len().saturating_sub(5));
            if last == b"0\r\n\r\n" {
                ends.fetch_add(1, Ordering::AcqRel);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    let buffered =
        Proxy::start(&through("buffering: {maxRequestBodyBytes: 1048576}", &[&app.url()]));
    let limited = "addPrefix: {prefix: /x}";
    let limited = through(limited, &[&app.url()])
        .replace("service: app,", "service: app, requestBody: {maxBytes: 1048576},");
    let limited = Proxy::start(&limited);
    for (what, proxy, passes_on) in
        [("buffering", &buffered, false), ("requestBody", &limited, true)]
    {
        let before = reached.load(Ordering::Acquire);
        let stream = socket(proxy.address("web")).unwrap();
        let mut upload = stream.try_clone().unwrap();
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let uploading = std::thread::spawn(move || {
            let head = b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
            let chunk = [&b"4000\r\n"[..], &[b'x'; 0x4000], b"\r\n"].concat();
            if upload.write_all(head).is_err() {
                return;
            }
            for _ in 0..(64 << 20) / 0x4000 {
                if upload.write_all(&chunk).is_err() {
                    return;
                }
                count.fetch_add(0x4000, Ordering::AcqRel);
            }
        });
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"), "{what}: {answer}");
        // What was underway is in the buffers of both ends; nobody reads the other sixty megabytes.
        uploading.join().unwrap();
        let sent = sent.load(Ordering::Acquire);
        assert!(sent < 16 << 20, "{what}: {sent} bytes were taken");
        let passed = reached.load(Ordering::Acquire) - before;
        assert!(passed <= (1 << 20) + (64 << 10), "{what}: {passed}");
        assert!(passes_on || passed == 0, "{what}: {passed}");
        drop(stream);
    }
    assert_eq!(whole.load(Ordering::Acquire), 0, "no server has seen a whole body");
    let fits = Ask::post("/x", vec![b'x'; 1000]).chunked();
    assert_eq!(limited.send(&fits).status, 200);
    assert_eq!(whole.load(Ordering::Acquire), 1);
}

/// Patterns on which an engine that tries again and again never comes to an end, each with what it is fed with.
const EVIL: [(&str, &str); 10] = [
    ("^/(a+)+$", "a"),
    ("^/(a|a)*$", "a"),
    ("^/(a|aa)+$", "a"),
    ("^/([a-z]+)*9$", "a"),
    ("^/(.*a){20}$", "a"),
    ("^/(.*)*x$", "a"),
    ("^/((a*)*)*$", "a"),
    ("^/a*a*a*a*a*a*a*a*b$", "a"),
    ("^/(([a-z])+.)+[A-Z]([a-z])+$", "a"),
    ("(x+x+)+y", "x"),
];

/// G-42: the time that a pattern takes grows with the text and no faster, in rules and in middlewares. A target has at
/// most 65,534 bytes here, so that only the header has 100,000.
#[test]
fn evil_patterns_take_linear_time() {
    let app = Origin::start();
    let mut text = "http:\n  routers:\n".to_owned();
    let mut middlewares = String::new();
    for (number, (pattern, _)) in EVIL.iter().enumerate() {
        let host = format!("Host(`{number}.test`)");
        let _ = writeln!(
            text,
            "    p{number}: {{rule: '{host} && PathRegexp(`{pattern}`)', service: app}}"
        );
        let _ = writeln!(
            text,
            "    h{number}: {{rule: 'HostRegexp(`{pattern}`) && Path(`/h{number}`)', service: app}}"
        );
        let _ = writeln!(
            text,
            "    f{number}: {{rule: '{host} && HeaderRegexp(`X-A`, `{pattern}`)', service: app}}"
        );
        let _ = writeln!(
            text,
            "    m{number}: {{rule: Host(`m{number}.test`), service: app, middlewares: [r{number}, s{number}, d{number}]}}"
        );
        let _ = writeln!(
            middlewares,
            "    r{number}: {{replacePathRegex: {{regex: '{pattern}', replacement: /r}}}}"
        );
        let _ =
            writeln!(middlewares, "    s{number}: {{stripPrefixRegex: {{regex: ['{pattern}']}}}}");
        let _ = writeln!(
            middlewares,
            "    d{number}: {{redirectRegex: {{regex: '{pattern}', replacement: /d}}}}"
        );
    }
    let text = text
        + "  middlewares:\n"
        + &middlewares
        + &format!(
            "  services: {{app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}\n",
            app.url()
        );
    let proxy = Proxy::with(json!({"entryPoints": {"web": {"http": {"maxHeaderBytes": 1 << 20}}}}))
        .start(&text);
    assert!(proxy.api("/api/http/routers?status=disabled").as_array().unwrap().is_empty());
    let mut client = proxy.client();
    let mut time = |ask: &Ask| {
        // The best of some: others are at work here.
        let times = (0..5).map(|_| {
            let start = Instant::now();
            let status = client.send(ask).unwrap().status;
            assert!(matches!(status, 200 | 302 | 404), "{status}");
            start.elapsed()
        });
        times.min().unwrap()
    };
    for (number, (pattern, letter)) in EVIL.iter().enumerate() {
        for host in [format!("{number}.test"), format!("m{number}.test")] {
            let long = |length: usize| {
                let (path, field) = (letter.repeat(length * 6 / 10), letter.repeat(length));
                Ask::get(&host).target(&format!("/{path}!")).header("X-A", &format!("/{field}!"))
            };
            // Ten times as much is ten times the work, or a hundred where it is searched from every place on;
            // exponential is more than there is.
            let (short, whole) = (time(&long(10_000)), time(&long(100_000)));
            let most = Duration::from_millis(5).max(short) * 100;
            assert!(whole < most, "{pattern} at {host}: {short:?}, {whole:?}");
        }
    }
}

/// G-43: a pattern that would become a huge program is refused when it is configured, soon, and the others are served.
#[test]
fn patterns_that_explode_are_refused_at_once() {
    let app = Origin::start();
    let text = |patterns: &[&str]| {
        let mut text =
            "http:\n  routers:\n    good: {rule: Host(`good.test`), service: app}\n".to_owned();
        for (number, pattern) in patterns.iter().enumerate() {
            let rule = format!("Host(`b.test`) && PathRegexp(`{pattern}`)");
            let _ = writeln!(text, "    p{number}: {{rule: '{rule}', service: app}}");
        }
        let server = format!("{{loadBalancer: {{servers: [{{url: '{}'}}]}}}}", app.url());
        let _ = writeln!(text, "  services: {{app: {server}}}");
        text
    };
    let proxy = Proxy::start(&text(&["^/ok$"]));
    assert_eq!((proxy.get("good.test/").status, proxy.get("b.test/ok").status), (200, 200));
    let deep = "(".repeat(5000) + "a" + &")".repeat(5000);
    let bombs =
        ["a{1000}{1000}", "((a{100}){100}){100}", "(a{0,1000}){1000}", "(\\pL{1000}){0,1}", &deep];
    let start = Instant::now();
    proxy.reload(&text(&bombs));
    // An optimised build needs a hundredth of this.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let refused = proxy.api("/api/http/routers?status=disabled");
    assert_eq!(refused.as_array().unwrap().len(), bombs.len(), "{refused:#}");
    assert_eq!(proxy.get("good.test/").status, 200);
    assert_eq!(proxy.get("b.test/ok").status, 503, "what was guarded by a pattern is not open");
}

/// G-44: how many routers there are makes no difference to a request, and a rule that nests deeply is refused or
/// served, whatever it says.
#[test]
fn many_routers_and_deep_rules_cost_nothing() {
    let app = Origin::start();
    let services =
        format!("  services: {{app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}\n", app.url());
    let routers = |count: usize| {
        let mut text = "http:\n  routers:\n".to_owned();
        for number in 0..count {
            let _ = writeln!(text, "    r{number}: {{rule: Host(`t{number}.test`), service: app}}");
        }
        text + &services
    };
    let (few, many) = (Proxy::start(&routers(10)), Proxy::start(&routers(10_000)));
    let mut clients = [few.client(), many.client()];
    let asks = [
        [Ask::get("t0.test/"), Ask::get("t9.test/"), Ask::get("nobody.test/")],
        [Ask::get("t0.test/"), Ask::get("t9999.test/"), Ask::get("nobody.test/")],
    ];
    let mut times = [(); 2].map(|()| Vec::new());
    // In turns, so that whatever else happens here happens to both.
    for _ in 0..200 {
        for ((client, asks), times) in clients.iter_mut().zip(&asks).zip(&mut times) {
            for ask in asks {
                let start = Instant::now();
                client.send(ask).unwrap();
                times.push(start.elapsed());
            }
        }
    }
    let [few, many] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    assert!(many < few * 3 / 2 + Duration::from_micros(200), "{few:?} of 10, {many:?} of 10,000");

    let path = "PathPrefix(`/`)";
    let wide = vec![path; 2000];
    let deep = [
        "(".repeat(20_000) + path + &")".repeat(20_000),
        "!".repeat(20_000) + path,
        "!(".repeat(10_000) + path + &")".repeat(10_000),
        "(".repeat(20_000),
        format!("{path} && (").repeat(10_000) + path + &")".repeat(10_000),
        format!("({path} || ").repeat(10_000) + path + &")".repeat(10_000),
        wide.join(" && "),
        wide.join(" || "),
    ];
    let mut text =
        "http:\n  routers:\n    good: {rule: Host(`good.test`), service: app}\n".to_owned();
    for (number, rule) in deep.iter().enumerate() {
        let _ = writeln!(
            text,
            "    d{number}: {{rule: 'Host(`d{number}.test`) && {rule}', service: app}}"
        );
    }
    let start = Instant::now();
    let proxy = Proxy::start(&(text + &services));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    for number in 0..deep.len() {
        let status = proxy.get(&format!("d{number}.test/")).status;
        assert!(matches!(status, 200 | 404 | 503), "{number}: {status}");
    }
    assert_eq!(proxy.get("d7.test/").status, 200, "a long one is no deep one");
    assert_eq!(proxy.get("good.test/").status, 200);
}

/// G-46: tunnels outlive reloads, those of their own router too, and none is left when both sides have gone. Of the
/// ten thousand and the hundred that are asked for, 300 and 10: both ends of all of them are in this process.
#[test]
fn tunnels_outlive_reloads() {
    const TUNNELS: usize = 300;
    let bus = websocket_echo();
    let text = |path: &str, more: &str| {
        format!(
            "
            http:
              routers:
                bus: {{rule: PathPrefix(`{path}`), service: app}}{more}
              services:
                app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            ",
            bus.url()
        )
    };
    let proxy = Proxy::start(&text("/", ""));
    let mut open: Vec<_> = (0..TUNNELS)
        .map(|_| websocket(socket(proxy.address("web")).unwrap(), "ws://ws.test/bus"))
        .collect();
    for round in 0..10 {
        let more =
            format!("\n                r{round}: {{rule: Host(`r{round}.test`), service: app}}");
        // The last ones take the router away that the tunnels have come through.
        proxy.reload(&text(if round < 5 { "/" } else { "/elsewhere" }, &more));
        for tunnel in open.iter_mut().skip(round).step_by(10) {
            echoed(tunnel, "still here");
        }
    }
    for tunnel in &mut open {
        echoed(tunnel, "and now");
    }
    assert_eq!(bus.connections(), TUNNELS, "none was opened anew");
    let count = || proxy.metric("traefik_open_connections{entrypoint=\"web\",protocol=\"TCP\"}");
    assert!(count() >= 300.0, "{}", count());
    // Some say farewell, some only have no more to say, and some just go.
    for (number, tunnel) in open.iter_mut().enumerate() {
        match number % 3 {
            0 => {
                tunnel.close(None).unwrap();
                while tunnel.read().is_ok() {}
                tunnel.get_ref().shutdown(Shutdown::Write).unwrap();
            }
            1 => tunnel.get_ref().shutdown(Shutdown::Write).unwrap(),
            _ => tunnel.get_ref().shutdown(Shutdown::Both).unwrap(),
        }
    }
    until("every tunnel has gone, on both sides", || count() < 1.0);
}

/// G-69: a service that fails gets a fifth more requests by retries and a reserve, not several times as many, unless
/// the profile is `exact`.
#[test]
fn retries_do_not_multiply() {
    let failing = Origin::with(|_| Reply::status(503));
    let ask = |profile: &str, budget: &str| {
        let before = failing.count();
        let retry =
            format!("retry: {{attempts: 4, status: ['503'], initialInterval: 1ms{budget}}}");
        let proxy = Proxy::with(json!({"core": {"profile": profile}}));
        let proxy = proxy.start(&through(&retry, &[&failing.url()]));
        let mut client = proxy.client();
        for _ in 0..500 {
            assert_eq!(client.send(&Ask::get("/")).unwrap().status, 503);
        }
        failing.count() - before
    };
    assert_eq!(ask("exact", ""), 2000, "as in Traefik");
    for profile in ["safe", "hardened"] {
        let sent = ask(profile, "");
        assert!((600..=700).contains(&sent), "{profile}: {sent}");
    }
    let sent = ask("safe", ", budget: {percent: 20, minPerSecond: 0}");
    assert!((500..=600).contains(&sent), "{sent}");
}

/// Reads a request of `length` bytes of body, or as many of them as it wants.
fn read_request(stream: &TcpStream, wants: usize) -> Option<Vec<u8>> {
    let mut input = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length.min(wants)];
    input.read_exact(&mut body).ok()?;
    Some(body)
}

/// G-70: a body that is sent a second time is the same body, or there is no second time.
#[test]
fn a_body_is_sent_again_whole_or_not_at_all() {
    let body: Vec<u8> = (0..1_u32 << 18)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect();
    assert_eq!(body.len(), 1 << 20);
    let hash = Sha256::digest(&body);
    // Dies before it has read anything, in the middle, and behind the whole of it.
    for wants in [0, 300_000, 1 << 20] {
        let dying = Origin::raw(move |stream, _| drop(read_request(&stream, wants)));
        let whole = Origin::start();
        let ask = |middleware: &str, method: &str| {
            let proxy = Proxy::start(&through(middleware, &[&dying.url(), &whole.url()]));
            let before = (dying.connections(), whole.count());
            let mut answer = Answer::default();
            // One of the two comes to the dying one first.
            for _ in 0..2 {
                let mut client = Client::connect(proxy.address("web")).unwrap();
                let ask = Ask::new(method, "/").with_body(body.clone());
                match client.send(&ask) {
                    Ok(got) if got.status == 200 && dying.connections() == before.0 => {}
                    Ok(got) => {
                        answer = got;
                        break;
                    }
                    Err(_) => break,
                }
            }
            (answer.status, dying.connections() - before.0, whole.count() - before.1)
        };
        let retry = "retry: {attempts: 3, status: ['502'], maxRequestBodyBytes: 2097152}";
        let (status, died, served) = ask(retry, "PUT");
        assert_eq!(status, 200, "{wants}: sent again");
        assert!(died == 1 && served >= 1, "{wants}: {died}, {served}");
        assert!(whole.all().iter().all(|seen| Sha256::digest(&seen.body) == hash), "{wants}");
        // Not kept, and so not sent again once it was begun.
        let unkept = "retry: {attempts: 3, status: ['502'], maxRequestBodyBytes: 1000}";
        let before = whole.count();
        let (status, died, served) = ask(unkept, "PUT");
        assert!(
            died == 1 && (status == 502 || status == 0 || status == 413),
            "{wants}: {status}, {died}"
        );
        assert!(served <= 1, "{wants}");
        assert!(whole.all()[before..].iter().all(|seen| Sha256::digest(&seen.body) == hash));
        // A POST may have been seen: once is enough.
        let (status, died, _) = ask(retry, "POST");
        assert!(died == 1 && status != 200, "{wants}: {status}");
    }
    // Nobody listens: nothing was read, and everything can go to the next one.
    let whole = Origin::start();
    let proxy = Proxy::start(&through("retry: {attempts: 3}", &[NOBODY, &whole.url()]));
    for _ in 0..4 {
        let answer = proxy.send(&Ask::post("/", body.clone()));
        assert_eq!((answer.status, Sha256::digest(&answer.body)), (200, hash));
    }
}
