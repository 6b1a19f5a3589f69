//! Forwarded headers at the entry point: who is trusted, what is deleted, what is set, and what `Connection` removes.
//!
//! After `apply`, no `X-Forwarded-*` header or `X-Real-Ip` holds what an untrusted peer wrote, under any spelling.

use std::net::IpAddr;

use bytes::BytesMut;
use http::header::{
    CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE,
};
use ipnet::IpNet;
use smallvec::SmallVec;

/// `X-Forwarded-For`
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Host`
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `X-Forwarded-Port`
pub const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// `X-Forwarded-Proto`
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Server`
pub const X_FORWARDED_SERVER: HeaderName = HeaderName::from_static("x-forwarded-server");
/// `X-Forwarded-Prefix`
pub const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// `X-Forwarded-Method`
pub const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
/// `X-Forwarded-Uri`
pub const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// `X-Forwarded-Tls-Client-Cert`
pub const X_FORWARDED_TLS_CLIENT_CERT: HeaderName =
    HeaderName::from_static("x-forwarded-tls-client-cert");
/// `X-Forwarded-Tls-Client-Cert-Info`
pub const X_FORWARDED_TLS_CLIENT_CERT_INFO: HeaderName =
    HeaderName::from_static("x-forwarded-tls-client-cert-info");
/// `X-Real-Ip`
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// In the extensions of a request: a middleware deleted `X-Forwarded-For`, so the proxy must not add it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardedForRemoved;

/// What is known about a request when its forwarded headers are written.
#[derive(Debug, Clone, Copy)]
pub struct ForwardedFacts<'a> {
    /// The peer's address without zone, prepared once per connection.
    pub peer_ip_text: &'a HeaderValue,
    /// Whether the peer may set forwarded headers: `TrustedSources::trust` of its address.
    pub trusted: bool,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Whether the request asks for a WebSocket.
    pub websocket: bool,
    /// The host of the request, as sent.
    pub host: Option<&'a HeaderValue>,
    /// The name of this machine, prepared once.
    pub server_name: &'a HeaderValue,
    /// Traefik's `forwardedHeaders.connection`: names that survive until the proxy although `Connection` lists them.
    pub connection_allow: &'a [HeaderName],
    /// Whether RFC 7239 `Forwarded` from untrusted peers is deleted too; Traefik lets it pass.
    pub strip_forwarded_rfc7239: bool,
}

/// Writes the forwarded headers of a request and removes what its `Connection` header names.
pub fn apply(headers: &mut HeaderMap, facts: &ForwardedFacts<'_>) {
    if !facts.trusted {
        delete_managed(headers);
        if facts.strip_forwarded_rfc7239 {
            headers.remove(FORWARDED);
        }
    }
    set_if_empty(headers, X_REAL_IP, || Some(facts.peer_ip_text.clone()));
    set_if_empty(headers, X_FORWARDED_PROTO, || {
        Some(HeaderValue::from_static(match (facts.websocket, facts.tls) {
            (false, false) => "http",
            (false, true) => "https",
            (true, false) => "ws",
            (true, true) => "wss",
        }))
    });
    // The scheme decides only where the host has no port, and a trusted peer's scheme counts.
    let encrypted = facts.tls
        || headers
            .get(X_FORWARDED_PROTO)
            .is_some_and(|proto| matches!(proto.as_bytes(), b"https" | b"wss"));
    set_if_empty(headers, X_FORWARDED_PORT, || Some(port_value(facts.host, encrypted)));
    set_if_empty(headers, X_FORWARDED_HOST, || facts.host.filter(|host| !host.is_empty()).cloned());
    if !facts.server_name.is_empty() {
        headers.insert(X_FORWARDED_SERVER, facts.server_name.clone());
    }
    if headers.contains_key(X_FORWARDED_FOR) {
        join_lines(headers, &X_FORWARDED_FOR, b", ");
    }
    if headers.contains_key(CONNECTION) {
        remove_connection_headers(headers, facts.connection_allow);
    }
}

