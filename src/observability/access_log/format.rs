//! The three forms of a line. Each is at most `MAX_LINE` bytes; what is cut says so.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use http::header::{HeaderName, REFERER, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use jiff::tz::TimeZone;

use super::fields::{Field, HeaderMode, Policy};
use super::record::AccessRecord;
use crate::observability::text::{self, CUT, Moment, Style};

/// Longest line.
const MAX_LINE: usize = 64 << 10;
/// Room that is kept for names and numbers behind long values.
const RESERVE: usize = 4 << 10;
/// Longest single value.
const MAX_VALUE: usize = 8 << 10;

/// Form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Common Log Format and Traefik's four values.
    Common,
    /// Common Log Format with referer and user agent.
    Generic,
    /// One JSON object.
    Json,
}

impl Format {
    /// The format called `name`; an unknown one is reported and means `common`.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "common" => Self::Common,
            "genericCLF" => Self::Generic,
            "json" => Self::Json,
            _ => {
                tracing::error!(
                    format = name,
                    "Unsupported access log format, defaulting to common format instead"
                );
                Self::Common
            }
        }
    }

    /// Appends the line of `record`, with its newline.
    pub(super) fn line(
        self,
        out: &mut Vec<u8>,
        record: &AccessRecord<'_>,
        policy: &Policy,
        zone: &TimeZone,
    ) {
        match self {
            Self::Common => {
                clf(out, record, policy, zone);
                traefik_values(out, record, policy);
            }
            Self::Generic => clf(out, record, policy, zone),
            Self::Json => json(out, record, policy, zone),
        }
        out.push(b'\n');
    }
}

/// Bytes that one more value may have.
fn room(out: &[u8]) -> usize {
    MAX_LINE.saturating_sub(RESERVE + out.len()).min(MAX_VALUE)
}

fn clf(out: &mut Vec<u8>, record: &AccessRecord<'_>, policy: &Policy, zone: &TimeZone) {
    let keeps = |field| policy.keeps(field);
    if keeps(Field::ClientHost) {
        client_host(out, record, Style::Clf);
    } else {
        out.push(b'-');
    }
    out.extend_from_slice(b" - ");
    clf_value(out, record.user.filter(|_| keeps(Field::ClientUsername)));
    out.extend_from_slice(b" [");
    if keeps(Field::StartUtc) {
        Moment::utc(record.start).clf(out);
    } else if keeps(Field::StartLocal) {
        Moment::local(record.start, zone).clf(out);
    } else {
        out.push(b'-');
    }
    out.extend_from_slice(b"] \"");
    clf_value(out, Some(record.method.as_str()).filter(|_| keeps(Field::RequestMethod)));
    out.push(b' ');
    let path = record.path(policy.keeps_query());
    clf_value(out, Some(path).filter(|_| keeps(Field::RequestPath)));
    out.push(b' ');
    clf_value(out, Some(record.protocol()).filter(|_| keeps(Field::RequestProtocol)));
    out.extend_from_slice(b"\" ");
    clf_integer(out, keeps(Field::DownstreamStatus), u64::from(record.status));
    out.push(b' ');
    clf_integer(out, keeps(Field::DownstreamContentSize), record.response_bytes);
    for name in [REFERER, USER_AGENT] {
        out.extend_from_slice(b" \"");
        clf_header(out, record, policy, &name);
        out.push(b'"');
    }
}

fn traefik_values(out: &mut Vec<u8>, record: &AccessRecord<'_>, policy: &Policy) {
    out.push(b' ');
    clf_integer(out, policy.keeps(Field::RequestCount), record.request_count);
    for (field, value) in
        [(Field::RouterName, record.router), (Field::ServiceUrl, record.server_url)]
    {
        out.extend_from_slice(b" \"");
        clf_value(out, value.filter(|_| policy.keeps(field)));
        out.push(b'"');
    }
    out.push(b' ');
    let duration = if policy.keeps(Field::Duration) { record.duration } else { Duration::ZERO };
    text::integer(out, duration.as_millis());
    out.extend_from_slice(b"ms");
}

fn clf_value(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) if !value.is_empty() => {
            let room = room(out);
            text::escaped(out, value.as_bytes(), Style::Clf, room);
        }
        _ => out.push(b'-'),
    }
}

