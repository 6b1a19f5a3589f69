//! What a list of the API is asked for: which objects, in which order, which page of them.
//!
//! Parameters, orders and errors are Traefik's.

use std::cmp::Ordering;

use http::header::HeaderName;
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use super::{error, ok};
use crate::exchange::Response;

/// Objects on a page when the request does not say it.
const PER_PAGE: i64 = 100;

/// What a list is asked for.
pub(super) struct Query {
    page: String,
    per_page: String,
    pub(super) search: String,
    pub(super) status: String,
    pub(super) service_name: String,
    pub(super) middleware_name: String,
    sort_by: String,
    descending: bool,
}

/// The kinds of lists, which differ in what they may be sorted by.
#[derive(Clone, Copy)]
pub(super) enum Sorting {
    Routers,
    Services,
    Middlewares,
    Certificates,
}

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        let value = |name: &str| {
            // Go drops a pair with a semicolon in it.
            let pairs = query.split('&').filter(|pair| !pair.contains(';'));
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .find(|(key, _)| decoded(key, true) == name)
                .map(|(_, value)| decoded(value, true))
                .unwrap_or_default()
        };
        Self {
            page: value("page"),
            per_page: value("per_page"),
            search: value("search").to_lowercase(),
            status: value("status").to_lowercase(),
            service_name: value("serviceName"),
            middleware_name: value("middlewareName"),
            sort_by: value("sortBy"),
            descending: !matches!(&*value("direction"), "" | "asc"),
        }
    }

    /// The page of `items` that is asked for, in the order that is asked for.
    pub(super) fn list(&self, sorting: Sorting, mut items: Vec<Value>) -> Response {
        items.sort_by(|one, other| {
            let order = sorting.compare(&self.sort_by, one, other);
            if self.descending { order.reverse() } else { order }
        });
        self.page(items)
    }

    /// One page of `items`; the number of the next in `X-Next-Page`, 1 when there is none.
    pub(super) fn page(&self, items: Vec<Value>) -> Response {
        let numbers = positive("per_page", &self.per_page, PER_PAGE)
            .and_then(|per_page| positive("page", &self.page, 1).map(|page| (page, per_page)));
        let (page, per_page) = match numbers {
            Ok(numbers) => numbers,
            Err(message) => return error(StatusCode::BAD_REQUEST, &message),
        };
        let size = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
        let start = size(page - 1).saturating_mul(size(per_page));
        if start > 0 && start >= items.len() {
            let message = format!("invalid request: page: {page}, per_page: {per_page}");
            return error(StatusCode::BAD_REQUEST, &message);
        }
        let more = start.saturating_add(size(per_page)) < items.len();
        let items: Vec<_> = items.into_iter().skip(start).take(size(per_page)).collect();
        let mut response = ok(&Value::Array(items));
        let next = if more { page + 1 } else { 1 };
        response
            .headers_mut()
            .insert(HeaderName::from_static("x-next-page"), HeaderValue::from(next));
        response
    }
}

/// A number of the query. What is no number is named as the 0 that Go reads it as.
fn positive(name: &str, text: &str, default: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(default);
    }
    match text.parse::<i64>() {
        Ok(number) if number > 0 => Ok(number),
        Ok(number) => Err(format!("invalid request: {name}: {number}")),
        Err(_) => Err(format!("invalid request: {name}: 0")),
    }
}

