//! Credentials in configured headers, rules and addresses, which Traefik's API shows: under every profile but `exact`
//! their values are hidden.

use std::borrow::Cow;

use regex::Regex;
use serde_json::{Value, json};

use crate::rule::masked;
use crate::values::secret::{is_credential_header, is_secret_name};

/// What stands in place of a secret.
pub(super) const HIDDEN: &str = "xxxx";

/// Options that hold headers by name: of the middleware `headers`, and of a health check.
pub(super) const HEADERS: [&str; 4] =
    ["customRequestHeaders", "customResponseHeaders", "headers", "sslProxyHeaders"];

/// Hides credentials in the view of an object, or of many.
pub(super) fn hide_credentials(view: &mut Value) {
    match view {
        Value::Array(items) => items.iter_mut().for_each(hide_credentials),
        Value::Object(entries) => {
            for (key, value) in entries {
                if HEADERS.contains(&key.as_str()) {
                    hide_values(value);
                }
                hide_pattern(key, value);
                match (key.as_str(), value) {
                    ("rule", Value::String(rule)) => {
                        *rule = hide_in_rule(rule, is_secret_name).into_owned();
                    }
                    // Of the authentication server.
                    ("address", Value::String(url)) => hide_query(url),
                    ("healthCheck", value) => {
                        if let Some(Value::String(path)) = value.get_mut("path") {
                            hide_query(path);
                        }
                        hide_credentials(value);
                    }
                    (_, value) => hide_credentials(value),
                }
            }
        }
        _ => {}
    }
}

/// A rule without the values of credentials: what it compares a header or a parameter of the query with, if the name
/// says that this is one. `is_secret` is asked for parameters.
pub(super) fn hide_in_rule(rule: &str, is_secret: impl Fn(&str) -> bool) -> Cow<'_, str> {
    if !rule.contains('(') {
        return Cow::Borrowed(rule);
    }
    let hidden = masked(rule, HIDDEN, is_secret);
    if hidden == rule { Cow::Borrowed(rule) } else { Cow::Owned(hidden) }
}

#[expect(clippy::unwrap_used, reason = "patterns of our own, compiled by every test")]
pub(super) fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

fn hide_query(url: &mut String) {
    if url.contains('?') {
        *url = without_query_values(url);
    }
}

/// A URL whose parameters have names only.
pub(super) fn without_query_values(url: &str) -> String {
    let Some((before, query)) = url.split_once('?') else { return url.to_owned() };
    let (query, fragment) = query.split_at(query.find('#').unwrap_or(query.len()));
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}={HIDDEN}"),
        None => pair.to_owned(),
    });
    format!("{before}?{}{fragment}", pairs.collect::<Vec<_>>().join("&"))
}

/// Hides the pattern beside the name of a header that carries a credential: it may be one, with
/// anchors.
pub(super) fn hide_pattern(key: &str, value: &mut Value) {
    if key == "header"
        && value["name"].as_str().is_some_and(is_credential_header)
        && let Some(pattern) = value.get_mut("regex")
        && pattern.as_str().is_some_and(|text| !text.is_empty())
    {
        *pattern = json!("xxxx");
    }
}

fn hide_values(headers: &mut Value) {
    for (name, value) in headers.as_object_mut().into_iter().flatten() {
        // An empty value says that the header is deleted.
        if value.as_str().is_some_and(|text| !text.is_empty()) && is_credential_header(name) {
            *value = json!("xxxx");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_hide_what_they_compare_credentials_with() {
        for (rule, expected) in [
            (r#"Header("X-Api-Token", "a\"b")"#, r#"Header("X-Api-Token", "xxxx")"#),
            (
                "Header(`X-Api-Token`, `a\"b`) && Path(`/a`)",
                "Header(`X-Api-Token`, `xxxx`) && Path(`/a`)",
            ),
            ("Query(`token=a`)", "Query(`token=xxxx`)"),
            (
                "Query(`key`, `a`) || Query(`page`, `1`)",
                "Query(`key`, `xxxx`) || Query(`page`, `1`)",
            ),
        ] {
            assert_eq!(hide_in_rule(rule, is_secret_name), expected);
        }
    }

    #[test]
    fn values_of_credentials_are_hidden_and_nothing_else() {
        let mut view = json!([
            {"headers": {
                "customRequestHeaders": {"Authorization": "Basic eA==", "Cookie": "", "X-Tenant": "t1"},
                "customResponseHeaders": {"Set-Cookie": "a=b"},
                "sslProxyHeaders": {"X-Proxy-Token": "t", "X-Forwarded-Proto": "https"},
                "publicKey": "pin",
            }},
            {"ban": {"conditions": [
                {"header": {"name": "authorization", "regex": "^Bearer s3cret$"}},
                {"header": {"name": "User-Agent", "regex": "curl"}},
                {"header": {"name": "Cookie"}, "path": "^/x"},
            ]}},
            {"loadBalancer": {
                "healthCheck": {"headers": {"X-Api-Key": "k", "Accept": "*/*"}, "path": "/"},
                "sticky": {"cookie": {"name": "token"}},
            }},
        ]);
        hide_credentials(&mut view);
        let expected = json!([
            {"headers": {
                "customRequestHeaders": {"Authorization": "xxxx", "Cookie": "", "X-Tenant": "t1"},
                "customResponseHeaders": {"Set-Cookie": "xxxx"},
                "sslProxyHeaders": {"X-Proxy-Token": "xxxx", "X-Forwarded-Proto": "https"},
                "publicKey": "pin",
            }},
            {"ban": {"conditions": [
                {"header": {"name": "authorization", "regex": "xxxx"}},
                {"header": {"name": "User-Agent", "regex": "curl"}},
                {"header": {"name": "Cookie"}, "path": "^/x"},
            ]}},
            {"loadBalancer": {
                "healthCheck": {"headers": {"X-Api-Key": "xxxx", "Accept": "*/*"}, "path": "/"},
                "sticky": {"cookie": {"name": "token"}},
            }},
        ]);
        assert_eq!(view, expected);
    }
}