fn clf_integer(out: &mut Vec<u8>, keep: bool, value: u64) {
    if keep {
        text::integer(out, value);
    } else {
        out.push(b'-');
    }
}

fn clf_header(out: &mut Vec<u8>, record: &AccessRecord<'_>, policy: &Policy, name: &HeaderName) {
    let headers = record.request_headers.filter(|headers| headers.contains_key(name));
    match (headers, policy.header(name)) {
        (None, _) | (_, HeaderMode::Drop) => out.push(b'-'),
        (_, HeaderMode::Redact) => out.extend_from_slice(b"REDACTED"),
        (Some(headers), HeaderMode::Keep) => {
            let start = out.len();
            joined(out, headers, name, Style::Clf);
            if out.len() == start {
                out.push(b'-');
            }
        }
    }
}

/// The values of a header, joined by commas.
fn joined(out: &mut Vec<u8>, headers: &HeaderMap, name: &HeaderName, style: Style) {
    for (index, value) in headers.get_all(name).iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let room = room(out);
        text::escaped(out, value.as_bytes(), style, room);
        if room == 0 {
            return;
        }
    }
}

/// `X-Forwarded-For` when there is one, otherwise the peer's address.
fn client_host(out: &mut Vec<u8>, record: &AccessRecord<'_>, style: Style) {
    match record.forwarded_for.map(HeaderValue::as_bytes).filter(|value| !value.is_empty()) {
        Some(value) => {
            let room = room(out);
            text::escaped(out, value, style, room);
        }
        // Writing into a `Vec` cannot fail.
        None => drop(write!(out, "{}", record.client.ip().to_canonical())),
    }
}

fn json(out: &mut Vec<u8>, record: &AccessRecord<'_>, policy: &Policy, zone: &TimeZone) {
    out.push(b'{');
    let mut object = Object { out, policy };
    client_fields(&mut object, record);
    response_fields(&mut object, record);
    request_fields(&mut object, record);
    route_fields(&mut object, record, zone);
    object.headers("downstream_", record.downstream_headers);
    object.text(Field::EntryPointName, record.entry_point);
    object.out.extend_from_slice(b"\"level\":\"info\",\"msg\":\"\",");
    object.headers("origin_", record.origin_headers);
    object.headers("request_", record.request_headers);
    object.out.extend_from_slice(b"\"time\":\"");
    let now = record.start.checked_add(record.duration).unwrap_or_else(SystemTime::now);
    Moment::local(now, zone).rfc3339(object.out);
    object.out.extend_from_slice(b"\"}");
}

fn client_fields(object: &mut Object<'_>, record: &AccessRecord<'_>) {
    let port = record.client.port();
    let ip = record.client.ip().to_canonical();
    if object.begin_text(Field::ClientAddr) {
        drop(write!(object.out, "{}", std::net::SocketAddr::new(ip, port)));
        object.end_text();
    }
    if object.begin_text(Field::ClientHost) {
        client_host(object.out, record, Style::Json);
        object.end_text();
    }
    if object.begin_text(Field::ClientPort) {
        text::integer(object.out, port);
        object.end_text();
    }
    let user = record.user.filter(|user| !user.is_empty());
    object.text(Field::ClientUsername, user.unwrap_or("-"));
}

fn response_fields(object: &mut Object<'_>, record: &AccessRecord<'_>) {
    object.integer(Field::DownstreamContentSize, record.response_bytes);
    object.integer(Field::DownstreamStatus, record.status);
    object.integer(Field::Duration, record.duration.as_nanos());
    if let Some(origin) = record.origin_bytes {
        if record.response_bytes != 0 && record.response_bytes != origin {
            object.ratio(Field::GzipRatio, origin, record.response_bytes);
        }
        object.integer(Field::OriginContentSize, origin);
    }
    if let Some(duration) = record.origin_duration {
        object.integer(Field::OriginDuration, duration.as_nanos());
    }
    if let Some(status) = record.origin_status {
        object.integer(Field::OriginStatus, status);
    }
    let overhead = record.duration.saturating_sub(record.origin_duration.unwrap_or_default());
    object.integer(Field::Overhead, overhead.as_nanos());
    if let Some(reason) = record.reason {
        object.text(Field::Reason, reason);
    }
}

