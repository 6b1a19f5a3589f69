//! Credentials in configured headers, rules and addresses, which Traefik's API shows: under every profile but `exact`
//! their values are hidden.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::rule::masked;
use crate::values::secret::{MASK, is_credential_header, is_secret_name, masked_url};

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
                    (_, value) => hide_credentials(value),
                }
            }
        }
        Value::String(text) => {
            if let Cow::Owned(shown) = masked_url(text, MASK, is_secret_name) {
                *text = shown;
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
    let hidden = masked(rule, MASK, is_secret);
    if hidden == rule { Cow::Borrowed(rule) } else { Cow::Owned(hidden) }
}

/// Hides the pattern beside the name of a header that carries a credential: it may be one, with
/// anchors.
pub(super) fn hide_pattern(key: &str, value: &mut Value) {
    if key == "header"
        && value["name"].as_str().is_some_and(is_credential_header)
        && let Some(pattern) = value.get_mut("regex")
        && pattern.as_str().is_some_and(|text| !text.is_empty())
    {
        *pattern = json!(MASK);
    }
}

fn hide_values(headers: &mut Value) {
    for (name, value) in headers.as_object_mut().into_iter().flatten() {
        // An empty value says that the header is deleted.
        if value.as_str().is_some_and(|text| !text.is_empty()) && is_credential_header(name) {
            *value = json!(MASK);
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

    /// One rule for all that may be a URL.
    #[test]
    fn parameters_that_are_named_like_secrets_are_hidden_and_no_others() {
        let mut view = json!({
            "forwardAuth": {"address": "http://a/ok?key=s&page=1", "authSigninURL": "https://u:p@a/?secret=s"},
            "redirectRegex": {"regex": "^(.*)$", "replacement": "https://a/${1}?token=s&b=c"},
            "errors": {"query": "/{status}.html?status={status}&api_key=s"},
            "healthCheck": {"path": "/h?access_token=s&who=me&sid=s"},
            "mirror": {"url": "http://u:pa/ss@a:80/?auth=s&pwd=s#session=s"},
            "name": "token",
        });
        hide_credentials(&mut view);
        let expected = json!({
            "forwardAuth": {"address": "http://a/ok?key=xxxx&page=1", "authSigninURL": "https://xxxx@a/?secret=xxxx"},
            "redirectRegex": {"regex": "^(.*)$", "replacement": "https://a/${1}?token=xxxx&b=c"},
            "errors": {"query": "/{status}.html?status={status}&api_key=xxxx"},
            "healthCheck": {"path": "/h?access_token=xxxx&who=me&sid=xxxx"},
            "mirror": {"url": "http://xxxx@a:80/?auth=xxxx&pwd=xxxx#session=xxxx"},
            "name": "token",
        });
        assert_eq!(view, expected);
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
