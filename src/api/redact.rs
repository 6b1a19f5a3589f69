//! Credentials in configured headers and URLs, which Traefik's API shows: under every profile but `exact` their values
//! are hidden.

use serde_json::{Value, json};

use crate::values::secret::is_credential_header;

/// Options that hold headers by name: of the middleware `headers`, and of a health check.
pub(super) const HEADERS: [&str; 4] =
    ["customRequestHeaders", "customResponseHeaders", "headers", "sslProxyHeaders"];

/// Options that hold URLs to ask: of `forwardAuth`, and of a health check.
const URLS: [&str; 2] = ["address", "path"];

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
                if URLS.contains(&key.as_str()) {
                    hide_query(value);
                }
                hide_credentials(value);
            }
        }
        _ => {}
    }
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

/// Hides the values in the query of a URL, which may be keys.
fn hide_query(value: &mut Value) {
    if let Value::String(url) = value
        && (url.starts_with('/') || url.contains("://"))
        && url.contains('?')
    {
        *url = without_query_values(url);
    }
}

/// A URL whose parameters have names only.
pub(super) fn without_query_values(url: &str) -> String {
    let Some((before, query)) = url.split_once('?') else { return url.to_owned() };
    let (query, fragment) = query.split_at(query.find('#').unwrap_or(query.len()));
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}=xxxx"),
        None => pair.to_owned(),
    });
    format!("{before}?{}{fragment}", pairs.collect::<Vec<_>>().join("&"))
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
                "healthCheck": {"headers": {"X-Api-Key": "k", "Accept": "*/*"}, "path": "/?a=b&c#d"},
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
                "healthCheck": {"headers": {"X-Api-Key": "xxxx", "Accept": "*/*"}, "path": "/?a=xxxx&c#d"},
                "sticky": {"cookie": {"name": "token"}},
            }},
        ]);
        assert_eq!(view, expected);
    }
}