fn request_fields(object: &mut Object<'_>, record: &AccessRecord<'_>) {
    let authority = record.authority.map(HeaderValue::as_bytes).filter(|host| !host.is_empty());
    let split = authority.and_then(|_| record.host_and_port());
    if let Some(authority) = authority {
        object.bytes(Field::RequestAddr, authority);
    }
    object.integer(Field::RequestContentSize, record.request_bytes);
    object.integer(Field::RequestCount, record.request_count);
    if let Some((host, _)) = split {
        object.bytes(Field::RequestHost, host);
    }
    if let Some(id) = record.request_id {
        object.bytes(Field::RequestId, id.as_bytes());
    }
    object.text(Field::RequestMethod, record.method.as_str());
    let path = record.path(object.policy.keeps_query());
    object.text(Field::RequestPath, path);
    if let Some((_, port)) = split {
        object.bytes(Field::RequestPort, port);
    }
    object.text(Field::RequestProtocol, record.protocol());
    object.text(Field::RequestScheme, record.scheme.as_str());
    object.integer(Field::RetryAttempts, record.retries);
}

fn route_fields(object: &mut Object<'_>, record: &AccessRecord<'_>, zone: &TimeZone) {
    for (field, value) in [
        (Field::RouterName, record.router),
        (Field::ServiceAddr, record.server_addr()),
        (Field::ServiceName, record.service),
        (Field::ServiceUrl, record.server_url),
    ] {
        if let Some(value) = value {
            object.text(field, value);
        }
    }
    if object.begin_text(Field::StartLocal) {
        Moment::local(record.start, zone).rfc3339_nano(object.out);
        object.end_text();
    }
    if object.begin_text(Field::StartUtc) {
        Moment::utc(record.start).rfc3339_nano(object.out);
        object.end_text();
    }
    if let Some(tls) = record.tls {
        object.text(Field::TlsCipher, tls.cipher);
        if let Some(subject) = record.tls_subject {
            object.text(Field::TlsClientSubject, subject);
        }
        object.text(Field::TlsVersion, tls.version);
    }
}

/// A JSON object under construction: every member is followed by a comma, `time` ends it.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    policy: &'a Policy,
}

