//! The second reader: a stream of HTTP/1 as a whole, cut at its line ends, and what Doorward says it forwards of it.
//!
//! It knows the rules of RFC 9112 without the leniencies that the RFC leaves to recipients, as Doorward promises:
//! one `Host`, one `Content-Length` or one `Transfer-Encoding: chunked`, CRLF, no folding.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;

/// Header names in lower case, each with its lines.
pub(crate) type Fields = BTreeMap<String, Vec<Vec<u8>>>;

/// A request as its sender means it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) method: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) http10: bool,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    /// The body is not all there, or breaks off in something that no body has.
    pub(crate) cut: bool,
}

/// How a stream ends behind its whole requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With the last of them.
    Clean,
    /// The connection ends behind the last of them because it says so.
    Closed,
    /// Inside a request that may have been a good one.
    Short,
    /// With something that is no request.
    Refused,
}

/// What was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Short,
    Bad,
}

/// All requests of a stream; the last of them is `cut` if its body is.
pub(crate) fn stream(mut bytes: &[u8]) -> (Vec<Message>, End) {
    let mut messages = Vec::new();
    loop {
        if bytes.is_empty() {
            return (messages, End::Clean);
        }
        let (head, behind) = match head(bytes) {
            Ok(read) => read,
            Err(Stop::Short) => return (messages, End::Short),
            Err(Stop::Bad) => return (messages, End::Refused),
        };
        let mut message = head;
        let read = body(&message.fields, behind);
        message.body = read.payload;
        let closes = closes(&message);
        match read.end {
            Ok(rest) => bytes = rest,
            Err(stop) => {
                message.cut = true;
                messages.push(message);
                return (messages, if stop == Stop::Bad { End::Refused } else { End::Short });
            }
        }
        messages.push(message);
        if closes {
            return (messages, End::Closed);
        }
    }
}

/// One request at the start of what a backend has got, and how long it is; `None` while it is not whole.
pub(crate) fn one(bytes: &[u8]) -> Result<Option<(Message, usize)>, Stop> {
    let (mut message, behind) = match head(bytes) {
        Ok(read) => read,
        Err(Stop::Short) => return Ok(None),
        Err(Stop::Bad) => return Err(Stop::Bad),
    };
    if bytes.starts_with(b"\r\n") {
        return Err(Stop::Bad);
    }
    let read = body(&message.fields, behind);
    message.body = read.payload;
    match read.end {
        Ok(rest) => Ok(Some((message, bytes.len() - rest.len()))),
        Err(Stop::Short) => Ok(None),
        Err(Stop::Bad) => Err(Stop::Bad),
    }
}

/// What is there of a request whose rest never came.
pub(crate) fn part(bytes: &[u8]) -> Option<Message> {
    let (mut message, behind) = head(bytes).ok()?;
    message.body = body(&message.fields, behind).payload;
    message.cut = true;
    Some(message)
}

/// The request of HTTP/2 with this method, path and fields as one of HTTP/1.1, if that is one.
pub(crate) fn check_request(method: &[u8], path: &[u8], fields: Fields) -> Option<Message> {
    if !is_token(method) || method == b"CONNECT" {
        return None;
    }
    check_target(method, path).and_then(|()| check_framing(&fields, false)).ok()?;
    check_host(&fields, false).ok()?;
    path_of(path)?;
    let (method, target) = (method.to_vec(), path.to_vec());
    Some(Message { method, target, http10: false, fields, body: Vec::new(), cut: false })
}

/// Whether its sender waits for `100 Continue` before the body.
pub(crate) fn expects(bytes: &[u8]) -> bool {
    head(bytes).is_ok_and(|(message, _)| message.fields.contains_key("expect"))
}

fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_tchar(byte))
}