/// Whether this is, in any case and with any punctuation for `-`, a header that only trusted peers may set.
///
/// Backends that turn names into variables read `X_Real_Ip` (CVE-2026-39858) and `X.Real.Ip` (CVE-2026-88011) as
/// `X-Real-Ip`.
pub fn is_managed(name: &[u8]) -> bool {
    if !matches!(name, [b'x' | b'X', _, ..]) {
        return false;
    }
    MANAGED.iter().any(|managed| is_spelling_of(managed, name))
}

/// Whether a server may take `name` for `managed`, which is in lower case.
fn is_spelling_of(managed: &str, name: &[u8]) -> bool {
    managed.len() == name.len()
        && managed.bytes().zip(name).all(|(want, &byte)| {
            byte.to_ascii_lowercase() == want || (want == b'-' && !byte.is_ascii_alphanumeric())
        })
}

/// Deletes a header, and every other one that a server may take for it.
pub fn delete_spellings(headers: &mut HeaderMap, name: &HeaderName) {
    let found: SmallVec<[HeaderName; 2]> = headers
        .keys()
        .filter(|known| is_spelling_of(name.as_str(), known.as_str().as_bytes()))
        .cloned()
        .collect();
    for name in &found {
        headers.remove(name);
    }
}

/// Puts all lines of a header into one, separated by `separator`; empty lines vanish.
///
/// Does nothing if there are fewer than two.
pub fn join_lines(headers: &mut HeaderMap, name: &HeaderName, separator: &[u8]) {
    let mut length = 0;
    let mut count = 0_usize;
    for line in headers.get_all(name) {
        length += line.len() + separator.len();
        count += 1;
    }
    if count < 2 {
        return;
    }
    let mut joined = BytesMut::with_capacity(length);
    push_lines(&mut joined, headers, name, separator);
    if let Ok(value) = HeaderValue::from_maybe_shared(joined.freeze()) {
        headers.insert(name, value);
    }
}

/// Writes all lines of a header that are not empty, separated by `separator`.
pub fn push_lines(out: &mut BytesMut, headers: &HeaderMap, name: &HeaderName, separator: &[u8]) {
    for line in headers.get_all(name).iter().filter(|line| !line.is_empty()) {
        if !out.is_empty() {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(line.as_bytes());
    }
}

/// Removes the `Connection` header and every header that it names, and returns its lines.
///
/// It cannot remove headers that frame or address the message, nor managed ones (CVE-2024-45410, CVE-2026-29054),
/// nor those for which `spare` says so.
pub fn remove_named_in_connection(
    headers: &mut HeaderMap,
    mut spare: impl FnMut(&str) -> bool,
) -> SmallVec<[HeaderValue; 2]> {
    let lines: SmallVec<[HeaderValue; 2]> = headers.get_all(CONNECTION).iter().cloned().collect();
    if lines.is_empty() {
        return lines;
    }
    headers.remove(CONNECTION);
    for name in lines.iter().flat_map(tokens) {
        let kept = name.eq_ignore_ascii_case("close")
            || NEVER_HOP_BY_HOP.iter().any(|kept| name.eq_ignore_ascii_case(kept.as_str()))
            || is_managed(name.as_bytes())
            || spare(name);
        if !kept {
            headers.remove(name);
        }
    }
    lines
}

/// The elements of a header value that is a comma-separated list of tokens.
pub fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value
        .as_bytes()
        .split(|&byte| byte == b',')
        .filter_map(|part| str::from_utf8(part.trim_ascii()).ok())
        .filter(|token| !token.is_empty())
}

/// Who may set forwarded headers: Traefik's `forwardedHeaders.insecure` and `.trustedIPs`.
///
/// IPv4-mapped IPv6 addresses are IPv4 addresses here, on both sides. An empty list trusts nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedSources {
    insecure: bool,
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl TrustedSources {
    /// Trusts peers in these ranges, or everybody if `insecure`.
    pub fn new(insecure: bool, ranges: &[IpNet]) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for range in ranges {
            match (range.network(), range.broadcast()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.into(), last.into())),
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    match (first.to_ipv4_mapped(), last.to_ipv4_mapped()) {
                        (Some(first), Some(last)) => v4.push((first.into(), last.into())),
                        _ => v6.push((first.into(), last.into())),
                    }
                }
                _ => {}
            }
        }
        Self { insecure, v4: disjoint(v4), v6: disjoint(v6) }
    }

    /// Whether a peer with this address may set forwarded headers.
    pub fn trust(&self, peer: IpAddr) -> bool {
        self.insecure || self.names(peer)
    }

    /// Whether a range names this peer: `insecure` trusts everybody and names nobody.
    pub fn names(&self, peer: IpAddr) -> bool {
        match peer.to_canonical() {
            IpAddr::V4(address) => contains(&self.v4, u32::from(address)),
            IpAddr::V6(address) => contains(&self.v6, u128::from(address)),
        }
    }
}

