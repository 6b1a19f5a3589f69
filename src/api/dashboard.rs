//! The page that stands where Traefik has its dashboard, and the ways that lead to it.
//!
//! It names only paths below the API's own base path; what a proxy in front of Doorward says of its prefix never leads
//! to another host.

use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::not_found;
use crate::exchange::error::empty;
use crate::exchange::{Body, Context, Handler, Request, Response, ResponseFuture, ready};

/// `dashboard@internal`: a page that says where the API is.
pub struct Dashboard {
    /// `api.basePath`, without a slash at its end.
    pub base_path: String,
}

impl Handler for Dashboard {
    fn handle<'a>(&'a self, _cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        let base = self.base_path.trim_end_matches('/');
        let path = request.uri().path();
        let below = path.strip_prefix(base).unwrap_or(path);
        if !matches!(below, "/dashboard/" | "/" | "/dashboard" | "") {
            return ready(not_found());
        }
        ready(page(base))
    }
}

/// What `api@internal` answers besides the API, at `below` the base path, when there is a dashboard.
pub(super) fn beside_the_api(base: &str, below: &str, headers: &HeaderMap) -> Option<Response> {
    match below {
        "" | "/" | "/dashboard" => Some(to_the_page(base, headers)),
        "/dashboard/" => Some(page(base)),
        _ => None,
    }
}

fn page(base: &str) -> Response {
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Doorward</title>\
         <h1>Doorward</h1><p>There is no dashboard yet. The API is at \
         <a href=\"{base}/api/overview\">{base}/api/overview</a> and \
         <a href=\"{base}/api/rawdata\">{base}/api/rawdata</a>.</p></html>\n"
    );
    let mut response = Response::new(Body::from(page));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    response
}

fn to_the_page(base: &str, headers: &HeaderMap) -> Response {
    let location = format!("{}{base}/dashboard/", forwarded_prefix(headers));
    match HeaderValue::try_from(location) {
        Ok(location) => {
            let mut response = empty(StatusCode::FOUND);
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Err(_) => not_found(),
    }
}

/// `X-Forwarded-Prefix`, if it is a path: `//host` and what browsers read as that would lead elsewhere.
fn forwarded_prefix(headers: &HeaderMap) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte);
    headers
        .get("x-forwarded-prefix")
        .and_then(|value| value.to_str().ok())
        .filter(|prefix| prefix.starts_with('/') && prefix.bytes().all(plain))
        .map(|prefix| prefix.trim_end_matches('/'))
        .filter(|prefix| !prefix.starts_with("//"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DASH-1
    #[test]
    fn a_prefix_leads_to_no_other_host() {
        for (said, prefix) in [
            ("/ops", "/ops"),
            ("/ops/", "/ops"),
            ("/", ""),
            ("//evil.test", ""),
            ("//", ""),
            ("/\\evil.test", ""),
            ("https://evil.test", ""),
            ("ops", ""),
            ("", ""),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-prefix", HeaderValue::from_static(said));
            assert_eq!(forwarded_prefix(&headers), prefix, "{said}");
            let answer = beside_the_api("/base", "/", &headers).unwrap();
            assert_eq!(answer.status(), StatusCode::FOUND);
            assert_eq!(answer.headers()[LOCATION], format!("{prefix}/base/dashboard/"));
        }
        assert!(beside_the_api("", "/dashboards", &HeaderMap::new()).is_none());
    }
}
