//! The scanner of message heads, shared by both gates: start line and field lines, RFC 9112 to the letter.
//! It can be resumed when more bytes have come, and gives the same verdict however the bytes were split: every line is
//! judged from left to right, and what counts against a limit is the place in the head, not the size of a read.

use std::ops::Range;

use http::StatusCode;

use super::authority;
use super::bytes_class::{is_token, target_end, token_end, value_end};

/// A request line longer than this is answered 414. `http::Uri` holds no target of 64 KiB.
const MAX_REQUEST_LINE: usize = 65_530;
/// `http::HeaderName` holds no longer name.
const MAX_FIELD_NAME: usize = 65_535;
/// Why a target with a raw `#` is refused; Traefik answers that with an empty body.
pub const FRAGMENT: &str = "fragment in the request target";
/// Three words of which neither the second nor the third is any of HTTP/1.
pub(super) const NOISE: Violation = bad("no HTTP/1 request line");
/// Empty lines that may stand in front of a request line (RFC 9112 2.2 asks for at least one).
const MAX_EMPTY_LINES: u8 = 4;

/// Bytes of an incomplete line that may be scanned again and again.
const SHORT_LINE: usize = 256;

/// How large a message head may be.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the head, start line and final empty line included.
    pub max_head_bytes: usize,
    /// Number of field lines.
    pub max_header_fields: usize,
    /// A first line that no HTTP/1 client sends ends the connection without an answer: it may have been meant as the
    /// preface of another protocol, and whoever speaks that cannot read ours (RFC 9113 3.4).
    pub close_on_noise: bool,
}

impl Default for HeadLimits {
    /// Traefik's `maxHeaderBytes`, more fields than any honest client sends, and an answer to everything.
    fn default() -> Self {
        Self { max_head_bytes: 1 << 20, max_header_fields: 1000, close_on_noise: false }
    }
}

/// Why a head is refused, and with which status if it is a request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
}

const fn bad(reason: &'static str) -> Violation {
    Violation { status: StatusCode::BAD_REQUEST, reason }
}

const fn with(status: StatusCode, reason: &'static str) -> Violation {
    Violation { status, reason }
}

/// What the gates must know of a complete head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of the head, the final empty line included.
    pub(super) len: usize,
    /// Content-Length.
    pub(super) length: Option<u64>,
    /// Whether Transfer-Encoding is `chunked`.
    pub(super) chunked: bool,
    /// Whether an HTTP/1.1 message has an Upgrade field.
    pub(super) upgrade: bool,
    /// Whether a request asks for the connection to be closed behind it, and not in the one field that says nothing
    /// else, which hyper sees to.
    pub(super) close: bool,
    /// The status of a response, 0 for a request.
    pub(super) status: u16,
    /// Whether it is an HTTP/1.0 message.
    pub(super) http10: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Request,
    Response,
}

#[derive(Clone, Copy, Debug, Default)]
struct Start {
    http10: bool,
    status: u16,
}

/// A head being read.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// Where the current line starts.
    at: usize,
    /// Up to where the current line was searched for its end.
    searched: usize,
    empty_lines: u8,
    start: Option<Start>,
    fields: Fields,
}

enum Line {
    /// The line goes on behind the bytes at hand.
    Partial,
    /// A line of so many bytes.
    Taken(usize),
    /// The empty line of two bytes that ends the head.
    End,
}

impl HeadScan {
    /// Scans a request head. `data` starts where the head starts, at every call.
    pub(super) fn request(
        &mut self,
        data: &[u8],
        limits: HeadLimits,
    ) -> Result<Option<Head>, Violation> {
        self.scan(Kind::Request, data, limits)
    }

    /// Scans a response head.
    pub(super) fn response(
        &mut self,
        data: &[u8],
        limits: HeadLimits,
    ) -> Result<Option<Head>, Violation> {
        self.scan(Kind::Response, data, limits)
    }

    fn scan(
        &mut self,
        kind: Kind,
        data: &[u8],
        limits: HeadLimits,
    ) -> Result<Option<Head>, Violation> {
        loop {
            let in_request_line = kind == Kind::Request && self.start.is_none();
            let mut end = limits.max_head_bytes;
            if in_request_line {
                end = end.min(self.at.saturating_add(MAX_REQUEST_LINE));
            }
            let full = data.len() >= end;
            let data = data.get(..end).unwrap_or(data);
            if self.searched > self.at && !full && !self.worth_a_look(data) {
                self.searched = data.len();
                return Ok(None);
            }
            let rest = data.get(self.at..).unwrap_or_default();
            match self.line(kind, rest, limits)? {
                Line::Partial if full && in_request_line => {
                    return Err(with(StatusCode::URI_TOO_LONG, "request line too long"));
                }
                Line::Partial if full => {
                    return Err(with(
                        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                        "header section too large",
                    ));
                }
                Line::Partial => {
                    self.searched = data.len();
                    return Ok(None);
                }
                Line::Taken(len) => {
                    self.at += len;
                    self.searched = self.at;
                }
                Line::End => return self.finish(kind, self.at + 2).map(Some),
            }
        }
    }

