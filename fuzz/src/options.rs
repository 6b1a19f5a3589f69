//! `options`: texts of the small languages in which options are written: durations, statuses, sizes, ranges, regular
//! expressions and their replacements, conditions, URLs. Each line is read as all of them.

use std::sync::Arc;

use doorward::middleware::MiddlewareConfig;
use doorward::upstream::Target;
use doorward::values::{
    FileOrContent, GoDuration, Profile, StatusRanges, go_regex, hex, unescaped, whole_seconds,
};
use http::StatusCode;
use serde_json::{Value, json};

use super::shelf::{self, Origin};

/// Reads each line in every language.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    for (at, line) in text.lines().take(4).enumerate() {
        duration(line);
        statuses(line);
        escapes(line);
        pattern(line);
        target(line);
        // Building takes its time, so each line is a few of them, by its length.
        for config in configs(line).iter().skip((line.len() + at) % 6).step_by(6) {
            build(config);
        }
    }
}

fn duration(text: &str) {
    let Ok(read) = text.parse::<GoDuration>() else { return };
    let written = read.to_string();
    assert_eq!(written.parse(), Ok(read), "{text:?} is written {written:?}");
    assert_eq!(read.is_negative(), read < GoDuration::ZERO);
    assert!(read.positive().is_none_or(|time| time == read.or_zero()));
    assert!(u128::from(whole_seconds(read.or_zero())) * 1_000_000_000 >= read.or_zero().as_nanos());
}

fn statuses(text: &str) {
    let items: Vec<String> = text.split(',').map(str::to_owned).collect();
    let mut warnings = Vec::new();
    match StatusRanges::read("status", &items, &mut warnings) {
        Ok(ranges) => {
            assert!(!ranges.is_empty());
            for item in &items {
                let low = item.split('-').next().and_then(|low| low.trim().parse::<u16>().ok());
                let low = low.and_then(|low| StatusCode::from_u16(low).ok());
                assert!(low.is_some_and(|low| ranges.contains(low)), "{item:?}");
            }
        }
        Err(error) => assert!(error.option.starts_with("status[")),
    }
}

fn escapes(text: &str) {
    let escaped = hex(text.as_bytes());
    let escaped: String = escaped
        .as_bytes()
        .chunks(2)
        .flat_map(|digits| std::iter::once(b'%').chain(digits.iter().copied()))
        .map(char::from)
        .collect();
    assert_eq!(unescaped(&escaped).as_deref(), Some(text));
    assert_eq!(hex(text.as_bytes()).len(), text.len() * 2);
    if let Some(plain) = unescaped(text)
        && !text.contains('%')
    {
        assert_eq!(plain, text);
    }
    let _ = format!("{:?}", FileOrContent::from(text));
}

fn pattern(text: &str) {
    match go_regex::compile(text) {
        Ok(regex) => {
            if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'/') {
                assert!(regex.is_match(&format!("a{text}b")), "{text:?}");
            }
            regex.captures("http://a.test/x?y=1");
            for warning in go_regex::missing_groups("replacement", text, &regex) {
                assert!(!warning.message.is_empty());
            }
        }
        Err(error) => {
            assert!(error.message.contains("error parsing regexp"), "{error:?}");
            assert!(text.get(error.offset..).is_some(), "{error:?} is not in {text:?}");
        }
    }
}

fn target(text: &str) {
    let Ok(target) = Target::parse(text) else { return };
    assert!(target.port() > 0 || text.contains(":0"), "{text:?}");
    let authority = target.authority().as_str();
    assert!(!authority.contains('@') && !authority.is_empty(), "{authority:?} of {text:?}");
    assert!(target.host_header().to_str().is_ok_and(|host| !host.contains('@')));
}

/// Middlewares with the text at one place.
fn configs(text: &str) -> Vec<Value> {
    let (front, back) = text.split_once(' ').unwrap_or((text, "$1"));
    vec![
        json!({"circuitBreaker": {"expression": text}}),
        json!({"buffering": {"retryExpression": text}}),
        json!({"redirectRegex": {"regex": front, "replacement": back}}),
        json!({"replacePathRegex": {"regex": front, "replacement": back}}),
        json!({"stripPrefixRegex": {"regex": [text]}}),
        json!({"ipAllowList": {"sourceRange": [text]}}),
        json!({"ipAllowList": {"sourceRange": ["::1"], "ipStrategy": {"excludedIPs": [text]}}}),
        json!({"headers": {
            "customRequestHeaders": {front: back},
            "accessControlAllowOriginListRegex": [front],
            "accessControlAllowOriginList": [text],
            "allowedHosts": [text],
        }}),
        json!({"compress": {"includedContentTypes": [text]}}),
        json!({"compress": {"encodings": [text]}}),
        json!({"errors": {"status": [front], "service": "s", "query": back}}),
        json!({"forwardAuth": {"address": text, "authResponseHeadersRegex": front}}),
        json!({"addPrefix": {"prefix": text}}),
        json!({"grpcWeb": {"allowOrigins": [text]}}),
        json!({"retry": {"attempts": 2, "status": [text], "initialInterval": front}}),
        json!({"rateLimit": {"average": 1, "period": text}}),
        json!({"ban": {"time": front, "conditions": [{"path": text, "host": text}]}}),
        json!({"redirectScheme": {"scheme": front, "port": back}}),
        json!({"digestAuth": {"users": [text]}}),
    ]
}

fn build(config: &Value) {
    let Ok(read) = serde_json::from_value::<MiddlewareConfig>(config.clone()) else { return };
    let origin = Arc::new(Origin::default());
    for profile in [Profile::Safe, Profile::Exact] {
        if let Err(error) = shelf::build(&read, b"", profile, origin.clone()) {
            assert!(error.message.len() > 4, "{config} is refused with {error:?}");
        }
    }
}