impl Object<'_> {
    /// Writes the name of `field` unless it is dropped.
    fn key(&mut self, field: Field) -> bool {
        let keep = self.policy.keeps(field);
        if keep {
            self.out.push(b'"');
            self.out.extend_from_slice(field.name().as_bytes());
            self.out.extend_from_slice(b"\":");
        }
        keep
    }

    fn begin_text(&mut self, field: Field) -> bool {
        let keep = self.key(field);
        if keep {
            self.out.push(b'"');
        }
        keep
    }

    fn end_text(&mut self) {
        self.out.extend_from_slice(b"\",");
    }

    fn text(&mut self, field: Field, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    fn bytes(&mut self, field: Field, value: &[u8]) {
        if self.begin_text(field) {
            let room = room(self.out);
            text::escaped(self.out, value, Style::Json, room);
            self.end_text();
        }
    }

    fn integer(&mut self, field: Field, value: impl itoa::Integer) {
        if self.key(field) {
            text::integer(self.out, value);
            self.out.push(b',');
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio of sizes needs no 53 bits")]
    fn ratio(&mut self, field: Field, whole: u64, part: u64) {
        if self.key(field) {
            drop(write!(self.out, "{},", whole as f64 / part as f64));
        }
    }

    fn headers(&mut self, prefix: &str, headers: Option<&HeaderMap>) {
        let Some(headers) = headers else { return };
        for name in headers.keys() {
            let mode = self.policy.header(name);
            if mode == HeaderMode::Drop {
                continue;
            }
            // The longest name that HTTP/1 lets through is far longer than the reserve.
            if room(self.out) < name.as_str().len() {
                self.out.extend_from_slice(b"\"");
                self.out.extend_from_slice(prefix.as_bytes());
                self.out.extend_from_slice(CUT.as_bytes());
                self.out.extend_from_slice(b"\":\"\",");
                return;
            }
            self.out.push(b'"');
            self.out.extend_from_slice(prefix.as_bytes());
            canonical(self.out, name);
            self.out.extend_from_slice(b"\":\"");
            if mode == HeaderMode::Redact {
                self.out.extend_from_slice(b"REDACTED");
            } else {
                joined(self.out, headers, name, Style::Json);
            }
            self.end_text();
        }
    }
}

/// Appends a header's name as Go spells it: `user-agent` as `User-Agent`.
fn canonical(out: &mut Vec<u8>, name: &HeaderName) {
    let mut upper = true;
    for &byte in name.as_str().as_bytes() {
        out.push(if upper { byte.to_ascii_uppercase() } else { byte });
        upper = byte == b'-';
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::Offset;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::config::AccessLogFields;
    use super::super::record::tests::Sample;
    use super::*;
    use crate::exchange::{ClientTls, Scheme};

    fn policy(fields: &str) -> Policy {
        Policy::new(&serde_json::from_str::<AccessLogFields>(fields).unwrap())
    }

    fn line(format: Format, record: &AccessRecord<'_>, fields: &str) -> String {
        let zone = TimeZone::fixed(Offset::from_seconds(2 * 3600).unwrap());
        let mut out = Vec::new();
        format.line(&mut out, record, &policy(fields), &zone);
        String::from_utf8(out).unwrap()
    }

    const KEEP: &str = r#"{"headers":{"defaultMode":"keep"}}"#;

    #[test]
    fn common_lines() {
        let sample = Sample::default();
        let record = sample.record();
        assert_eq!(
            line(Format::Common, &record, KEEP),
            "10.0.0.9 - TestUser [13/Apr/2016:14:14:19 +0000] \"POST \
             /testpath?param1=test1&param2=test2 HTTP/2.0\" 123 12 \"testReferer\" \
             \"testUserAgent\" 1 \"testRouter@file\" \"http://127.0.0.1:8069/base\" 1ms\n"
        );
        let bare = AccessRecord { user: None, router: None, server_url: None, ..record };
        assert_eq!(
            line(Format::Common, &bare, "{\"queryParameters\":{\"defaultMode\":\"drop\"}}"),
            "10.0.0.9 - - [13/Apr/2016:14:14:19 +0000] \"POST /testpath HTTP/2.0\" 123 12 \
             \"-\" \"-\" 1 \"-\" \"-\" 1ms\n"
        );
        assert_eq!(
            line(
                Format::Common,
                &record,
                r#"{"defaultMode":"drop","names":{"startlocal":"keep"},
                    "headers":{"names":{"user-agent":"redact"}}}"#
            ),
            "- - - [13/Apr/2016:16:14:19 +0200] \"- - -\" - - \"-\" \"REDACTED\" - \"-\" \"-\" 0ms\n"
        );
    }

    #[test]
    fn generic_lines() {
        let sample = Sample::default();
        assert_eq!(
            line(Format::Generic, &sample.record(), KEEP),
            "10.0.0.9 - TestUser [13/Apr/2016:14:14:19 +0000] \"POST \
             /testpath?param1=test1&param2=test2 HTTP/2.0\" 123 12 \"testReferer\" \
             \"testUserAgent\"\n"
        );
    }

    #[test]
    fn json_lines() {
        let sample = Sample::default();
        let mut origin = HeaderMap::new();
        origin.append("set-cookie", "a=1".parse().unwrap());
        origin.append("set-cookie", "b=2".parse().unwrap());
        let tls =
            ClientTls { version: "1.3", cipher: "TLS_AES_128_GCM_SHA256", ..ClientTls::default() };
        let record = AccessRecord {
            tls: Some(&tls),
            tls_subject: Some("CN=client"),
            scheme: Scheme::Https,
            origin_headers: Some(&origin),
            ..sample.record()
        };
        assert_eq!(
            line(Format::Json, &record, KEEP),
            concat!(
                r#"{"ClientAddr":"10.0.0.9:4711","ClientHost":"10.0.0.9","ClientPort":"4711","#,
                r#""ClientUsername":"TestUser","DownstreamContentSize":12,"DownstreamStatus":123,"#,
                r#""Duration":1500000,"GzipRatio":2,"OriginContentSize":24,"#,
                r#""OriginDuration":1000000,"OriginStatus":200,"Overhead":500000,"#,
                r#""RequestAddr":"TestHost:8080","RequestContentSize":7,"RequestCount":1,"#,
                r#""RequestHost":"TestHost","RequestMethod":"POST","#,
                r#""RequestPath":"/testpath?param1=test1&param2=test2","RequestPort":"8080","#,
                r#""RequestProtocol":"HTTP/2.0","RequestScheme":"https","RetryAttempts":0,"#,
                r#""RouterName":"testRouter@file","ServiceAddr":"127.0.0.1:8069","#,
                r#""ServiceName":"testService@file","ServiceURL":"http://127.0.0.1:8069/base","#,
                r#""StartLocal":"2016-04-13T16:14:19.000005+02:00","#,
                r#""StartUTC":"2016-04-13T14:14:19.000005Z","#,
                r#""TLSCipher":"TLS_AES_128_GCM_SHA256","TLSClientSubject":"CN=client","#,
                r#""TLSVersion":"1.3","entryPointName":"web","level":"info","msg":"","#,
                r#""origin_Set-Cookie":"a=1,b=2","request_Referer":"testReferer","#,
                r#""request_User-Agent":"testUserAgent","time":"2016-04-13T16:14:19+02:00"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_we_answer_ourselves_has_no_origin_but_a_reason() {
        let sample = Sample::default();
        let forwarded = HeaderValue::from_static("1.2.3.4, 5.6.7.8");
        let record = AccessRecord {
            origin_status: None,
            origin_duration: None,
            origin_bytes: None,
            service: None,
            server_url: None,
            reason: Some("no available server"),
            forwarded_for: Some(&forwarded),
            ..sample.record()
        };
        let fields = r#"{"names":{"requestpath":"drop"}}"#;
        let value: Value = serde_json::from_str(&line(Format::Json, &record, fields)).unwrap();
        for absent in ["OriginStatus", "ServiceURL", "GzipRatio", "RequestPath", "request_Referer"]
        {
            assert!(value.get(absent).is_none(), "{absent}");
        }
        assert_eq!(value["Reason"], json!("no available server"));
        assert_eq!(value["ClientHost"], json!("1.2.3.4, 5.6.7.8"));
        assert_eq!(value["Overhead"], json!(1_500_000));
        assert!(!line(Format::Common, &record, fields).contains("no available server"));
    }

    #[test]
    fn unknown_formats_mean_common() {
        assert_eq!(Format::named("xml"), Format::Common);
    }

    proptest! {
        #[test]
        fn hostile_values_stay_one_bounded_line(
            header in proptest::collection::vec(any::<u8>(), 0..300),
            path in "\\PC*|[\\x00-\\x7f]*",
            times in 1_usize..2000,
        ) {
            let value = header
                .into_iter()
                .filter(|&byte| byte == b'\t' || byte >= 0x20 && byte != 0x7f)
                .collect::<Vec<u8>>()
                .repeat(times);
            let value = HeaderValue::from_bytes(&value).unwrap();
            let mut headers = HeaderMap::new();
            for name in ["user-agent", "referer", "x-a", "x-b", "x-c", "x-d", "x-e", "x-f", "x-g"] {
                headers.append(HeaderName::from_static(name), value.clone());
                headers.append(HeaderName::from_static(name), value.clone());
            }
            let sample = Sample { authority: value.clone(), ..Sample::default() };
            let path = path.repeat(times);
            let record = AccessRecord {
                path: &path,
                forwarded_for: Some(&value),
                user: Some(&path),
                router: Some(&path),
                reason: Some(&path),
                request_headers: Some(&headers),
                origin_headers: Some(&headers),
                downstream_headers: Some(&headers),
                ..sample.record()
            };
            let text = line(Format::Json, &record, KEEP);
            let parsed: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&parsed["DownstreamStatus"], &json!(123));
            for text in [text, line(Format::Common, &record, KEEP)] {
                prop_assert!(text.len() <= MAX_LINE, "{}", text.len());
                prop_assert!(text.trim_end_matches('\n').bytes().all(|byte| byte >= 0x20));
                prop_assert!(text.ends_with('\n'));
            }
        }
    }
}