impl Sorting {
    /// By the wanted field, then by name; fields that the kind does not know mean the name.
    fn compare(self, by: &str, one: &Value, other: &Value) -> Ordering {
        let text = |field: &str, value: &Value| {
            value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let texts = |field: &str| text(field, one).cmp(&text(field, other));
        let counts = |place: &str| {
            let count =
                |value: &Value| value.pointer(place).and_then(Value::as_array).map_or(0, Vec::len);
            count(one).cmp(&count(other))
        };
        let issuers = || {
            let issuer = |value: &Value| {
                let organization = text("issuerOrg", value);
                if organization.is_empty() { text("issuerCN", value) } else { organization }
            };
            issuer(one).cmp(&issuer(other))
        };
        let wanted = match (self, by) {
            (_, "status") => texts("status"),
            (Self::Routers | Self::Services | Self::Middlewares, "provider") => texts("provider"),
            (Self::Routers, "rule" | "service") => texts(by),
            (Self::Routers, "priority") => {
                let priority = |value: &Value| value.get("priority").and_then(Value::as_i64);
                priority(one).cmp(&priority(other))
            }
            (Self::Routers, "entryPoints") => counts("/entryPoints"),
            (Self::Services | Self::Middlewares, "type") => texts("type"),
            (Self::Services, "servers") => counts("/loadBalancer/servers"),
            (Self::Certificates, "issuer") => issuers(),
            (Self::Certificates, "validUntil") => texts("notAfter"),
            _ => Ordering::Equal,
        };
        let name = if matches!(self, Self::Certificates) { "commonName" } else { "name" };
        wanted.then_with(|| texts(name))
    }
}

/// Text without its escapes; in a query, `+` is a space.
pub(super) fn decoded(text: &str, in_query: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digit =
                    |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
                if let (Some(high), Some(low)) = (digit(high), digit(low)) {
                    bytes.push(high * 16 + low);
                    rest = after;
                } else {
                    bytes.push(first);
                }
            }
            (b'+', _) if in_query => bytes.push(b' '),
            _ => bytes.push(first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// API-20, API-21
    #[test]
    fn pages_are_counted_as_traefik_does() {
        let items = |count: usize| (0..count).map(|n| json!(n)).collect::<Vec<_>>();
        let next =
            |response: &Response| response.headers()["x-next-page"].to_str().unwrap().to_owned();
        assert_eq!(next(&Query::parse("").page(items(3))), "1");
        assert_eq!(next(&Query::parse("page=1&per_page=2").page(items(3))), "2");
        assert_eq!(next(&Query::parse("page=2&per_page=2").page(items(3))), "1");
        assert_eq!(next(&Query::parse("").page(items(101))), "2");
        for bad in ["page=0", "page=x", "per_page=-1", "page=3&per_page=2"] {
            assert_eq!(Query::parse(bad).page(items(3)).status(), StatusCode::BAD_REQUEST, "{bad}");
        }
        assert_eq!(Query::parse("page=1").page(items(0)).status(), StatusCode::OK);
        assert_eq!(positive("page", "x", 1).unwrap_err(), "invalid request: page: 0");
        assert_eq!(positive("per_page", "-7", 1).unwrap_err(), "invalid request: per_page: -7");
        let huge = format!("page={0}&per_page={0}", i64::MAX);
        assert_eq!(Query::parse(&huge).page(items(3)).status(), StatusCode::BAD_REQUEST);
    }

    /// API-26
    #[test]
    fn every_kind_of_list_has_its_orders() {
        let names = |sorting: Sorting, items: &Value, query: &str| {
            let query = Query::parse(query);
            let mut items = items.as_array().unwrap().clone();
            items.sort_by(|one, other| {
                let order = sorting.compare(&query.sort_by, one, other);
                if query.descending { order.reverse() } else { order }
            });
            let name = |item: &Value| item["id"].as_str().unwrap().to_owned();
            items.iter().map(name).collect::<Vec<_>>().concat()
        };
        let routers = json!([
            {"id": "a", "name": "a", "provider": "x", "priority": 9, "status": "enabled", "rule": "2", "service": "s",
             "entryPoints": ["1", "2"]},
            {"id": "b", "name": "b", "provider": "w", "priority": 10, "status": "disabled", "rule": "1", "service": "r",
             "entryPoints": ["1"]},
            {"id": "c", "name": "c", "provider": "w", "priority": 9, "status": "enabled", "rule": "3", "service": "t"},
        ]);
        for (query, wanted) in [
            ("", "abc"),
            ("direction=desc", "cba"),
            ("direction=asc", "abc"),
            ("sortBy=nothing", "abc"),
            ("sortBy=provider", "bca"),
            ("sortBy=provider&direction=desc", "acb"),
            ("sortBy=priority", "acb"),
            ("sortBy=status", "bac"),
            ("sortBy=rule", "bac"),
            ("sortBy=service", "bac"),
            ("sortBy=entryPoints", "cba"),
        ] {
            assert_eq!(names(Sorting::Routers, &routers, query), wanted, "{query}");
        }
        let services = json!([
            {"id": "a", "name": "a", "type": "weighted"},
            {"id": "b", "name": "b", "type": "loadbalancer", "loadBalancer": {"servers": [1, 2]}},
            {"id": "c", "name": "c", "type": "loadbalancer", "loadBalancer": {"servers": [1]}},
        ]);
        for (query, wanted) in
            [("sortBy=type", "bca"), ("sortBy=servers", "acb"), ("sortBy=rule", "abc")]
        {
            assert_eq!(names(Sorting::Services, &services, query), wanted, "{query}");
        }
        assert_eq!(names(Sorting::Middlewares, &services, "sortBy=type&direction=desc"), "acb");
        assert_eq!(names(Sorting::Middlewares, &services, "sortBy=servers"), "abc");
        let certificates = json!([
            {"id": "a", "commonName": "a", "issuerOrg": "z", "issuerCN": "a", "notAfter": "2031-01-01T00:00:00Z",
             "status": "enabled"},
            {"id": "b", "commonName": "b", "issuerCN": "y", "notAfter": "2030-01-01T00:00:00Z", "status": "warning"},
        ]);
        for (query, wanted) in [
            ("sortBy=cn", "ab"),
            ("sortBy=name&direction=desc", "ba"),
            ("sortBy=issuer", "ba"),
            ("sortBy=validUntil", "ba"),
            ("sortBy=status", "ab"),
            ("sortBy=provider", "ab"),
        ] {
            assert_eq!(names(Sorting::Certificates, &certificates, query), wanted, "{query}");
        }
    }

    /// API-27
    #[test]
    fn a_plus_is_a_space_in_a_query_only() {
        assert_eq!(decoded("a+b%2Fc%40d", false), "a+b/c@d");
        assert_eq!(decoded("a+b%2fc%zz%", true), "a b/c%zz%");
        assert_eq!(Query::parse("search=a;b&search=c").search, "c");
    }
}
