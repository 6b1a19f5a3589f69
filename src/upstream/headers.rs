//! Header rules on the backend side: hop-by-hop headers both ways, upgrades, `X-Forwarded-For`, cookies and `Host`.
//!
//! What leaves here speaks only of the connection it is sent on. Nothing is allocated where nothing changes.

use bytes::BytesMut;
use http::header::{
    CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, UPGRADE,
};
use smallvec::SmallVec;

use crate::exchange::forwarded::{
    X_FORWARDED_FOR, join_lines, push_lines, remove_named_in_connection, tokens,
};

/// What is known about a request when it goes to a backend.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The peer's address to append to `X-Forwarded-For`; `None` with `notAppendXForwardedFor`, and when a
    /// middleware has deleted the header.
    pub append_forwarded_for: Option<&'a HeaderValue>,
    /// Whether to let only WebSocket upgrades pass and to delete `Proxy`, which CGI backends read as `HTTP_PROXY`.
    pub hardened: bool,
}

/// The protocol that a request asks to switch to, as the client spelled it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeName(HeaderValue);

impl UpgradeName {
    /// The name as a header value.
    pub fn as_value(&self) -> &HeaderValue {
        &self.0
    }

    /// Whether the protocol is WebSocket.
    pub fn is_websocket(&self) -> bool {
        self.0.as_bytes().eq_ignore_ascii_case(b"websocket")
    }

    /// Whether a 101 answer with these headers switches to this protocol; if not, the answer is 500.
    pub fn is_granted_by(&self, response: &HeaderMap) -> bool {
        let mut lines = response.get_all(UPGRADE).iter();
        let line = lines.next();
        lines.next().is_none()
            && line.is_some_and(|line| line.as_bytes().eq_ignore_ascii_case(self.0.as_bytes()))
    }
}

/// The protocol that an HTTP/1.1 request asks to switch to, if it may be asked of a backend.
///
/// `Connection` must list `upgrade`. A request that offers HTTP itself in any form is an ordinary request: after a
/// 101, further requests would reach the backend past every middleware (`Upgrade: h2c`, CVE-2026-88008). Of several
/// offers the first is taken.
pub fn upgrade_of(headers: &HeaderMap) -> Option<UpgradeName> {
    let line = headers.get(UPGRADE)?;
    let listed = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(tokens)
        .any(|token| token.eq_ignore_ascii_case(UPGRADE.as_str()));
    let speaks_http = headers
        .get_all(UPGRADE)
        .iter()
        .any(|line| tokens_are_lossy(line) || tokens(line).any(is_http));
    if !listed || speaks_http {
        return None;
    }
    let first = tokens(line).next()?;
    if first.len() == line.len() {
        return Some(UpgradeName(line.clone()));
    }
    HeaderValue::from_str(first).ok().map(UpgradeName)
}

/// Makes the headers of a request fit for a backend connection, and returns the upgrade it asks for.
///
/// Not done here: `Host` (`set_host`), because a pool or HTTP/2 may need it elsewhere.
pub fn prepare_request(headers: &mut HeaderMap, facts: &RequestFacts<'_>) -> Option<UpgradeName> {
    let upgrade = if headers.keys().any(|name| is_hop_by_hop(name) || is_request_only(name)) {
        remove_hop_by_hop(headers, facts.hardened)
    } else {
        None
    };
    if facts.hardened {
        headers.remove(PROXY);
    }
    if let Some(peer) = facts.append_forwarded_for {
        append_forwarded_for(headers, peer);
    }
    join_cookies(headers);
    upgrade
}

/// What is removed before anything is added again; the upgrade that is asked for.
fn remove_hop_by_hop(headers: &mut HeaderMap, hardened: bool) -> Option<UpgradeName> {
    let upgrade = upgrade_of(headers).filter(|name| !hardened || name.is_websocket());
    let wants_trailers = headers
        .get_all(TE)
        .iter()
        .flat_map(tokens)
        .any(|token| token.eq_ignore_ascii_case("trailers"));
    remove_named_in_connection(headers, |_| false);
    remove_all(headers, |name| is_hop_by_hop(name) || is_request_only(name));
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(upgrade) = &upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, upgrade.0.clone());
    }
    upgrade
}

/// Makes the headers of a response fit for the client's connection.
///
/// `switching` is set for the 101 that grants an upgrade, whose `Connection` and `Upgrade` are meant for the client.
/// `Trailer` stays: the announced trailers are forwarded.
pub fn prepare_response(headers: &mut HeaderMap, switching: bool) {
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    let upgrade = if switching { headers.get(UPGRADE).cloned() } else { None };
    remove_named_in_connection(headers, |name| name.eq_ignore_ascii_case(TRAILER.as_str()));
    remove_all(headers, is_hop_by_hop);
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// Puts all `Cookie` lines into one: HTTP/2 clients send one field per cookie, HTTP/1 knows only one line
/// (RFC 9113, 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    join_lines(headers, &COOKIE, b"; ");
}