    /// Whether a line that was incomplete before can be judged now. A long one is looked at again only when it ends or
    /// breaks off: all its bytes would be scanned once per read otherwise.
    fn worth_a_look(&self, data: &[u8]) -> bool {
        // One byte back, for a CR that was the last byte then.
        let new = data.get(self.searched - 1..).unwrap_or_default();
        data.len() - self.at <= SHORT_LINE || value_end(new).is_some()
    }

    fn line(&mut self, kind: Kind, rest: &[u8], limits: HeadLimits) -> Result<Line, Violation> {
        if self.start.is_some() {
            let Some(field) = field_line(rest)? else { return Ok(Line::Partial) };
            if field.len == 2 {
                return Ok(Line::End);
            }
            self.fields.add(kind, field.name, field.value, limits)?;
            return Ok(Line::Taken(field.len));
        }
        match kind {
            Kind::Request if rest.first() == Some(&b'\r') => {
                let Some(&next) = rest.get(1) else { return Ok(Line::Partial) };
                if next != b'\n' {
                    return Err(bad("bare CR"));
                }
                self.empty_lines += 1;
                if self.empty_lines > MAX_EMPTY_LINES {
                    return Err(bad("too many empty lines before the request line"));
                }
                Ok(Line::Taken(2))
            }
            Kind::Request => Ok(self.started(request_line(rest)?)),
            Kind::Response => Ok(self.started(status_line(rest)?)),
        }
    }

    fn started(&mut self, line: Option<(Start, usize)>) -> Line {
        match line {
            None => Line::Partial,
            Some((start, len)) => {
                self.start = Some(start);
                Line::Taken(len)
            }
        }
    }

    fn finish(&mut self, kind: Kind, len: usize) -> Result<Head, Violation> {
        let start = self.start.unwrap_or_default();
        let fields = &self.fields;
        if fields.chunked && fields.length.is_some() {
            return Err(bad("both Transfer-Encoding and Content-Length"));
        }
        if fields.chunked && start.http10 {
            return Err(bad("Transfer-Encoding in HTTP/1.0"));
        }
        if kind == Kind::Request && !fields.host && !start.http10 {
            return Err(bad("missing required Host header"));
        }
        Ok(Head {
            len,
            length: fields.length,
            chunked: fields.chunked,
            upgrade: fields.upgrade && !start.http10,
            close: fields.close && !fields.plain,
            status: start.status,
            http10: start.http10,
        })
    }
}

/// The field lines of a head, or of a trailer section, that was scanned: names and trimmed values, as places in `head`.
/// `start` is where the first of them begins.
pub(super) fn fields(head: &[u8], start: usize) -> impl Iterator<Item = (&[u8], Range<usize>)> {
    let mut at = start;
    std::iter::from_fn(move || {
        let field = field_line(head.get(at..).unwrap_or_default()).ok()??;
        if field.len == 2 {
            return None;
        }
        let value = trim(field.value);
        let before = field.value.len() - field.value.trim_ascii_start().len();
        let from = at + field.name.len() + 1 + if value.is_empty() { 0 } else { before };
        at += field.len;
        Some((field.name, from..from + value.len()))
    })
}

/// What the field lines say about framing.
#[derive(Debug, Default)]
struct Fields {
    count: usize,
    length: Option<u64>,
    chunked: bool,
    host: bool,
    upgrade: bool,
    connection: bool,
    close: bool,
    /// Whether all that `Connection` says is `close`.
    plain: bool,
}

