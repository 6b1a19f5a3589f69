//! Who wants to know how an exchange went, told once, when the response's body is over.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::{ClientTls, Ending, ProxyError};

/// Kind of traffic, as the `protocol` label of Traefik's metrics names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Plain request and response.
    Http,
    /// `text/event-stream`.
    Sse,
    /// A WebSocket handshake and its tunnel.
    WebSocket,
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
}

impl Protocol {
    /// What a request with these headers is, if it does not ask for an upgrade.
    pub fn of_request(headers: &HeaderMap) -> Self {
        match headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) {
            Some(kind) if kind.starts_with(b"application/grpc-web") => Self::GrpcWeb,
            Some(kind) if kind.starts_with(b"application/grpc") => Self::Grpc,
            _ => Self::Http,
        }
    }

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Sse => "sse",
            Self::WebSocket => "websocket",
            Self::Grpc => "grpc",
            Self::GrpcWeb => "grpc-web",
        }
    }
}

/// One finished exchange.
#[derive(Debug)]
pub struct Observation<'a> {
    /// Status that the client got.
    pub status: StatusCode,
    /// `grpc-status`, from trailers or headers, for gRPC.
    pub grpc_status: Option<u16>,
    /// The client's method.
    pub method: &'a Method,
    /// The client's headers that metrics may want as labels; empty when none are configured.
    pub headers: &'a HeaderMap,
    /// Kind of traffic.
    pub protocol: Protocol,
    /// What TLS said, if it was used.
    pub tls: Option<&'a ClientTls>,
    /// From the head of the request to the end of the response.
    pub duration: Duration,
    /// Payload bytes received.
    pub request_bytes: u64,
    /// Payload bytes sent.
    pub response_bytes: u64,
    /// How the response's body ended.
    pub ending: Ending,
    /// Why we made the response ourselves.
    pub error: Option<ProxyError>,
}

/// Something that counts exchanges: the metrics of a router or service, bound when it was compiled.
pub trait Observer: Send + Sync {
    /// Takes note of one finished exchange.
    fn observe(&self, exchange: &Observation<'_>);
    /// Takes note that a request is sent again.
    fn retried(&self) {}
}
