//! Floods over HTTP/2: a polite second client does not notice, whoever floods is thrown out, and whoever does much that
//! is worth something is not.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::harness::client::socket;
use crate::harness::flood::frames::*;
use crate::harness::flood::{Attack, withstand};
use crate::harness::{Origin, Proxy, Reply, everything_to, until};

/// One worker, so that attacker and judge meet.
fn proxy(origin: &Origin) -> Proxy {
    Proxy::with(json!({"core": {"workers": 1}})).start(&everything_to(&origin.url()))
}

fn hits(proxy: &Proxy, limit: &str) -> f64 {
    proxy.metric(&format!("doorward_limits_total{{limit=\"{limit}\"}}"))
}

/// Says the same for as long as it may, on a connection with one open request.
fn endless(attack: &mut Attack, wave: &[u8]) -> io::Result<()> {
    let mut stream = attack.connect()?;
    attack.say(&mut stream, &opening(&[]))?;
    attack.say(&mut stream, &post(1))?;
    loop {
        attack.say(&mut stream, wave)?;
    }
}

/// Says something for each stream in turn.
fn streams(
    attack: &mut Attack,
    settings: &[(u16, u32)],
    each: impl Fn(u32) -> Vec<u8>,
) -> io::Result<()> {
    let mut stream = attack.connect()?;
    attack.say(&mut stream, &opening(settings))?;
    let mut number = 1;
    loop {
        let mut wave = Vec::new();
        while wave.len() < 4096 {
            wave.extend(each(number));
            number += 2;
        }
        attack.say(&mut stream, &wave)?;
    }
}

/// G-25, T-11, V-21: frames that bring no request.
#[test]
fn frames_without_use_do_not_hurt_others() {
    let origin = Origin::start();
    let proxy = proxy(&origin);
    let (to, mut polite) = (proxy.address("web"), proxy.client());
    for (name, frame) in useless() {
        let wave = frame.repeat(4096 / frame.len());
        withstand(name, &mut polite, to, |attack| endless(attack, &wave));
    }
    // A body, but a tenth of what is said.
    let wave = frame(DATA, 0, 1, b"x").repeat(400);
    withstand("bytes one by one", &mut polite, to, |attack| endless(attack, &wave));
    withstand("empty HEADERS", &mut polite, to, |attack| {
        streams(attack, &[], |number| frame(HEADERS, END_HEADERS, number, b""))
    });
    withstand("CONTINUATION", &mut polite, to, |attack| {
        let mut stream = attack.connect()?;
        attack.say(&mut stream, &opening(&[]))?;
        attack.say(&mut stream, &frame(HEADERS, 0, 1, &block(false)))?;
        let wave = frame(CONTINUATION, 0, 1, b"\x82").repeat(400);
        loop {
            attack.say(&mut stream, &wave)?;
        }
    });
    assert!(proxy.metric("doorward_limits_total{limit=\"http2.frames\"}") > 0.0);
}

fn useless() -> [(&'static str, Vec<u8>); 6] {
    [
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("PRIORITY", frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 16])),
        ("WINDOW_UPDATE", window(0, 1)),
        ("empty DATA", frame(DATA, 0, 1, b"")),
        ("an unknown frame", frame(0x42, 0, 0, b"")),
    ]
}

/// V-19, V-23, G-26: streams that come to nothing.
#[test]
fn streams_that_come_to_nothing_do_not_hurt_others() {
    let origin = Origin::start();
    let proxy = proxy(&origin);
    let (to, mut polite) = (proxy.address("web"), proxy.client());
    withstand("rapid reset", &mut polite, to, |attack| {
        streams(attack, &[], |number| [get(number), reset(number)].concat())
    });
    withstand("rapid reset, a turn later", &mut polite, to, |attack| {
        let mut stream = attack.connect()?;
        attack.say(&mut stream, &opening(&[]))?;
        for number in (1..).step_by(2) {
            attack.say(&mut stream, &get(number))?;
            attack.say(&mut stream, &reset(number))?;
        }
        Ok(())
    });
    withstand("MadeYouReset", &mut polite, to, |attack| {
        few_streams(attack, |number| [get(number), overflow(number)].concat())
    });
    // Few that reach the server, which is a thread for each in this process; the others are refused.
    let options = json!({
        "core": {"workers": 1}, "entryPoints": {"web": {"http2": {"maxConcurrentStreams": 20}}},
    });
    let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
    let (to, mut polite) = (proxy.address("web"), proxy.client());
    withstand("streams beyond the limit", &mut polite, to, |attack| streams(attack, &[], post));
}