/// Adds the peer's address to `X-Forwarded-For`, and makes one line of several.
pub fn append_forwarded_for(headers: &mut HeaderMap, peer: &HeaderValue) {
    let length: usize = headers.get_all(X_FORWARDED_FOR).iter().map(|line| line.len() + 2).sum();
    if length == 0 {
        headers.insert(X_FORWARDED_FOR, peer.clone());
        return;
    }
    let mut list = BytesMut::with_capacity(length + peer.len());
    push_lines(&mut list, headers, &X_FORWARDED_FOR, b", ");
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(peer.as_bytes());
    if let Ok(value) = HeaderValue::from_maybe_shared(list.freeze()) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

/// Leaves the client's `Host` if `passHostHeader` is on and there is one, else sets the server's.
pub fn set_host(headers: &mut HeaderMap, server: &HeaderValue, pass_host_header: bool) {
    let passes = pass_host_header && headers.get(HOST).is_some_and(|host| !host.is_empty());
    if !passes {
        headers.insert(HOST, server.clone());
    }
}

const PROXY: HeaderName = HeaderName::from_static("proxy");

/// Removed in both directions, and what `Connection` names.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Removed from requests only; request trailers are not forwarded, so they are not announced either.
fn is_request_only(name: &HeaderName) -> bool {
    matches!(name.as_str(), "http2-settings" | "trailer")
}

fn remove_all(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let found: SmallVec<[HeaderName; 8]> =
        headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in &found {
        headers.remove(name);
    }
}

/// Whether a protocol offer (`name` or `name/version`) is HTTP, with or without TLS below it.
fn is_http(offer: &str) -> bool {
    let name = offer.split('/').next().unwrap_or(offer).trim_ascii_end();
    ["h2c", "h2", "http"].iter().any(|http| name.eq_ignore_ascii_case(http))
}

/// Whether `tokens` would pass over something that is not text.
fn tokens_are_lossy(value: &HeaderValue) -> bool {
    !value.as_bytes().is_ascii()
}

#[cfg(test)]
mod tests {
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

    fn lines<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        headers.get_all(name).iter().map(|line| line.to_str().unwrap()).collect()
    }

    const PLAIN: RequestFacts<'_> = RequestFacts { append_forwarded_for: None, hardened: false };

    #[test]
    fn hop_by_hop_headers_stay_behind() {
        let mut headers = map(&[
            ("connection", "x-allowed, keep-alive"),
            ("connection", "X-Hop"),
            ("x-allowed", "1"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=99"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic eA=="),
            ("te", "gzip"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "foo"),
            ("http2-settings", "AAMAAABk"),
            ("proxy", "http://evil.invalid"),
            ("x-app", "one"),
            ("content-length", "5"),
            ("expect", "100-continue"),
        ]);
        let mut hardened = headers.clone();
        assert_eq!(prepare_request(&mut headers, &PLAIN), None);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "expect", "proxy", "x-app"]);
        prepare_request(&mut hardened, &RequestFacts { hardened: true, ..PLAIN });
        assert!(!hardened.contains_key("proxy"));
    }

    #[test]
    fn ordinary_headers_pass_unchanged() {
        let ordinary = map(&[
            ("x-app", "one"),
            ("cookie", "a=b; c=d"),
            ("authorization", "Bearer t"),
            ("x-app", "two"),
        ]);
        let mut headers = ordinary.clone();
        prepare_request(&mut headers, &PLAIN);
        assert_eq!(headers, ordinary);
        prepare_response(&mut headers, false);
        assert_eq!(headers, ordinary);
    }

    #[test]
    fn te_says_trailers_or_nothing() {
        for (te, want) in [
            (vec![("te", "trailers")], vec!["trailers"]),
            (vec![("te", "gzip"), ("te", "deflate, Trailers")], vec!["trailers"]),
            (vec![("te", "gzip")], vec![]),
        ] {
            let mut headers = map(&te);
            prepare_request(&mut headers, &PLAIN);
            assert_eq!(lines(&headers, "te"), want);
        }
    }

    #[test]
    fn upgrades() {
        let table: [(&[&str], &[&str], Option<&str>); 14] = [
            (&["Upgrade"], &["websocket"], Some("websocket")),
            (&["keep-alive, upgrade"], &["WebSocket"], Some("WebSocket")),
            (&["keep-alive", "UPGRADE"], &["tunnel/1"], Some("tunnel/1")),
            (&["Upgrade"], &["websocket, foo"], Some("websocket")),
            (&["close"], &["websocket"], None),
            (&[], &["websocket"], None),
            (&["Upgrade"], &[], None),
            (&["Upgrade"], &[""], None),
            (&["Upgrade, HTTP2-Settings"], &["h2c"], None),
            (&["Upgrade"], &["H2C"], None),
            (&["Upgrade"], &["websocket, h2c"], None),
            (&["Upgrade"], &["websocket", "h2c"], None),
            (&["Upgrade"], &["HTTP/2.0"], None),
            (&["Upgrade"], &["h2"], None),
        ];
        for (connection, upgrade, want) in table {
            let mut headers = map(&[("http2-settings", "AAMAAABk")]);
            for line in connection {
                headers.append(CONNECTION, HeaderValue::from_str(line).unwrap());
            }
            for line in upgrade {
                headers.append(UPGRADE, HeaderValue::from_str(line).unwrap());
            }
            let name = prepare_request(&mut headers, &PLAIN);
            let got = name.as_ref().map(|name| name.as_value().to_str().unwrap());
            assert_eq!(got, want, "{connection:?} {upgrade:?}");
            assert_eq!(lines(&headers, "upgrade"), want.into_iter().collect::<Vec<_>>());
            assert_eq!(
                lines(&headers, "connection"),
                want.map(|_| "Upgrade").into_iter().collect::<Vec<_>>()
            );
            assert!(!headers.contains_key("http2-settings"));
        }
    }

    #[test]
    fn hardened_backends_see_websocket_upgrades_only() {
        let hardened = RequestFacts { hardened: true, ..PLAIN };
        for (protocol, passes) in [("WebSocket", true), ("tunnel", false)] {
            let mut headers = map(&[("connection", "upgrade"), ("upgrade", protocol)]);
            assert_eq!(prepare_request(&mut headers, &hardened).is_some(), passes);
            assert_eq!(headers.contains_key(UPGRADE), passes);
        }
    }

    #[test]
    fn a_switch_must_be_the_one_asked_for() {
        let asked =
            upgrade_of(&map(&[("connection", "Upgrade"), ("upgrade", "websocket")])).unwrap();
        assert!(asked.is_websocket());
        assert!(asked.is_granted_by(&map(&[("upgrade", "WebSocket")])));
        assert!(!asked.is_granted_by(&map(&[("upgrade", "h2c")])));
        assert!(!asked.is_granted_by(&map(&[("upgrade", "websocket"), ("upgrade", "h2c")])));
        assert!(!asked.is_granted_by(&map(&[])));
    }

    #[test]
    fn the_peer_is_appended_to_one_line() {
        let peer = HeaderValue::from_static("10.0.0.9");
        let table: [(&[&str], &str); 4] = [
            (&[], "10.0.0.9"),
            (&["1.1.1.1"], "1.1.1.1, 10.0.0.9"),
            (&["1.1.1.1", "2.2.2.2, 3.3.3.3"], "1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.9"),
            (&["", ""], "10.0.0.9"),
        ];
        for (before, want) in table {
            let mut headers = HeaderMap::new();
            for line in before {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
            }
            let facts = RequestFacts { append_forwarded_for: Some(&peer), ..PLAIN };
            prepare_request(&mut headers, &facts);
            assert_eq!(lines(&headers, "x-forwarded-for"), [want]);
        }
        let mut headers = HeaderMap::new();
        prepare_request(&mut headers, &PLAIN);
        assert!(headers.is_empty(), "nothing is invented, a User-Agent neither");
    }

    #[test]
    fn responses_lose_the_backends_connection() {
        let backend = [
            ("connection", "keep-alive, X-Hop, Content-Length, trailer, upgrade"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("proxy-authenticate", "Basic"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("x-hop", "1"),
            ("content-length", "5"),
            ("trailer", "x-sum"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ];
        let mut headers = map(&backend);
        prepare_response(&mut headers, false);
        assert_eq!(
            headers,
            map(&[
                ("content-length", "5"),
                ("trailer", "x-sum"),
                ("set-cookie", "a=1"),
                ("set-cookie", "b=2")
            ])
        );
        let mut headers = map(&backend);
        prepare_response(&mut headers, true);
        assert_eq!(lines(&headers, "connection"), ["Upgrade"]);
        assert_eq!(lines(&headers, "upgrade"), ["websocket"]);
        assert!(!headers.contains_key("x-hop"));
    }

    #[test]
    fn cookie_crumbs_become_one_line() {
        let mut headers = map(&[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")]);
        prepare_request(&mut headers, &PLAIN);
        assert_eq!(lines(&headers, "cookie"), ["a=b; c=d"]);
    }

    #[test]
    fn hosts() {
        let server = HeaderValue::from_static("backend:8069");
        for (client, pass, want) in [
            (Some("a.test"), true, "a.test"),
            (Some("a.test"), false, "backend:8069"),
            (None, true, "backend:8069"),
            (Some(""), true, "backend:8069"),
        ] {
            let mut headers = map(&[]);
            if let Some(client) = client {
                headers.insert(HOST, HeaderValue::from_static(client));
            }
            set_host(&mut headers, &server, pass);
            assert_eq!(lines(&headers, "host"), [want]);
        }
    }
}