/// RFC 9110 5.5: visible characters, spaces, tabs, and whatever is not ASCII.
fn is_field_text(text: &[u8]) -> bool {
    text.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

fn trimmed(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let from = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
    let to = text.iter().rposition(|byte| !is_space(byte)).map_or(from, |at| at + 1);
    &text[from..to]
}

/// The next line without its CRLF. A CR or LF that stands alone is never right.
fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Stop> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\r' || *byte == b'\n') else {
        return Err(Stop::Short);
    };
    match &bytes[end..] {
        [b'\r', b'\n', rest @ ..] => Ok((&bytes[..end], rest)),
        [b'\r'] => Err(Stop::Short),
        _ => Err(Stop::Bad),
    }
}

/// The head of a request, with the body still empty, and what follows it.
fn head(bytes: &[u8]) -> Result<(Message, &[u8]), Stop> {
    let mut rest = bytes;
    let mut empty = 0;
    let start = loop {
        let (text, behind) = line(rest)?;
        rest = behind;
        if !text.is_empty() {
            break text;
        }
        empty += 1;
        if empty > 4 {
            return Err(Stop::Bad);
        }
    };
    let words: Vec<&[u8]> = start.split(|&byte| byte == b' ').collect();
    let &[method, target, version] = words.as_slice() else { return Err(Stop::Bad) };
    if !is_token(method) || target.is_empty() || method == b"CONNECT" {
        return Err(Stop::Bad);
    }
    let http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(Stop::Bad),
    };
    check_target(method, target)?;
    let mut fields = Fields::new();
    loop {
        let (text, behind) = line(rest)?;
        rest = behind;
        if text.is_empty() {
            break;
        }
        let colon = text.iter().position(|&byte| byte == b':').ok_or(Stop::Bad)?;
        let (name, value) = (&text[..colon], trimmed(&text[colon + 1..]));
        if !is_token(name) || !is_field_text(value) {
            return Err(Stop::Bad);
        }
        let name = String::from_utf8(name.to_ascii_lowercase()).map_err(|_| Stop::Bad)?;
        fields.entry(name).or_default().push(value.to_vec());
    }
    check_framing(&fields, http10)?;
    check_host(&fields, http10)?;
    path_of(target).ok_or(Stop::Bad)?;
    let (method, target) = (method.to_vec(), target.to_vec());
    Ok((Message { method, target, http10, fields, body: Vec::new(), cut: false }, rest))
}

/// RFC 9112 6.3, without the repairs that it allows.
fn check_framing(fields: &Fields, http10: bool) -> Result<(), Stop> {
    let lengths = fields.get("content-length").map_or(&[][..], Vec::as_slice);
    let codings = fields.get("transfer-encoding").map_or(&[][..], Vec::as_slice);
    match (lengths, codings) {
        ([], []) => Ok(()),
        ([length], []) if length_of(length).is_some() => Ok(()),
        ([], [coding]) if !http10 && coding.eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Stop::Bad),
    }
}

fn length_of(text: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(text).ok().filter(|text| !text.is_empty())?;
    let digits = digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(digits)?;
    digits.parse::<i64>().ok().map(i64::unsigned_abs)
}

/// RFC 9112 3.2.
fn check_host(fields: &Fields, http10: bool) -> Result<(), Stop> {
    match fields.get("host").map(Vec::as_slice) {
        None if http10 => Ok(()),
        Some([host]) if host.is_empty() || is_authority(host) => Ok(()),
        _ => Err(Stop::Bad),
    }
}

/// A host name, IPv4 address or IPv6 address in brackets, with a port behind it or none.
fn is_authority(text: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(text) else { return false };
    let port = |rest: &str| {
        rest.is_empty()
            || rest.strip_prefix(':').is_some_and(|port| {
                port.bytes().all(|byte| byte.is_ascii_digit())
                    && (port.is_empty() || port.parse::<u16>().is_ok())
            })
    };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else { return false };
        return address.parse::<Ipv6Addr>().is_ok() && port(rest);
    }
    let end = text.find(':').unwrap_or(text.len());
    let name = &text[..end];
    !name.is_empty()
        && name.len() <= 255
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        && port(&text[end..])
}

