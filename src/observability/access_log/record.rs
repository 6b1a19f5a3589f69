//! What is known of one finished exchange. Borrows everything.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, Version};

use crate::exchange::{ClientTls, Scheme};

/// One exchange, as the access log wants it.
#[derive(Clone, Copy)]
pub struct AccessRecord<'a> {
    /// When the head of the request was complete.
    pub start: SystemTime,
    /// From `start` to the end of the response.
    pub duration: Duration,
    /// Name of the entry point.
    pub entry_point: &'a str,
    /// Name of the router, with its provider; child routers joined by ` -> `.
    pub router: Option<&'a str>,
    /// Name of the service, with its provider.
    pub service: Option<&'a str>,
    /// URL of the server that was asked; `ServiceAddr` is taken from it.
    pub server_url: Option<&'a str>,
    /// The client's address.
    pub client: SocketAddr,
    /// `X-Forwarded-For` as the entry point left it, in front of our own addition:
    /// it becomes `ClientHost`.
    pub forwarded_for: Option<&'a HeaderValue>,
    /// Name that authentication found.
    pub user: Option<&'a str>,
    /// The authority as the client wrote it.
    pub authority: Option<&'a HeaderValue>,
    /// The client's method.
    pub method: &'a Method,
    /// Path and query as the client wrote them.
    pub path: &'a str,
    /// Version of HTTP that the client spoke.
    pub protocol: Version,
    /// Whether TLS protected the connection.
    pub scheme: Scheme,
    /// What TLS said.
    pub tls: Option<&'a ClientTls>,
    /// Subject of the client's certificate.
    pub tls_subject: Option<&'a str>,
    /// Payload bytes received.
    pub request_bytes: u64,
    /// See `AccessLog::count_request`.
    pub request_count: u64,
    /// Name of the request, where requests get names.
    pub request_id: Option<&'a HeaderValue>,
    /// How many times the request was sent again.
    pub retries: u32,
    /// Status of the server's answer; unset (or zero, as Traefik writes) when there is none.
    pub origin_status: Option<u16>,
    /// How long the service took.
    pub origin_duration: Option<Duration>,
    /// Payload bytes that the server sent.
    pub origin_bytes: Option<u64>,
    /// Status that the client got.
    pub status: u16,
    /// Payload bytes sent to the client.
    pub response_bytes: u64,
    /// Why we refused the request or answered it ourselves.
    pub reason: Option<&'a str>,
    /// The client's headers; see `AccessLog::capture`.
    pub request_headers: Option<&'a HeaderMap>,
    /// Headers of the server's answer.
    pub origin_headers: Option<&'a HeaderMap>,
    /// Headers that the client got.
    pub downstream_headers: Option<&'a HeaderMap>,
}

impl<'a> AccessRecord<'a> {
    /// Host and port of the server.
    pub(super) fn server_addr(&self) -> Option<&'a str> {
        let url = self.server_url?;
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        rest.get(..end).map(|authority| authority.rsplit_once('@').map_or(authority, |(_, a)| a))
    }

    /// Host and port that the client asked for; the port is `-` when it wrote none.
    pub(super) fn host_and_port(&self) -> Option<(&'a [u8], &'a [u8])> {
        let whole = self.authority?.as_bytes();
        if let Some(rest) = whole.strip_prefix(b"[") {
            let end = memchr::memchr(b']', rest);
            let parts = end.and_then(|end| Some((rest.get(..end)?, rest.get(end + 1..)?)));
            return Some(match parts {
                Some((host, tail)) => {
                    tail.strip_prefix(b":").map_or((whole, b"-".as_slice()), |port| (host, port))
                }
                None => (whole, b"-"),
            });
        }
        let colon = memchr::memchr(b':', whole);
        Some(match colon.and_then(|colon| Some((whole.get(..colon)?, whole.get(colon + 1..)?))) {
            Some((host, port)) if memchr::memchr(b':', port).is_none() => (host, port),
            _ => (whole, b"-"),
        })
    }

    /// The path, with or without the query.
    pub(super) fn path(&self, query: bool) -> &'a str {
        if query {
            return self.path;
        }
        self.path.split_once('?').map_or(self.path, |(path, _)| path)
    }

    /// The version as Go writes it.
    pub(super) fn protocol(&self) -> &'static str {
        match self.protocol {
            Version::HTTP_09 => "HTTP/0.9",
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            Version::HTTP_3 => "HTTP/3.0",
            _ => "HTTP/1.1",
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Owns what a record borrows.
    pub(in super::super) struct Sample {
        pub(in super::super) authority: HeaderValue,
        pub(in super::super) method: Method,
        pub(in super::super) request: HeaderMap,
    }

    impl Default for Sample {
        fn default() -> Self {
            let mut request = HeaderMap::new();
            request.insert("referer", HeaderValue::from_static("testReferer"));
            request.insert("user-agent", HeaderValue::from_static("testUserAgent"));
            Self {
                authority: HeaderValue::from_static("TestHost:8080"),
                method: Method::POST,
                request,
            }
        }
    }

    impl Sample {
        pub(in super::super) fn record(&self) -> AccessRecord<'_> {
            AccessRecord {
                start: SystemTime::UNIX_EPOCH + Duration::new(1_460_556_859, 5_000),
                duration: Duration::from_micros(1_500),
                entry_point: "web",
                router: Some("testRouter@file"),
                service: Some("testService@file"),
                server_url: Some("http://127.0.0.1:8069/base"),
                client: "10.0.0.9:4711".parse().unwrap(),
                forwarded_for: None,
                user: Some("TestUser"),
                authority: Some(&self.authority),
                method: &self.method,
                path: "/testpath?param1=test1&param2=test2",
                protocol: Version::HTTP_2,
                scheme: Scheme::Http,
                tls: None,
                tls_subject: None,
                request_bytes: 7,
                request_count: 1,
                request_id: None,
                retries: 0,
                origin_status: Some(200),
                origin_duration: Some(Duration::from_millis(1)),
                origin_bytes: Some(24),
                status: 123,
                response_bytes: 12,
                reason: None,
                request_headers: Some(&self.request),
                origin_headers: None,
                downstream_headers: None,
            }
        }
    }

    #[test]
    fn hosts_are_split_as_go_splits_them() {
        for (authority, host, port) in [
            ("a.example", "a.example", "-"),
            ("a.example:80", "a.example", "80"),
            ("[::1]:80", "::1", "80"),
            ("[::1]", "[::1]", "-"),
            ("::1", "::1", "-"),
            ("[::1", "[::1", "-"),
            ("", "", "-"),
        ] {
            let sample = Sample { authority: authority.parse().unwrap(), ..Sample::default() };
            let parts = sample.record().host_and_port().unwrap();
            assert_eq!(parts, (host.as_bytes(), port.as_bytes()), "{authority}");
        }
    }

    #[test]
    fn the_servers_address_is_taken_from_its_url() {
        let sample = Sample::default();
        assert_eq!(sample.record().server_addr(), Some("127.0.0.1:8069"));
        let record = AccessRecord { server_url: Some("h2c://u:p@[::1]:1"), ..sample.record() };
        assert_eq!(record.server_addr(), Some("[::1]:1"));
    }
}