impl Fields {
    fn add(
        &mut self,
        kind: Kind,
        name: &[u8],
        value: &[u8],
        limits: HeadLimits,
    ) -> Result<(), Violation> {
        self.count += 1;
        if self.count > limits.max_header_fields {
            return Err(with(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too many header fields",
            ));
        }
        match name.len() {
            4 if kind == Kind::Request && name.eq_ignore_ascii_case(b"host") => {
                if self.host {
                    return Err(bad("several Host headers"));
                }
                self.host = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            10 if kind == Kind::Request && name.eq_ignore_ascii_case(b"connection") => {
                let close = |option: &[u8]| trim(option).eq_ignore_ascii_case(b"close");
                self.plain = !self.connection && close(value);
                self.connection = true;
                self.close |= self.plain || value.split(|&b| b == b',').any(close);
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(bad("several Content-Length headers"));
                }
                self.length = Some(content_length(trim(value))?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked {
                    return Err(bad("several Transfer-Encoding headers"));
                }
                transfer_coding(trim(value))?;
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Digits only, and no length that an `i64` cannot hold: parsers differ beyond it.
fn content_length(value: &[u8]) -> Result<u64, Violation> {
    if value.is_empty() {
        return Err(bad("invalid Content-Length"));
    }
    let mut length = 0i64;
    for &byte in value {
        if !byte.is_ascii_digit() {
            return Err(bad("invalid Content-Length"));
        }
        length = length
            .checked_mul(10)
            .and_then(|l| l.checked_add(i64::from(byte - b'0')))
            .ok_or(bad("Content-Length too large"))?;
    }
    Ok(length.unsigned_abs())
}

fn transfer_coding(value: &[u8]) -> Result<(), Violation> {
    if value.eq_ignore_ascii_case(b"chunked") {
        Ok(())
    } else if !value.is_empty() && value.iter().all(|&b| is_token(b)) {
        Err(with(StatusCode::NOT_IMPLEMENTED, "unknown transfer coding"))
    } else {
        Err(bad("invalid Transfer-Encoding"))
    }
}

struct FieldLine<'a> {
    name: &'a [u8],
    value: &'a [u8],
    len: usize,
}

/// One field line, or the empty line (`len` 2). `None` while it is incomplete.
fn field_line(rest: &[u8]) -> Result<Option<FieldLine<'_>>, Violation> {
    let Some(&first) = rest.first() else { return Ok(None) };
    match first {
        b'\r' => {
            return match rest.get(1) {
                None => Ok(None),
                Some(b'\n') => Ok(Some(FieldLine { name: &[], value: &[], len: 2 })),
                Some(_) => Err(bad("bare CR")),
            };
        }
        b' ' | b'\t' => return Err(bad("folded header line")),
        b':' => return Err(bad("empty header name")),
        _ => {}
    }
    let Some(name_len) = token_end(rest) else { return Ok(None) };
    let (name, behind) = rest.split_at_checked(name_len).unwrap_or_default();
    match behind.first() {
        Some(b':') if name_len > MAX_FIELD_NAME => {
            return Err(with(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header name too long"));
        }
        Some(b':') => {}
        Some(b' ' | b'\t') => return Err(bad("space in or behind a header name")),
        Some(b'\n') => return Err(bad("bare LF")),
        Some(b'\r') => return Err(bad("header line without a colon")),
        _ => return Err(bad("invalid character in a header name")),
    }
    let behind = behind.get(1..).unwrap_or_default();
    let Some(value_len) = value_end(behind) else { return Ok(None) };
    let (value, line_end) = behind.split_at_checked(value_len).unwrap_or_default();
    if !crlf(line_end, "control character in a header value")? {
        return Ok(None);
    }
    Ok(Some(FieldLine { name, value, len: name_len + 1 + value_len + 2 }))
}

/// Whether `rest` starts with CRLF; `false` while its second byte is missing. `other` says what is wrong with a first
/// byte that ends no line.
fn crlf(rest: &[u8], other: &'static str) -> Result<bool, Violation> {
    match rest {
        [] | [b'\r'] => Ok(false),
        [b'\r', b'\n', ..] => Ok(true),
        [b'\r', ..] => Err(bad("bare CR")),
        [b'\n', ..] => Err(bad("bare LF")),
        _ => Err(bad(other)),
    }
}

/// `token SP target SP HTTP/1.x CRLF`, and a target in a form that the method allows (RFC 9112 3.2).
fn request_line(rest: &[u8]) -> Result<Option<(Start, usize)>, Violation> {
    let Some(method_len) = token_end(rest) else { return Ok(None) };
    let (method, behind) = rest.split_at_checked(method_len).unwrap_or_default();
    match behind.first() {
        Some(b' ') if method_len > 0 => {}
        Some(b'\n') => return Err(bad("bare LF")),
        _ => return Err(bad("invalid method")),
    }
    let behind = behind.get(1..).unwrap_or_default();
    let Some(target_len) = target_end(behind) else { return Ok(None) };
    let (target, behind) = behind.split_at_checked(target_len).unwrap_or_default();
    match behind.first() {
        Some(b' ') if target_len > 0 => {}
        Some(b' ') => return Err(bad("empty request target")),
        Some(b'#') => return Err(bad(FRAGMENT)),
        Some(b'\n') => return Err(bad("bare LF")),
        Some(b'\r') => return Err(bad("no HTTP version")),
        Some(0x80..) => return Err(bad("raw non-ASCII byte in the request target")),
        _ => return Err(bad("invalid character in the request target")),
    }
    let behind = behind.get(1..).unwrap_or_default();
    let version = match version(behind) {
        Ok(Some(version)) => version,
        Ok(None) => return Ok(None),
        // Who announces a client to an entry point that wants no PROXY protocol is told so.
        Err(_) if !behind.starts_with(b"HTTP/") && form(target).is_none() && method != b"PROXY" => {
            return Err(NOISE);
        }
        Err(violation) => return Err(violation),
    };
    if !crlf(behind.get(8..).unwrap_or_default(), "more than three parts in the request line")? {
        return Ok(None);
    }
    if version.0 != 1 || version.1 > 1 {
        return Err(with(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "HTTP version not supported"));
    }
    if method == b"CONNECT" {
        return Err(with(StatusCode::NOT_IMPLEMENTED, "CONNECT is not supported"));
    }
    check_target(method, target)?;
    Ok(Some((Start { http10: version.1 == 0, status: 0 }, method_len + target_len + 12)))
}

/// `HTTP/DIGIT.DIGIT`, `None` while it is incomplete.
fn version(rest: &[u8]) -> Result<Option<(u8, u8)>, Violation> {
    const NAME: &[u8] = b"HTTP/";
    if let [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, ..] = rest
        && major.is_ascii_digit()
        && minor.is_ascii_digit()
    {
        return Ok(Some((major - b'0', minor - b'0')));
    }
    let fits = rest.iter().take(8).enumerate().all(|(i, b)| match i {
        0..=4 => NAME.get(i) == Some(b),
        6 => *b == b'.',
        _ => b.is_ascii_digit(),
    });
    if fits { Ok(None) } else { Err(bad("invalid HTTP version")) }
}

fn check_target(method: &[u8], target: &[u8]) -> Result<(), Violation> {
    // The other two bytes that `http::Uri` does not hold: hyper would refuse them, unseen by the service.
    let query = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at_checked(query).unwrap_or_default();
    if memchr::memchr(b'`', path).is_some() || memchr::memchr(b'"', query).is_some() {
        return Err(bad("invalid character in the request target"));
    }
    let authority = match form(target) {
        Some(Form::Origin) => return Ok(()),
        Some(Form::Asterisk) if method == b"OPTIONS" => return Ok(()),
        Some(Form::Absolute(authority)) => authority,
        _ => return Err(bad("invalid form of the request target")),
    };
    let end = authority.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(authority.len());
    match authority::parse(authority.get(..end).unwrap_or_default()) {
        Ok(_) => Ok(()),
        Err(_) => Err(bad("invalid host in the request target")),
    }
}

/// The form of a request target (RFC 9112 3.2).
enum Form<'a> {
    Origin,
    Asterisk,
    /// With what follows the scheme; other schemes than http(s) are none of ours.
    Absolute(&'a [u8]),
}

/// CONNECT, which alone may have another one, is not served.
fn form(target: &[u8]) -> Option<Form<'_>> {
    match target {
        [b'/', ..] => return Some(Form::Origin),
        b"*" => return Some(Form::Asterisk),
        _ => {}
    }
    [b"http://".as_slice(), b"https://"].into_iter().find_map(|scheme| {
        let (start, behind) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(Form::Absolute(behind))
    })
}

/// `HTTP/1.x SP 3DIGIT [SP reason] CRLF`. Many servers leave out the space in front of an empty reason.
fn status_line(rest: &[u8]) -> Result<Option<(Start, usize)>, Violation> {
    let Some(version) = version(rest)? else { return Ok(None) };
    if version.0 != 1 || version.1 > 1 {
        return Err(bad("HTTP version not supported"));
    }
    let mut status = 0;
    for at in 8..12 {
        match rest.get(at) {
            None => return Ok(None),
            Some(b' ') if at == 8 => {}
            Some(digit @ b'0'..=b'9') if at > 8 => status = status * 10 + u16::from(digit - b'0'),
            Some(_) => return Err(bad("invalid status line")),
        }
    }
    if !(100..600).contains(&status) {
        return Err(bad("status code out of range"));
    }
    let behind = rest.get(12..).unwrap_or_default();
    let reason_len = match behind.first() {
        None => return Ok(None),
        Some(b' ') => match value_end(behind) {
            None => return Ok(None),
            Some(len) => len,
        },
        Some(_) => 0,
    };
    if !crlf(behind.get(reason_len..).unwrap_or_default(), "invalid status line")? {
        return Ok(None);
    }
    Ok(Some((Start { http10: version.1 == 0, status }, 12 + reason_len + 2)))
}