/// Scheme and authority, and what follows them.
fn absolute(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let scheme = target.windows(3).position(|three| three == b"://")?;
    let known = [b"http".as_slice(), b"https"];
    if !known.iter().any(|known| target[..scheme].eq_ignore_ascii_case(known)) {
        return None;
    }
    let rest = &target[scheme + 3..];
    let end = rest.iter().position(|byte| *byte == b'/' || *byte == b'?').unwrap_or(rest.len());
    Some(rest.split_at(end))
}

fn check_target(method: &[u8], target: &[u8]) -> Result<(), Stop> {
    let good = target.iter().all(|byte| (0x21..0x7f).contains(byte) && !b"#<>".contains(byte));
    let form = match target {
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => absolute(target).is_some_and(|(authority, _)| is_authority(authority)),
    };
    if good && form { Ok(()) } else { Err(Stop::Bad) }
}

/// Path and query as a backend gets them; `None` when they are refused.
fn path_of(target: &[u8]) -> Option<Vec<u8>> {
    if target == b"*" {
        return Some(b"*".to_vec());
    }
    let target = if target.starts_with(b"/") { target } else { absolute(target)?.1 };
    let query = target.iter().position(|&byte| byte == b'?');
    let (path, query) = match query {
        None => (target, None),
        Some(at) => (&target[..at], Some(&target[at + 1..])),
    };
    let mut forwarded = resolve(&escape(path)?);
    // The library that holds targets has no room for these two, unescaped.
    if path.contains(&b'`') || query.is_some_and(|query| query.contains(&b'"')) {
        return None;
    }
    if let Some(query) = query {
        forwarded.push(b'?');
        forwarded.extend(query.iter().map(|&byte| if byte == b';' { b'&' } else { byte }));
    }
    Some(forwarded)
}

/// RFC 3986 6.2.2: unreserved characters stand for themselves, everything else that is no path character is escaped.
fn escape(path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let (value, escaped) = if path[at] == b'%' {
            let digits = str::from_utf8(path.get(at + 1..at + 3)?).ok()?;
            let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(digits)?;
            at += 3;
            (u8::from_str_radix(hex, 16).ok()?, true)
        } else {
            at += 1;
            (path[at - 1], false)
        };
        let unreserved = value.is_ascii_alphanumeric() || b"-._~".contains(&value);
        let literal = !escaped && b"!$&'()*+,;=:@/[]".contains(&value);
        if unreserved || literal {
            out.push(value);
        } else {
            out.extend(format!("%{value:02X}").bytes());
        }
    }
    Some(out)
}

/// Without empty and dot segments; what ends in a slash still does.
fn resolve(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|&byte| byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let mut out = Vec::new();
    for segment in kept {
        out.push(b'/');
        out.extend(segment);
    }
    if out.is_empty() || path.ends_with(b"/") {
        out.push(b'/');
    }
    out
}

struct Payload<'a> {
    payload: Vec<u8>,
    end: Result<&'a [u8], Stop>,
}

fn body<'a>(fields: &Fields, bytes: &'a [u8]) -> Payload<'a> {
    if fields.contains_key("transfer-encoding") {
        let mut payload = Vec::new();
        let end = chunks(bytes, &mut payload);
        return Payload { payload, end };
    }
    let length = fields.get("content-length").and_then(|lines| length_of(&lines[0])).unwrap_or(0);
    match usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length)) {
        Some((payload, rest)) => Payload { payload: payload.to_vec(), end: Ok(rest) },
        None => Payload { payload: bytes.to_vec(), end: Err(Stop::Short) },
    }
}

