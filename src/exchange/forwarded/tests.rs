//! Tests of forwarded headers: the rows of Traefik's table and the probe cases that forge headers.

use super::*;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    headers
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    assert!(lines.next().is_none(), "{name} has one line");
    Some(line.to_str().unwrap())
}

/// Applies the rules for a plain-text connection from 10.0.0.9 to `host`, after `change` has changed the facts.
fn applied(
    lines: &[(&str, &str)],
    host: Option<&str>,
    change: impl FnOnce(&mut ForwardedFacts<'_>),
) -> HeaderMap {
    let peer = HeaderValue::from_static("10.0.0.9");
    let server = HeaderValue::from_static("edge-1");
    let host = host.map(|host| HeaderValue::from_str(host).unwrap());
    let mut facts = ForwardedFacts {
        peer_ip_text: &peer,
        trusted: false,
        tls: false,
        websocket: false,
        host: host.as_ref(),
        server_name: &server,
        connection_allow: &[],
        strip_forwarded_rfc7239: false,
    };
    change(&mut facts);
    let mut headers = map(lines);
    apply(&mut headers, &facts);
    headers
}

#[test]
fn writes_what_is_absent() {
    let headers = applied(&[("x-app", "one")], Some("a.test:8069"), |_| {});
    for (name, want) in [
        ("x-real-ip", Some("10.0.0.9")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-port", Some("8069")),
        ("x-forwarded-host", Some("a.test:8069")),
        ("x-forwarded-server", Some("edge-1")),
        ("x-forwarded-for", None),
        ("x-app", Some("one")),
    ] {
        assert_eq!(text(&headers, name), want, "{name}");
    }
    let headers = applied(&[], None, |_| {});
    assert_eq!(text(&headers, "x-forwarded-host"), None);
    assert_eq!(text(&headers, "x-forwarded-port"), Some("80"));
}

#[test]
fn proto_and_port() {
    let table = [
        (false, false, "a.test", "http", "80"),
        (true, false, "a.test", "https", "443"),
        (false, true, "a.test", "ws", "80"),
        (true, true, "a.test", "wss", "443"),
        (true, false, "a.test:8443", "https", "8443"),
        (true, false, "a.test:80", "https", "80"),
        (true, false, "a.test:", "https", "443"),
        (false, false, "[::1]:443", "http", "443"),
        (false, false, "[::1]", "http", "80"),
        (false, false, "::1", "http", "80"),
    ];
    for (tls, websocket, host, proto, port) in table {
        let headers = applied(&[], Some(host), |facts| {
            facts.tls = tls;
            facts.websocket = websocket;
        });
        assert_eq!(text(&headers, "x-forwarded-proto"), Some(proto), "{host}");
        assert_eq!(text(&headers, "x-forwarded-port"), Some(port), "{host}");
    }
}

#[test]
fn trusted_peers_keep_their_headers() {
    let lines = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2, 3.3.3.3"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", ""),
        ("x-forwarded-server", "other"),
        ("x-forwarded-prefix", "/p"),
        ("x-real-ip", "1.1.1.1"),
        ("x_real_ip", "9.9.9.9"),
        ("forwarded", "for=1.1.1.1"),
    ];
    let headers = applied(&lines, Some("a.test"), |facts| {
        facts.trusted = true;
        facts.strip_forwarded_rfc7239 = true;
    });
    for (name, want) in [
        ("x-forwarded-for", "1.1.1.1, 2.2.2.2, 3.3.3.3"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-host", "a.test"),
        ("x-forwarded-server", "edge-1"),
        ("x-forwarded-prefix", "/p"),
        ("x-real-ip", "1.1.1.1"),
        ("x_real_ip", "9.9.9.9"),
        ("forwarded", "for=1.1.1.1"),
    ] {
        assert_eq!(text(&headers, name), Some(want), "{name}");
    }
}

#[test]
fn untrusted_peers_forge_nothing() {
    let mut lines: Vec<(String, &str)> = Vec::new();
    for name in MANAGED {
        for spelling in ["-", "_", ".", "~", "!"] {
            lines.push((name.replace('-', spelling), "spoof"));
            lines.push((name.replacen('-', spelling, 1), "spoof"));
            lines.push((name.replace('-', spelling).to_uppercase(), "spoof"));
        }
    }
    lines.push(("forwarded".to_owned(), "for=6.6.6.6"));
    let lines: Vec<(&str, &str)> =
        lines.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let headers = applied(&lines, Some("a.test"), |_| {});
    assert!(headers.values().all(|value| value != "spoof"), "{headers:?}");
    assert!(headers.contains_key("forwarded"), "as in Traefik");
    assert_eq!(headers.len(), 6);
    let headers = applied(&lines, Some("a.test"), |facts| facts.strip_forwarded_rfc7239 = true);
    assert!(!headers.contains_key("forwarded"));
}

#[test]
fn other_names_are_not_managed() {
    for name in
        ["x-forwarded", "x-forwarded-for2", "xforwarded-for", "x-real-ipx", "y-real-ip", "x", ""]
    {
        assert!(!is_managed(name.as_bytes()), "{name}");
    }
    assert!(is_managed(b"X-FORWARDED-for"));
    assert!(is_managed(b"X_Scheme"));
}

#[test]
fn connection_removes_what_it_names() {
    let headers = applied(
        &[
            ("connection", "X-Hop, close"),
            ("connection", "keep-alive,, bad name ,x-two"),
            ("x-hop", "secret"),
            ("x-two", "secret"),
            ("keep-alive", "timeout=9"),
            ("x-app", "one"),
        ],
        Some("a.test"),
        |_| {},
    );
    for name in ["connection", "x-hop", "x-two", "keep-alive"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert!(headers.contains_key("x-app"));
}

#[test]
fn connection_cannot_remove_what_the_message_needs() {
    for list in [
        "close, X-Forwarded-For, X-Real-Ip, X-Forwarded-Host, X-Forwarded-Proto, X-Forwarded-Port, \
         X-Forwarded-Server, Host, Content-Length, Transfer-Encoding",
        "x-forwarded-for, x-real-ip, x-forwarded-host, x-forwarded-proto, x-forwarded-port, \
         x-forwarded-server, host, content-length, transfer-encoding",
    ] {
        let lines = [
            ("connection", list),
            ("host", "a.test"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("x-forwarded-for", "1.1.1.1"),
        ];
        let headers = applied(&lines, Some("a.test"), |facts| facts.trusted = true);
        assert!(!headers.contains_key("connection"));
        assert_eq!(headers.len(), 9, "{headers:?}");
    }
}

#[test]
fn upgrades_and_allowed_names_live_until_the_proxy() {
    static ALLOW: [HeaderName; 2] =
        [HeaderName::from_static("x-keep"), HeaderName::from_static("x-also")];
    let table = [
        ("Upgrade", true, Some("Upgrade")),
        ("keep-alive, upgrade", true, Some("Upgrade")),
        ("upgrade", false, None),
        ("X-KEEP, x-drop", false, Some("x-keep")),
        ("x-keep, Upgrade, x-also", true, Some("x-keep,x-also,Upgrade")),
        ("close", true, None),
    ];
    for (list, with_upgrade, want) in table {
        let mut lines = vec![("connection", list), ("x-keep", "1"), ("x-drop", "1")];
        if with_upgrade {
            lines.push(("upgrade", "websocket"));
        }
        let headers = applied(&lines, None, |facts| facts.connection_allow = &ALLOW);
        assert_eq!(text(&headers, "connection"), want, "{list}");
        assert!(headers.contains_key("x-keep"));
        assert_eq!(headers.contains_key("x-drop"), !list.contains("x-drop"));
        assert_eq!(headers.contains_key("upgrade"), with_upgrade);
    }
}

#[test]
fn joins_lines() {
    let mut headers = map(&[("a", ""), ("a", "1"), ("a", ""), ("a", "2"), ("b", "1")]);
    join_lines(&mut headers, &HeaderName::from_static("a"), b"; ");
    join_lines(&mut headers, &HeaderName::from_static("b"), b"; ");
    assert_eq!(text(&headers, "a"), Some("1; 2"));
    assert_eq!(text(&headers, "b"), Some("1"));
}

/// T-13: whoever asks, and however the ranges are written.
#[test]
fn trust() {
    let ranges: Vec<IpNet> = [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "192.168.1.7/32",
        "::ffff:172.16.0.0/108",
        "2001:db8::/32",
        "2001:db8:1::/48",
    ]
    .iter()
    .map(|range| range.parse().unwrap())
    .collect();
    let sources = TrustedSources::new(false, &ranges);
    for (peer, want) in [
        ("10.1.2.3", true),
        ("10.200.0.1", true),
        ("11.0.0.0", false),
        ("9.255.255.255", false),
        ("::ffff:10.0.0.1", true),
        ("::ffff:6.6.6.6", false),
        ("192.168.1.7", true),
        ("192.168.1.8", false),
        ("172.31.255.255", true),
        ("172.32.0.0", false),
        ("2001:db8:ffff::1", true),
        ("2001:db9::", false),
        ("::1", false),
    ] {
        assert_eq!(sources.trust(peer.parse().unwrap()), want, "{peer}");
    }
    let nobody = TrustedSources::new(false, &[]);
    let everybody = TrustedSources::new(true, &[]);
    assert!(!nobody.trust("127.0.0.1".parse().unwrap()));
    assert!(everybody.trust("127.0.0.1".parse().unwrap()));
    let all_v6 = TrustedSources::new(false, &["::/0".parse().unwrap()]);
    assert!(!all_v6.trust("10.0.0.1".parse().unwrap()), "an IPv6 range holds no IPv4 peer");
}