/// Each of them is a thread of the server's, in this process: 500 of them in a second.
fn few_streams(attack: &mut Attack, each: impl Fn(u32) -> Vec<u8>) -> io::Result<()> {
    let mut stream = attack.connect()?;
    attack.say(&mut stream, &opening(&[]))?;
    for number in (1..).step_by(20) {
        let wave: Vec<u8> = (number..number + 20).step_by(2).flat_map(&each).collect();
        attack.say(&mut stream, &wave)?;
        attack.wait(10_000)?;
    }
    Ok(())
}

/// Opens the window of a stream beyond all bounds, for which we have to reset it (RFC 9113, 6.9.1).
fn overflow(stream: u32) -> Vec<u8> {
    window(stream, (1 << 31) - 1)
}

/// V-24, G-27: large heads, and windows that are shut or open by a byte.
#[test]
fn bombs_and_windows_do_not_hurt_others() {
    let origin = Origin::with(|_| Reply::ok(vec![7; 1 << 16]));
    let judge = Origin::start();
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&format!(
        "
        http:
          routers:
            large: {{rule: 'Header(`x`, `y`)', service: large}}
            all: {{rule: PathPrefix(`/`), service: app}}
          services:
            large: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url(),
        judge.url()
    ));
    let (to, mut polite) = (proxy.address("web"), proxy.client());
    withstand("HPACK references", &mut polite, to, |attack| {
        let mut stream = attack.connect()?;
        attack.say(&mut stream, &opening(&[(INITIAL_WINDOW, 0)]))?;
        for number in (1..).step_by(2) {
            attack.say(&mut stream, &bomb(number, "x-a", 2000))?;
            // In debug builds a reference takes ten times as long: 50 heads in a second.
            attack.wait(8000)?;
        }
        Ok(())
    });
    withstand("cookie crumbs", &mut polite, to, |attack| {
        let mut stream = attack.connect()?;
        attack.say(&mut stream, &opening(&[(INITIAL_WINDOW, 0)]))?;
        for number in (1..).step_by(2) {
            attack.say(&mut stream, &bomb(number, "cookie", 2000))?;
            // In debug builds a reference takes ten times as long: 50 heads in a second.
            attack.wait(8000)?;
        }
        Ok(())
    });
    withstand("windows of one byte", &mut polite, to, |attack| {
        let mut stream = attack.connect()?;
        attack.say(&mut stream, &opening(&[(INITIAL_WINDOW, 0)]))?;
        for number in (1..40).step_by(2) {
            attack.say(&mut stream, &large(number))?;
        }
        loop {
            let wave: Vec<u8> = (1..40).step_by(2).flat_map(|number| window(number, 1)).collect();
            attack.say(&mut stream, &wave)?;
        }
    });
    withstand("windows that stay shut", &mut polite, to, |attack| {
        let mut stream = attack.connect()?;
        attack.say(&mut stream, &opening(&[(INITIAL_WINDOW, 0)]))?;
        for number in (1..400).step_by(2) {
            attack.say(&mut stream, &large(number))?;
            // Each of them makes the server in this process write as much as it can: 100 of them in a second.
            attack.wait(5000)?;
        }
        loop {
            attack.wait(5000)?;
        }
    });
}

/// A request for something large.
fn large(stream: u32) -> Vec<u8> {
    let mut block = block(false);
    block.extend(b"\x00\x01x\x01y");
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

/// A head with one field in the table and `count` references to it, a byte each.
fn bomb(stream: u32, name: &str, count: usize) -> Vec<u8> {
    let mut head = block(false);
    head.extend([0x40, u8::try_from(name.len()).unwrap()]);
    head.extend(name.as_bytes());
    head.extend(b"\x01v");
    head.resize(head.len() + count, 0xbe);
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)
}

/// Says all of it unless it is thrown out: what it could say, how long that took, and what it was told.
fn thrown_out(
    to: SocketAddr,
    begin: &[u8],
    wave: &[u8],
    count: usize,
) -> (usize, Duration, Option<u32>) {
    let mut stream = socket(to).unwrap();
    let mut hears = stream.try_clone().unwrap();
    let told = std::thread::spawn(move || farewell(&mut hears));
    let start = Instant::now();
    let mut said = 0;
    let all = wave.repeat(1000);
    if stream.write_all(begin).is_ok() {
        for _ in 0..count / 1000 {
            if stream.write_all(&all).is_err() {
                break;
            }
            said += all.len();
        }
    }
    let told = told.join().unwrap();
    (said, start.elapsed(), told)
}