/// RFC 9112 7.1. A chunk that has begun counts as far as it came.
fn chunks<'a>(mut rest: &'a [u8], payload: &mut Vec<u8>) -> Result<&'a [u8], Stop> {
    loop {
        let (text, behind) = chunk_line(rest)?;
        let digits = text.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(text.len());
        let (size, extension) = text.split_at(digits);
        if digits == 0 || digits > 16 || !matches!(extension, [] | [b';', ..]) {
            return Err(Stop::Bad);
        }
        let size = str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
        let size = size.ok_or(Stop::Bad)?;
        rest = behind;
        if size == 0 {
            break;
        }
        let there = usize::try_from(size).map_or(rest.len(), |size| size.min(rest.len()));
        payload.extend(&rest[..there]);
        rest = &rest[there..];
        if (there as u64) < size {
            return Err(Stop::Short);
        }
        rest = match rest {
            [b'\r', b'\n', behind @ ..] => behind,
            [] | [b'\r'] => return Err(Stop::Short),
            _ => return Err(Stop::Bad),
        };
    }
    loop {
        let (text, behind) = line(rest)?;
        rest = behind;
        if text.is_empty() {
            return Ok(rest);
        }
        let colon = text.iter().position(|&byte| byte == b':').ok_or(Stop::Bad)?;
        if !is_token(&text[..colon]) || !is_field_text(&text[colon + 1..]) {
            return Err(Stop::Bad);
        }
    }
}

/// A line of a chunk's size, of which nothing may be wrong as far as it came.
fn chunk_line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Stop> {
    let (text, rest) = line(bytes)?;
    if is_field_text(text) { Ok((text, rest)) } else { Err(Stop::Bad) }
}

/// RFC 9112 9.3.
fn closes(message: &Message) -> bool {
    let mut options = elements(&message.fields, "connection");
    if options.any(|option| option.eq_ignore_ascii_case(b"close")) {
        return true;
    }
    // An old client may be left as soon as there is a reason, such as a line that is not ASCII.
    let lines = message.fields.get("connection").into_iter().flatten();
    let text: Vec<Vec<u8>> = lines.filter(|line| line.is_ascii()).cloned().collect();
    let fields = Fields::from([("connection".to_owned(), text)]);
    let mut options = elements(&fields, "connection");
    message.http10 && !options.any(|option| option.eq_ignore_ascii_case(b"keep-alive"))
}

/// The elements of a list (RFC 9110 5.6.1).
fn elements<'a>(fields: &'a Fields, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let lines = fields.get(name).map_or(&[][..], Vec::as_slice);
    lines
        .iter()
        .flat_map(|line| line.split(|&byte| byte == b','))
        .map(trimmed)
        .filter(|one| !one.is_empty())
}

/// Where a request comes from, for the headers that say so.
#[derive(Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) peer: &'a str,
    pub(crate) server: &'a str,
    pub(crate) http2: bool,
    /// The `Host` of a request that names none.
    pub(crate) backend: &'a str,
}

/// A request as a backend gets it.
pub(crate) fn outgoing(message: &Message, arrival: &Arrival<'_>) -> Message {
    Message {
        target: path_of(&message.target).unwrap_or_default(),
        fields: forwarded(message, arrival),
        http10: false,
        ..message.clone()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, target, body, .. } = self;
        let [method, target, body] = [method, target, body].map(|bytes| bytes.escape_ascii());
        write!(f, "{method} {target}")?;
        for (name, line) in
            self.fields.iter().flat_map(|(name, lines)| lines.iter().map(move |line| (name, line)))
        {
            write!(f, " [{name}: {}]", line.escape_ascii())?;
        }
        write!(f, " \"{body}\"{}", if self.cut { " cut" } else { "" })
    }
}

impl Message {
    /// Whether this is what came of `whole` before its body broke off.
    pub(crate) fn is_part_of(&self, whole: &Self) -> bool {
        let (body, cut) = (whole.body.clone(), whole.cut);
        whole.body.starts_with(&self.body) && *whole == Self { body, cut, ..self.clone() }
    }
}

/// The host that a request is for: that of an absolute target counts for more than its line.
fn host_of(message: &Message) -> Option<Vec<u8>> {
    match absolute(&message.target) {
        Some((authority, _)) if !message.target.starts_with(b"/") => Some(authority.to_vec()),
        _ => message.fields.get("host").map(|lines| lines[0].clone()),
    }
}

