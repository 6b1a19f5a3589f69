//! Why we, and not the backend, made a response; and what the inner layers learned on the way.
//!
//! A `ProxyError` becomes a response in one function and travels on inside `Outcome`, so that
//! `retry`, the access log and the metrics can ask for it. Statuses and bodies are Traefik's.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Body, Observer, Response};

/// Why a request got no answer from a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The service has no server that may be asked.
    #[error("no available server")]
    NoAvailableServer,
    /// The server's name could not be resolved, or nothing listens there.
    #[error("connection to the server failed")]
    ConnectFailed,
    /// The server did not accept within `dialTimeout`, or TLS took too long.
    #[error("connection to the server timed out")]
    ConnectTimeout,
    /// The server's certificate was refused, or it does not speak TLS.
    #[error("TLS to the server failed")]
    TlsFailed,
    /// The server ended TLS with an alert.
    #[error("the server refused TLS")]
    TlsAlert,
    /// The connection ended before the head of an answer.
    #[error("the server closed the connection before it answered")]
    UpstreamClosed,
    /// What the server sent is no valid HTTP.
    #[error("the server's answer is not valid HTTP")]
    UpstreamInvalid,
    /// The head of the answer did not come within `responseHeaderTimeout`.
    #[error("the server did not answer in time")]
    ResponseTimeout,
    /// The server answered 101 that nobody asked for, or another protocol.
    #[error("the server switched protocols unasked")]
    UnexpectedUpgrade,
    /// The client went away.
    #[error("the client went away")]
    ClientGone,
    /// The client's body broke the rules of HTTP.
    #[error("the request body is malformed")]
    BadRequestBody,
    /// The client's body did not come in time.
    #[error("the request body did not arrive in time")]
    RequestTimeout,
    /// The client's body is longer than `requestBody.maxBytes`.
    #[error("the request body is too large")]
    BodyTooLarge,
    /// The client's body came more slowly than `timeouts` allows.
    #[error("the request body came too slowly")]
    BodyTooSlow,
    /// The server paused inside its answer for longer than `timeouts.idle`.
    #[error("the server paused for too long inside its answer")]
    AnswerStalled,
    /// The exchange was not over within `timeouts.total`.
    #[error("the exchange took too long")]
    TotalTimeout,
    /// What the request needs is in error in the configuration.
    #[error("the router is in error")]
    BrokenRouter,
    /// A handler panicked.
    #[error("internal error")]
    Panic,
}

impl ProxyError {
    /// The status that the client gets (Traefik reference, `pkg/proxy/httputil`).
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoAvailableServer | Self::BrokenRouter => StatusCode::SERVICE_UNAVAILABLE,
            Self::ConnectFailed | Self::TlsAlert | Self::UpstreamClosed | Self::UpstreamInvalid => {
                StatusCode::BAD_GATEWAY
            }
            Self::ConnectTimeout
            | Self::ResponseTimeout
            | Self::AnswerStalled
            | Self::TotalTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::TlsFailed | Self::UnexpectedUpgrade | Self::Panic => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::ClientGone => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::BadRequestBody => StatusCode::BAD_REQUEST,
            Self::RequestTimeout | Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    /// Whether the client is to blame, and what it sent.
    pub fn is_clients(self) -> bool {
        matches!(
            self,
            Self::ClientGone
                | Self::BadRequestBody
                | Self::RequestTimeout
                | Self::BodyTooLarge
                | Self::BodyTooSlow
        )
    }

    /// Which limit of a router or service was exceeded, for the access log.
    pub fn exceeded(self) -> Option<&'static str> {
        Some(match self {
            Self::BodyTooLarge => "request body over requestBody.maxBytes",
            Self::BodyTooSlow => "request body slower than timeouts allow",
            Self::AnswerStalled => "answer paused for longer than timeouts.idle",
            Self::TotalTimeout => "exchange longer than timeouts.total",
            _ => return None,
        })
    }

    /// Whether nothing of the request can have reached a server.
    pub fn nothing_sent(self) -> bool {
        matches!(
            self,
            Self::ConnectFailed | Self::ConnectTimeout | Self::TlsFailed | Self::TlsAlert
        )
    }

    /// Turns the error into the response that says so.
    pub fn into_response(self) -> Response {
        let mut response = match self {
            Self::NoAvailableServer => text(self.status(), "no available server\n"),
            Self::BrokenRouter => text(self.status(), "Service Unavailable\n"),
            Self::Panic => text(self.status(), "Internal Server Error\n"),
            Self::BodyTooLarge => too_large(),
            _ => bare(self.status()),
        };
        response.extensions_mut().insert(Outcome { error: Some(self), ..Outcome::default() });
        response
    }
}

/// What the inner layers learned about a request: in the response's extensions.
#[derive(Clone, Default)]
pub struct Outcome {
    /// Why we made the response ourselves.
    pub error: Option<ProxyError>,
    /// Routers below the entry point's that the request went through, ` -> ` in between.
    pub routers_below: Option<Arc<str>>,
    /// Name of the service that answered.
    pub service: Option<Arc<str>>,
    /// URL of the server that was asked, as configured.
    pub server: Option<Arc<str>>,
    /// Status that the server sent, before anything changed it.
    pub origin_status: Option<StatusCode>,
    /// Headers that the server sent, if the access log wants any.
    pub origin_headers: Option<Arc<HeaderMap>>,
    /// From sending the request to the head of the server's answer.
    pub origin_duration: Option<Duration>,
    /// How many times the request was sent again.
    pub retries: u32,
    /// Name that authentication found.
    pub user: Option<Arc<str>>,
    /// We ask for credentials here (401) without any having been wrong: there were none, or right
    /// ones were out of date.
    pub challenge: bool,
    /// The request was handed to a server, so a backend may have seen it.
    pub sent: bool,
    /// When the service took the request over from the middlewares.
    pub service_start: Option<Instant>,
    /// When the last byte must have been delivered (`timeouts.total`).
    pub until: Option<Instant>,
    /// Which limit cut the exchange short when its answer had begun already.
    pub later: Option<Later>,
    /// Who wants to be told when the exchange is over, inner ones first.
    pub observers: SmallVec<[Arc<dyn Observer>; 1]>,
}

impl Outcome {
    /// The outcome of `response`, made empty when nobody left one yet.
    pub fn of(response: &mut Response) -> &mut Self {
        response.extensions_mut().get_or_insert_default::<Self>()
    }
}

/// Where is said which limit cut an exchange short, by whoever finds it out.
pub type Later = Arc<OnceLock<ProxyError>>;

/// The answer to a body that is too long: Go's name for this status is older than that of the `http` crate.
pub fn too_large() -> Response {
    let mut response = bare(StatusCode::PAYLOAD_TOO_LARGE);
    *response.body_mut() = Body::from_static(b"Request Entity Too Large");
    response
}

/// A response like Go's `http.Error` writes it: text, a newline at the end of `body`, no sniffing.
pub fn text(status: StatusCode, body: &'static str) -> Response {
    let mut response = Response::new(Body::from_static(body.as_bytes()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A response whose body is the status text alone, without a `Content-Type`.
pub fn bare(status: StatusCode) -> Response {
    let reason = if status.as_u16() == 499 {
        "Client Closed Request"
    } else {
        status.canonical_reason().unwrap_or("")
    };
    let mut response = Response::new(Body::from_static(reason.as_bytes()));
    *response.status_mut() = status;
    response
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
