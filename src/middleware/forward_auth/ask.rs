//! What the authentication server is told of a request.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, HeaderValue, Method, Uri};

use super::ForwardAuth;
use crate::exchange::forwarded::{
    X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_METHOD, X_FORWARDED_PORT, X_FORWARDED_PROTO,
    X_FORWARDED_URI, is_managed, remove_named_in_connection,
};
use crate::exchange::{Context, Request};
use crate::upstream::headers::{append_forwarded_for, join_cookies};

/// What belongs to the client's connection or frames its message. `Proxy-Authorization` is passed
/// on (RFC 9110, 11.7.2).
const LEFT_OUT: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

impl ForwardAuth {
    /// The question whether `request` may pass.
    pub(super) fn question(
        &self,
        cx: &Context,
        request: &Request,
        body: Bytes,
    ) -> http::Request<Bytes> {
        let mut headers = self.passed_headers(request.headers());
        let explicit = self.trust.is_some();
        if explicit {
            append_forwarded_for(&mut headers, &cx.connection.peer_ip_text);
        } else {
            headers.insert(X_FORWARDED_FOR, cx.connection.peer_ip_text.clone());
        }
        let scheme = cx.connection.scheme().as_str();
        let host = request.headers().get(HOST).or(cx.authority.as_ref());
        let uri = request.uri().path_and_query().map_or("/", |target| target.as_str());
        for (name, value) in [
            (X_FORWARDED_METHOD, value(request.method().as_str())),
            (X_FORWARDED_PROTO, HeaderValue::from_static(scheme)),
            (X_FORWARDED_HOST, host.cloned().unwrap_or_else(|| HeaderValue::from_static(""))),
            (X_FORWARDED_URI, value(uri)),
        ] {
            if !explicit || !headers.contains_key(&name) {
                headers.insert(name, value);
            }
        }
        if explicit && !headers.contains_key(X_FORWARDED_PORT) {
            let port = port(host, &headers, scheme == "https");
            headers.insert(X_FORWARDED_PORT, port);
        }
        if let Some(ours) = &self.authorization {
            headers.entry(AUTHORIZATION).or_insert_with(|| ours.clone());
        }
        join_cookies(&mut headers);
        let method = if self.keeps_method { request.method().clone() } else { Method::GET };
        if body.is_empty() && matches!(method, Method::POST | Method::PUT | Method::PATCH) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut question = http::Request::new(body);
        *question.method_mut() = method;
        *question.uri_mut() = Uri::from(self.path.clone());
        *question.headers_mut() = headers;
        question
    }

    fn passed_headers(&self, headers: &HeaderMap) -> HeaderMap {
        let mut passed = headers.clone();
        remove_named_in_connection(&mut passed, |_| false);
        let trusted = self.trust == Some(true);
        let unwanted = |name: &HeaderName| {
            let managed = is_managed(name.as_str().as_bytes());
            // With a list, what is trusted is passed on under its own names only.
            let listed = self.passed.is_empty()
                || self.passed.contains(name)
                || trusted && managed && !name.as_str().contains('_');
            LEFT_OUT.contains(name) || managed && self.trust == Some(false) || !listed
        };
        let unwanted: Vec<HeaderName> =
            passed.keys().filter(|name| unwanted(name)).cloned().collect();
        for name in &unwanted {
            passed.remove(name);
        }
        passed
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The port of the host, or that of the scheme.
fn port(host: Option<&HeaderValue>, headers: &HeaderMap, tls: bool) -> HeaderValue {
    let authority = host.and_then(|host| http::uri::Authority::try_from(host.as_bytes()).ok());
    let port = authority.as_ref().and_then(http::uri::Authority::port);
    if let Some(port) = port.and_then(|port| HeaderValue::from_str(port.as_str()).ok()) {
        return port;
    }
    let proto = headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes);
    let encrypted = tls || matches!(proto, Some(b"https" | b"wss"));
    HeaderValue::from_static(if encrypted { "443" } else { "80" })
}