/// G-25, T-11: 100 000 of each, or 10 000 parts of a head: the connection is over before, and told why.
#[test]
fn whoever_floods_is_thrown_out() {
    let origin = Origin::start();
    let proxy = proxy(&origin);
    let to = proxy.address("web");
    let begin = [opening(&[]), post(1)].concat();
    for (name, frame) in useless() {
        let (said, took, told) = thrown_out(to, &begin, &frame, 100_000);
        assert!(took < Duration::from_secs(5), "{name}: {took:?}");
        assert!(told.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{name}: {told:?}");
        // As much as sockets hold may have been on its way.
        assert!(said < 100_000 * frame.len() || told.is_some(), "{name}: {said}");
    }
    let begin = [opening(&[]), frame(HEADERS, 0, 1, &block(false))].concat();
    let part = frame(CONTINUATION, 0, 1, b"\x82");
    let (said, took, told) = thrown_out(to, &begin, &part, 10_000);
    assert!(said < 1 << 20 && took < Duration::from_secs(5), "{said} {took:?} {told:?}");
}

/// G-25: exact is as Traefik, and a key says how much is too much.
#[test]
fn keys_say_how_much_is_too_much() {
    let origin = Origin::start();
    let text = everything_to(&origin.url());
    let exact = Proxy::with(json!({"core": {"profile": "exact"}})).start(&text);
    let strict = json!({"limits": {"http2": {"frames": 100, "framesPerSecond": 0, "resets": 1}}});
    let strict = Proxy::with(strict).start(&text);
    for (proxy, lives) in [(&exact, true), (&strict, false)] {
        let mut stream = socket(proxy.address("web")).unwrap();
        stream.write_all(&opening(&[])).unwrap();
        stream.write_all(&window(0, 1).repeat(12_000)).unwrap();
        stream.write_all(&get(1)).unwrap();
        let answered = loop {
            match next(&mut stream) {
                Ok((HEADERS, ..)) => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        assert_eq!(answered, lives);
    }
    let hits = "doorward_limits_total{limit=\"http2.frames\"}";
    assert_eq!((exact.metric(hits), strict.metric(hits)), (0.0, 1.0));
}

/// V-19: whoever opens and resets streams, slowly enough for each to reach the server, is thrown out.
#[test]
fn resets_are_counted() {
    let origin = Origin::with(|_| {
        crate::harness::pause(Duration::from_millis(300));
        Reply::ok("late")
    });
    let limits = json!({
        "limits": {"http2": {"resets": 20, "resetsPerSecond": 1}},
        "entryPoints": {"web": {"http2": {"maxConcurrentStreams": 10}}},
    });
    let proxy = Proxy::with(limits).start(&everything_to(&origin.url()));
    let mut stream = socket(proxy.address("web")).unwrap();
    stream.write_all(&opening(&[])).unwrap();
    let mut last = 0;
    for number in (1..200).step_by(2) {
        let before = origin.count();
        if stream.write_all(&get(number)).is_err() {
            break;
        }
        until("the server has it, or nobody", || {
            origin.count() > before || hits(&proxy, "http2.resets") > 0.0
        });
        // What is said after that is read for a moment, and comes to nothing.
        if hits(&proxy, "http2.resets") > 0.0 {
            break;
        }
        last = number;
        if stream.write_all(&reset(number)).is_err() {
            break;
        }
    }
    assert_eq!(farewell(&mut stream), Some(ENHANCE_YOUR_CALM));
    assert!((41..=47).contains(&last), "{last}");
    assert!(hits(&proxy, "http2.resets") > 0.0);
}

/// V-23: resets that the server is made to send count as well, and few of those streams reach a server.
#[test]
fn whoever_makes_us_reset_is_thrown_out() {
    let origin = Origin::start();
    let proxy = proxy(&origin);
    let mut stream = socket(proxy.address("web")).unwrap();
    let mut hears = stream.try_clone().unwrap();
    let told = std::thread::spawn(move || farewell(&mut hears));
    stream.write_all(&opening(&[])).unwrap();
    for number in (1..100_000).step_by(2) {
        let wave = [post(number), overflow(number)].concat();
        if stream.write_all(&wave).is_err() {
            break;
        }
    }
    assert_eq!(told.join().unwrap(), Some(ENHANCE_YOUR_CALM));
    assert!(origin.count() <= 1100, "{}", origin.count());
}

/// V-20: frames on streams that are over, and nobody reads what is answered.
#[test]
fn whoever_reads_no_resets_is_thrown_out() {
    let origin = Origin::start();
    let proxy = proxy(&origin);
    let mut stream = socket(proxy.address("web")).unwrap();
    stream.write_all(&opening(&[])).unwrap();
    let mut over = false;
    for number in (1..20_000).step_by(2) {
        let wave = [get(number), frame(DATA, 0, number, b"x")].concat();
        over |= stream.write_all(&wave).is_err();
    }
    assert!(over || farewell(&mut stream).is_some());
    let open = "traefik_open_connections{entrypoint=\"web\",protocol=\"TCP\"}";
    until("the connection is over", || proxy.metric(open) == 0.0);
}

/// V-27: a body behind a reset, in one write, again and again.
#[test]
fn what_follows_a_reset_is_dropped() {
    let origin = Origin::start();
    let limits = json!({"limits": {"http2": {"frames": 0, "resets": 0}}});
    let proxy = Proxy::with(limits).start(&everything_to(&origin.url()));
    let each = |number| [post(number), reset(number), frame(DATA, 1, number, b"x")].concat();
    let mut number = 0;
    let mut sent = 0;
    while sent < 10_000 {
        let mut stream = socket(proxy.address("web")).unwrap();
        let wave: Vec<u8> = (0..1000).flat_map(|at| each(2 * at + 1)).collect();
        let _ = stream.write_all(&[opening(&[]), wave].concat());
        let _ = stream.read(&mut [0; 1000]);
        sent += 1000;
        number += 1;
    }
    assert_eq!((number, proxy.get("/").status), (10, 200));
}

/// G-26: 1 000 streams where 100 are allowed: no more than that are at the server at once.
#[test]
fn streams_beyond_the_limit_reach_no_server() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let origin = Origin::with(move |_| {
        counts.1.fetch_max(counts.0.fetch_add(1, SeqCst) + 1, SeqCst);
        crate::harness::pause(Duration::from_millis(300));
        counts.0.fetch_sub(1, SeqCst);
        Reply::ok("x")
    });
    let streams = json!({"entryPoints": {"web": {"http2": {"maxConcurrentStreams": 100}}}});
    let proxy = Proxy::with(streams).start(&everything_to(&origin.url()));
    let mut stream = socket(proxy.address("web")).unwrap();
    let wave: Vec<u8> = (1..2000).step_by(2).flat_map(get).collect();
    stream.write_all(&[opening(&[]), wave].concat()).unwrap();
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < 1000 {
        match next(&mut stream).unwrap() {
            (HEADERS, ..) => answered += 1,
            (RESET, _, _, code) => {
                assert_eq!(code, [0, 0, 0, 7], "REFUSED_STREAM");
                refused += 1;
            }
            (GOAWAY, _, _, payload) => panic!("{payload:?}"),
            _ => {}
        }
    }
    assert!((100..=200).contains(&answered), "{answered}");
    assert!(most.load(SeqCst) <= 100, "{}", most.load(SeqCst));
}

/// A client that takes a lot, with four updates of windows for each piece, pings and priorities, is no attacker.
#[test]
fn a_busy_client_is_no_attacker() {
    const LENGTH: usize = 48 << 20;
    let origin = Origin::with(|_| Reply::ok(vec![7; LENGTH]));
    let proxy = Proxy::start(&everything_to(&origin.url()));
    let mut stream = socket(proxy.address("web")).unwrap();
    stream.write_all(&[opening(&[]), get(1)].concat()).unwrap();
    let (mut got, mut updates) = (0, 0);
    while got < LENGTH {
        match next(&mut stream).expect("the connection lives") {
            (DATA, _, _, payload) => {
                got += payload.len();
                let each = u32::try_from(payload.len() / 4).unwrap();
                let mut said = frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 16]);
                if each > 0 {
                    for _ in 0..4 {
                        said.extend([window(0, each), window(1, each)].concat());
                        updates += 2;
                    }
                }
                let rest = u32::try_from(payload.len() % 4).unwrap();
                if rest > 0 {
                    said.extend([window(0, rest), window(1, rest)].concat());
                }
                said.extend(frame(PING, 0, 0, b"are you?"));
                stream.write_all(&said).unwrap();
            }
            (GOAWAY, _, _, payload) => panic!("{payload:?}"),
            _ => {}
        }
    }
    assert!(updates > 20_000, "{updates}");
}