/// The fields as a backend gets them, without those that frame the body.
fn forwarded(message: &Message, arrival: &Arrival<'_>) -> Fields {
    let mut fields = message.fields.clone();
    let host = host_of(message);
    fields.retain(|name, _| !is_managed(name));
    // RFC 9110 7.6.1: what is for this connection only.
    let listed: Vec<Vec<u8>> =
        elements(&message.fields, "connection").map(<[u8]>::to_ascii_lowercase).collect();
    let upgrade = upgrade_of(message, &listed);
    const KEPT: [&str; 5] = ["close", "host", "content-length", "transfer-encoding", "upgrade"];
    fields.retain(|name, _| {
        KEPT.contains(&name.as_str()) || !listed.iter().any(|one| one == name.as_bytes())
    });
    let trailers = elements(&fields, "te").any(|one| one.eq_ignore_ascii_case(b"trailers"));
    const HOP_BY_HOP: [&str; 12] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "content-length",
        "host",
    ];
    fields.retain(|name, _| !HOP_BY_HOP.contains(&name.as_str()));
    let mut set = |name: &str, value: &[u8]| fields.insert(name.to_owned(), vec![value.to_vec()]);
    if trailers {
        set("te", b"trailers");
    }
    let websocket = upgrade.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"));
    if let Some(name) = upgrade {
        set("connection", b"Upgrade");
        set("upgrade", &name);
    }
    let text = host.unwrap_or_default();
    set("host", if text.is_empty() { arrival.backend.as_bytes() } else { &text });
    set("x-forwarded-for", arrival.peer.as_bytes());
    set("x-real-ip", arrival.peer.as_bytes());
    set("x-forwarded-server", arrival.server.as_bytes());
    set("x-forwarded-proto", if websocket { b"ws" } else { b"http" });
    set("x-forwarded-port", &port_of(&text));
    if !text.is_empty() {
        set("x-forwarded-host", &text);
    }
    if let Some(cookies) = fields.get_mut("cookie")
        && cookies.len() > 1
    {
        let all: Vec<&[u8]> =
            cookies.iter().map(Vec::as_slice).filter(|one| !one.is_empty()).collect();
        *cookies = vec![all.join(b"; ".as_slice())];
    }
    if arrival.http2 {
        fields.remove("transfer-encoding");
    }
    fields
}

/// Names that say who the client is, in every spelling that a backend may take for one of them.
fn is_managed(name: &str) -> bool {
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
    let plain: String =
        name.chars().map(|one| if one.is_ascii_alphanumeric() { one } else { '-' }).collect();
    MANAGED.contains(&plain.as_str())
}

/// The protocol that a request of HTTP/1.1 offers to switch to, unless that is HTTP (CVE-2026-88008).
fn upgrade_of(message: &Message, listed: &[Vec<u8>]) -> Option<Vec<u8>> {
    if message.http10 || !listed.iter().any(|one| one == b"upgrade") {
        return None;
    }
    let lines = message.fields.get("upgrade")?;
    let is_http = |offer: &[u8]| {
        let name = trimmed(offer.split(|&byte| byte == b'/').next().unwrap_or_default());
        [b"http".as_slice(), b"h2", b"h2c"].iter().any(|http| name.eq_ignore_ascii_case(http))
    };
    if lines.iter().any(|line| !line.is_ascii())
        || elements(&message.fields, "upgrade").any(is_http)
    {
        return None;
    }
    let first = lines[0].split(|&byte| byte == b',').map(trimmed).find(|one| !one.is_empty())?;
    Some(first.to_vec())
}

fn port_of(host: &[u8]) -> Vec<u8> {
    let behind =
        if host.starts_with(b"[") { host.split(|&b| b == b']').nth(1) } else { Some(host) };
    let port = behind.unwrap_or_default().splitn(2, |&byte| byte == b':').nth(1);
    port.filter(|port| !port.is_empty()).unwrap_or(b"80").to_vec()
}
