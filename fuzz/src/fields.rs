//! `fields`: the first byte says who sends and how, the lines are header fields. What the entry point and the backend's
//! side make of them: forwarded headers, spellings, hop-by-hop fields, upgrades, cookies.

use doorward::exchange::canonical::{FieldLimits, UnderscoreStrategy, malformed_http2};
use doorward::exchange::forwarded::{
    ForwardedFacts, X_FORWARDED_FOR, X_FORWARDED_SERVER, X_REAL_IP, apply, delete_spellings,
    is_managed, tokens,
};
use doorward::upstream::headers::{
    RequestFacts, append_forwarded_for, prepare_request, prepare_response, set_host, upgrade_of,
};
use http::header::{CONNECTION, COOKIE, HOST, TE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::pieces::header_map;

const PEER: HeaderValue = HeaderValue::from_static("192.0.2.7");
const SERVER: HeaderValue = HeaderValue::from_static("front");

/// Takes the fields through every step, one after the other and each for itself.
pub fn run(data: &[u8]) {
    let Some((&seed, text)) = data.split_first() else { return };
    let headers = header_map(text.split(|&byte| byte == b'\n').take(64));
    for value in headers.values() {
        assert!(tokens(value).all(|token| !token.is_empty() && token.trim() == token));
    }
    spellings(&headers);
    http2(&headers, text);
    let flag = |bit: u8| seed >> bit & 1 == 1;
    let entered = forwarded(&headers, flag(0), flag(1), flag(2));
    for headers in [&headers, &entered] {
        outwards(headers.clone(), flag(3));
        back(headers.clone(), flag(4));
    }
}

fn spellings(headers: &HeaderMap) {
    for aliases in [false, true] {
        let mut kept = headers.clone();
        assert!(!UnderscoreStrategy::Keep.apply(&mut kept, aliases));
        assert_eq!(kept, *headers);
        assert!(!UnderscoreStrategy::Delete.apply(&mut kept, aliases));
        assert!(!UnderscoreStrategy::Reject.apply(&mut kept, aliases), "{kept:?}");
        let refused = UnderscoreStrategy::Reject.apply(&mut headers.clone(), aliases);
        assert_eq!(refused, kept != *headers, "what is refused and what is deleted");
    }
    for name in headers.keys() {
        let mut without = headers.clone();
        delete_spellings(&mut without, name);
        assert!(!without.contains_key(name));
        assert!(without.len() < headers.len());
    }
    let limits = FieldLimits { max_fields: 16, max_bytes: 600 };
    if let Some(size) = limits.measure(headers) {
        assert!(headers.len() <= 16 && size <= 600);
        assert!(size >= headers.len() * 32);
    }
}

fn http2(headers: &HeaderMap, text: &[u8]) {
    let target = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let uri = Uri::try_from(target).unwrap_or_default();
    if malformed_http2(headers, &uri).is_none() {
        let padded = |value: &HeaderValue| value.as_bytes().trim_ascii() != value.as_bytes();
        assert!(!headers.values().any(padded), "{headers:?}");
        assert!(headers.get_all("content-length").iter().count() <= 1);
        assert!(uri.path_and_query().is_none_or(|it| it.as_str().starts_with(['/', '*'])));
    }
}

fn forwarded(headers: &HeaderMap, trusted: bool, tls: bool, strip: bool) -> HeaderMap {
    let allowed = [HeaderName::from_static("x-kept")];
    let host = headers.get(HOST).cloned();
    let facts = ForwardedFacts {
        peer_ip_text: &PEER,
        trusted,
        tls,
        websocket: upgrade_of(headers).is_some_and(|upgrade| upgrade.is_websocket()),
        host: host.as_ref(),
        server_name: &SERVER,
        connection_allow: &allowed,
        strip_forwarded_rfc7239: strip,
    };
    let mut entered = headers.clone();
    apply(&mut entered, &facts);
    assert_eq!(entered.get(X_FORWARDED_SERVER), Some(&SERVER));
    if !trusted {
        assert_eq!(entered.get(X_REAL_IP), Some(&PEER), "X-Real-Ip of an untrusted client");
        let ours = ["proto", "port", "host", "server"].map(|part| format!("x-forwarded-{part}"));
        for name in entered.keys().filter(|name| is_managed(name.as_str().as_bytes())) {
            let is_ours = *name == X_REAL_IP || ours.iter().any(|known| name == known.as_str());
            assert!(is_ours, "{name} of an untrusted client");
            assert_eq!(entered.get_all(name).iter().count(), 1, "{name}");
        }
    }
    let mut again = entered.clone();
    apply(&mut again, &ForwardedFacts { trusted: true, ..facts });
    assert_eq!(again, entered, "entered twice");
    entered
}

/// The fields that are meant for one connection only.
fn hop_by_hop(headers: &HeaderMap) -> Option<&HeaderName> {
    const NAMES: [&str; 5] =
        ["keep-alive", "proxy-connection", "proxy-authenticate", "transfer-encoding", "connection"];
    headers.keys().find(|name| NAMES.contains(&name.as_str()))
}

fn outwards(mut headers: HeaderMap, hardened: bool) {
    let facts = RequestFacts { append_forwarded_for: None, hardened };
    let asked = headers.clone();
    let upgrade = prepare_request(&mut headers, &facts);
    assert!(headers.get_all(COOKIE).iter().count() <= 1, "cookies in several lines");
    match &upgrade {
        Some(upgrade) => {
            assert_eq!(upgrade_of(&asked).as_ref(), Some(upgrade));
            assert_eq!(headers.get(UPGRADE), Some(upgrade.as_value()));
            assert_eq!(headers.get(CONNECTION).map(HeaderValue::as_bytes), Some(&b"Upgrade"[..]));
            let name = upgrade.as_value().as_bytes().to_ascii_lowercase();
            assert!(!matches!(&*name, b"h2" | b"h2c" | b"http" | b"http/1.1"), "{name:?}");
            assert!(!hardened || upgrade.is_websocket());
            headers.remove(CONNECTION);
        }
        None => assert!(!headers.contains_key(UPGRADE), "an upgrade that nobody follows"),
    }
    assert_eq!(hop_by_hop(&headers), None);
    assert!(headers.get(TE).is_none_or(|te| te == "trailers"), "{:?}", headers.get(TE));
    headers.remove(UPGRADE);
    let mut again = headers.clone();
    assert_eq!(prepare_request(&mut again, &facts), None);
    assert_eq!(again, headers, "made fit twice");
    append_forwarded_for(&mut again, &PEER);
    let lines: Vec<_> = again.get_all(X_FORWARDED_FOR).iter().collect();
    assert!(matches!(*lines, [line] if line.as_bytes().ends_with(PEER.as_bytes())), "{lines:?}");
    for pass in [false, true] {
        set_host(&mut again, &SERVER, pass);
        assert!(again.get(HOST).is_some_and(|host| !host.is_empty()));
    }
}

fn back(mut headers: HeaderMap, switching: bool) {
    prepare_response(&mut headers, switching);
    if switching {
        headers.remove(CONNECTION);
    }
    assert_eq!(hop_by_hop(&headers).filter(|name| *name != "proxy-authenticate"), None);
    assert!(switching || !headers.contains_key(UPGRADE));
    let once = headers.clone();
    prepare_response(&mut headers, switching);
    headers.remove(CONNECTION);
    assert_eq!(headers, once, "made fit twice");
}