/// A call that sends a byte at a time, for longer than its allowance lasts, with pings in between.
#[test]
fn a_chatty_call_is_no_attacker() {
    let origin = Origin::start();
    let limits = json!({"limits": {"http2": {"frames": 500, "framesPerSecond": 1000}}});
    let proxy = Proxy::with(limits).start(&everything_to(&origin.url()));
    let mut stream = socket(proxy.address("web")).unwrap();
    stream.write_all(&[opening(&[]), post(1)].concat()).unwrap();
    let start = Instant::now();
    for at in 0..1200_u32 {
        stream.write_all(&frame(DATA, 0, 1, b"x")).unwrap();
        if at % 100 == 0 {
            stream.write_all(&frame(PING, 0, 0, &[1; 8])).unwrap();
        }
        let due = Duration::from_millis(2) * at;
        crate::harness::pause(due.saturating_sub(start.elapsed()));
    }
    stream.write_all(&frame(DATA, END_STREAM, 1, b"")).unwrap();
    let mut body = 0;
    while body < 1200 {
        match next(&mut stream).expect("the connection lives") {
            (DATA, _, _, payload) => body += payload.len(),
            (GOAWAY | RESET, _, _, payload) => panic!("{payload:?}"),
            _ => {}
        }
    }
}

/// A call of very many small messages, as fast as the server takes them: many more than its allowance.
#[test]
fn a_call_of_many_small_messages_is_no_attacker() {
    const WAVES: usize = 25;
    const MESSAGES: usize = 2000;
    let origin = Origin::with(|_| Reply::ok("heard"));
    let limits = json!({"limits": {"http2": {"framesPerSecond": 0}}});
    let proxy = Proxy::with(limits).start(&everything_to(&origin.url()));
    let mut stream = socket(proxy.address("web")).unwrap();
    stream.write_all(&[opening(&[]), post(1)].concat()).unwrap();
    let mut wave = frame(DATA, 0, 1, b"\0\0\0\0\x02hi").repeat(MESSAGES);
    wave.extend(frame(PING, 0, 0, b"are you?"));
    for _ in 0..WAVES {
        stream.write_all(&wave).unwrap();
        loop {
            match next(&mut stream).expect("the connection lives") {
                (PING, ..) => break,
                (GOAWAY | RESET, _, _, payload) => panic!("{payload:?}"),
                _ => {}
            }
        }
    }
    stream.write_all(&frame(DATA, END_STREAM, 1, b"")).unwrap();
    answer_of(&mut stream, 1);
    assert_eq!(origin.last().body.len(), WAVES * MESSAGES * 7);
}

