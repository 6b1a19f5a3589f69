//! Credentials in configured headers, which Traefik's API shows: under every profile but `exact` their values are
//! hidden.

use serde_json::{Value, json};

use crate::values::secret::is_credential_header;

/// Options that hold headers by name: of the middleware `headers`, and of a health check.
pub(super) const HEADERS: [&str; 3] = ["customRequestHeaders", "customResponseHeaders", "headers"];

/// Hides credentials in the view of an object, or of many.
pub(super) fn hide_credentials(view: &mut Value) {
    match view {
        Value::Array(items) => items.iter_mut().for_each(hide_credentials),
        Value::Object(entries) => {
            for (key, value) in entries {
                if HEADERS.contains(&key.as_str()) {
                    hide_values(value);
                }
                hide_credentials(value);
            }
        }
        _ => {}
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
    fn values_of_credentials_are_hidden_and_nothing_else() {
        let mut view = json!([
            {"headers": {
                "customRequestHeaders": {"Authorization": "Basic eA==", "Cookie": "", "X-Tenant": "t1"},
                "customResponseHeaders": {"Set-Cookie": "a=b"},
                "publicKey": "pin",
            }},
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
                "publicKey": "pin",
            }},
            {"loadBalancer": {
                "healthCheck": {"headers": {"X-Api-Key": "xxxx", "Accept": "*/*"}, "path": "/"},
                "sticky": {"cookie": {"name": "token"}},
            }},
        ]);
        assert_eq!(view, expected);
    }
}