/// Traefik's managed set; the two `Scheme` headers join it in the release after 3.7.9 and are as dangerous before.
const MANAGED: [&str; 13] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-uri",
    "x-forwarded-method",
    "x-forwarded-prefix",
    "x-forwarded-tls-client-cert",
    "x-forwarded-tls-client-cert-info",
    "x-forwarded-scheme",
    "x-scheme",
    "x-real-ip",
];

const NEVER_HOP_BY_HOP: [HeaderName; 3] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING];

fn delete_managed(headers: &mut HeaderMap) {
    let found: SmallVec<[HeaderName; 8]> =
        headers.keys().filter(|name| is_managed(name.as_str().as_bytes())).cloned().collect();
    for name in &found {
        headers.remove(name);
    }
}

/// Sets a header that is absent or empty, as Go reads both as the same.
fn set_if_empty(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: impl FnOnce() -> Option<HeaderValue>,
) {
    if headers.get(&name).is_none_or(HeaderValue::is_empty)
        && let Some(value) = value()
    {
        headers.insert(name, value);
    }
}

fn port_value(host: Option<&HeaderValue>, encrypted: bool) -> HeaderValue {
    let known = match host.map(HeaderValue::as_bytes).and_then(port_of) {
        None if encrypted => "443",
        None | Some(b"80") => "80",
        Some(b"443") => "443",
        Some(b"8080") => "8080",
        Some(b"8443") => "8443",
        Some(digits) => {
            return HeaderValue::from_bytes(digits)
                .unwrap_or_else(|_| HeaderValue::from_static("80"));
        }
    };
    HeaderValue::from_static(known)
}

/// The digits behind the colon of a host, if any.
fn port_of(host: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memrchr(b':', host)?;
    let digits = host.get(colon + 1..)?;
    // `::1` without brackets has no port.
    let bare_v6 = !host.starts_with(b"[") && memchr::memchr(b':', host) != Some(colon);
    let is_port = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    (is_port && !bare_v6).then_some(digits)
}

fn remove_connection_headers(headers: &mut HeaderMap, allow: &[HeaderName]) {
    let mut survivors: SmallVec<[HeaderName; 2]> = SmallVec::new();
    let mut upgrade = false;
    remove_named_in_connection(headers, |name| {
        if name.eq_ignore_ascii_case(UPGRADE.as_str()) {
            upgrade = true;
            return true;
        }
        let allowed = allow.iter().find(|allowed| name.eq_ignore_ascii_case(allowed.as_str()));
        survivors.extend(allowed.cloned());
        allowed.is_some()
    });
    // The proxy removes what is still listed, so the list stays with the headers that survived.
    upgrade &= headers.contains_key(UPGRADE);
    if survivors.is_empty() {
        if upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        }
        return;
    }
    let mut list = BytesMut::new();
    for name in &survivors {
        if !list.is_empty() {
            list.extend_from_slice(b",");
        }
        list.extend_from_slice(name.as_str().as_bytes());
    }
    if upgrade {
        list.extend_from_slice(b",Upgrade");
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(list.freeze()) {
        headers.insert(CONNECTION, value);
    }
}

/// Sorts ranges and merges those that overlap, so that one binary search finds the only candidate.
fn disjoint<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, previous| {
        let overlaps = next.0 <= previous.1;
        if overlaps {
            previous.1 = previous.1.max(next.1);
        }
        overlaps
    });
    ranges.into_boxed_slice()
}

fn contains<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| address <= *last)
}

#[cfg(test)]
mod tests;