/// Whoever is trusted to speak for others brings the frames and resets of all of them, and would end with all of them.
/// Where everybody is trusted, nobody is meant.
#[test]
fn a_front_end_has_no_account() {
    let origin = Origin::with(|_| {
        crate::harness::pause(Duration::from_millis(300));
        Reply::ok("late")
    });
    for (headers, lives) in
        [(json!({"trustedIPs": ["127.0.0.1"]}), true), (json!({"insecure": true}), false)]
    {
        let options = json!({
            "entryPoints": {"web": {"forwardedHeaders": headers, "http2": {"maxConcurrentStreams": 4}}},
            "limits": {"http2": {"framesPerSecond": 0, "resets": 1, "resetsPerSecond": 0}},
        });
        let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
        let mut stream = socket(proxy.address("web")).unwrap();
        stream.write_all(&opening(&[])).unwrap();
        // Thrown out, it may be closed already.
        for number in (1..60).step_by(2) {
            let _ = stream.write_all(&[get(number), frame(PING, 0, 0, &[0; 8])].concat());
            while next(&mut stream).is_ok_and(|(kind, flags, ..)| (kind, flags) != (PING, 1)) {}
            let _ = stream.write_all(&reset(number));
        }
        let _ = stream.write_all(&[window(0, 1).repeat(12_000), get(61)].concat());
        let answered = loop {
            match next(&mut stream) {
                Ok((HEADERS, _, 61, _)) => break true,
                Ok((GOAWAY, ..)) | Err(_) => break false,
                Ok(_) => {}
            }
        };
        assert_eq!(answered, lives, "{headers}");
    }
}

/// Who is thrown out is told so, also while bytes of its own are on their way.
#[test]
fn the_last_words_arrive() {
    let origin = Origin::start();
    let limits = json!({"limits": {"http2": {"frames": 100, "framesPerSecond": 0}}});
    let proxy = Proxy::with(limits).start(&everything_to(&origin.url()));
    for _ in 0..5 {
        let mut stream = socket(proxy.address("web")).unwrap();
        let flood = frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 16]).repeat(20_000);
        stream.write_all(&[opening(&[]), flood].concat()).expect("all of it is read");
        let open = "traefik_open_connections{entrypoint=\"web\",protocol=\"TCP\"}";
        until("the connection is over", || proxy.metric(open) == 0.0);
        assert_eq!(farewell(&mut stream), Some(ENHANCE_YOUR_CALM));
        // Some systems drop what was not read yet when a reset comes.
        assert!(stream.take_error().unwrap().is_none(), "it was reset");
    }
}

/// Whoever asks twice and leaves the slower answer cancels as many requests as it completes.
#[test]
fn whoever_cancels_every_other_request_is_no_attacker() {
    let origin = Origin::start();
    let limits = json!({"limits": {"http2": {"resets": 10, "resetsPerSecond": 0}}});
    let mut setup = Proxy::with(limits);
    setup.set("entryPoints", &json!({"web": {"http2": {"maxConcurrentStreams": 4}}}));
    let proxy = setup.start(&everything_to(&origin.url()));
    let mut stream = socket(proxy.address("web")).unwrap();
    stream.write_all(&opening(&[])).unwrap();
    for number in (1..600).step_by(4) {
        stream.write_all(&[get(number), post(number + 2), reset(number + 2)].concat()).unwrap();
        answer_of(&mut stream, number);
    }
}

fn answer_of(stream: &mut TcpStream, wanted: u32) {
    loop {
        match next(stream).expect("the connection lives") {
            (DATA | HEADERS, flags, number, _) if number == wanted && flags & END_STREAM != 0 => {
                return;
            }
            (GOAWAY, _, _, payload) => panic!("{payload:?}"),
            _ => {}
        }
    }
}

/// G-28: a head just within the limit is answered, one byte more is refused alone, and the connection lives.
#[test]
fn a_head_beyond_the_limit_costs_its_stream_only() {
    let origin = Origin::start();
    let options = json!({"entryPoints": {"web": {"http": {"maxHeaderBytes": 8192}}}});
    let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
    let mut stream = socket(proxy.address("web")).unwrap();
    stream.write_all(&[opening(&[]), post(1)].concat()).unwrap();
    let mut number = 3;
    let mut status = |stream: &mut TcpStream, length: usize| {
        let mut head = block(false);
        head.extend(b"\x00\x01x\x7f");
        // The length as an integer with a prefix of seven bits (RFC 7541, 5.1).
        let mut rest = length - 127;
        while rest >= 128 {
            head.push(u8::try_from(rest % 128).unwrap() | 0x80);
            rest /= 128;
        }
        head.push(u8::try_from(rest).unwrap());
        head.resize(head.len() + length, b'y');
        number += 2;
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, number, &head)).unwrap();
        loop {
            match next(stream).expect("the connection lives") {
                (HEADERS, _, at, block) if at == number => break Some(block[0] == 0x88),
                (RESET, _, at, _) if at == number => break None,
                (GOAWAY, _, _, payload) => panic!("{payload:?}"),
                _ => {}
            }
        }
    };
    // Where the limit is, to the byte.
    let (mut good, mut bad) = (4000, 9000);
    assert_eq!(status(&mut stream, good), Some(true));
    assert_ne!(status(&mut stream, bad), Some(true));
    while bad - good > 1 {
        let middle = usize::midpoint(good, bad);
        if status(&mut stream, middle) == Some(true) { good = middle } else { bad = middle }
    }
    assert!((7900..=8192).contains(&good), "{good}");
    // The stream that was open all the time is not concerned.
    stream.write_all(&frame(DATA, END_STREAM, 1, b"still here")).unwrap();
    answer_of(&mut stream, 1);
}
