//! One request in, one response out: made canonical, routed, answered, and written down when it is over.
//!
//! Invariant: rules, middlewares, logs and the backend see the same host, path, client and scheme,
//! and every request is counted exactly once, however it ends.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use futures_util::FutureExt;
use http::header::{CONTENT_TYPE, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::{debug, error};

use super::deadline::{TimedBody, WriteDeadline};
use super::guard::Limit;
use super::head;
use super::http::{Busy, Conversation};
use super::overload::{self, Weighed};
use super::paced::Paced;
use super::reply::{self, Received, refusal};
use super::stream;
use crate::exchange::canonical::{canonical_host, routing_path};
use crate::exchange::error::{empty, text};
use crate::exchange::forwarded::{self, ForwardedFacts, X_FORWARDED_FOR};
use crate::exchange::memory::{self, Held, Keeping};
use crate::exchange::request_id::{self, is_sane};
use crate::exchange::rounds;
use crate::exchange::view::{FlatHost, RequestView};
use crate::exchange::{
    Body, BodyEnd, ClientTls, Context, EndHook, Ending, Handler, Observation, Outcome, Protocol,
    ProxyError, Request, Response, on_end_boxed,
};
use crate::observability::access_log::AccessRecord;
use crate::observability::metrics::OpenConnection;
use crate::router::{HttpRouter, RoutingTable};
use crate::upstream::headers::upgrade_of;
use crate::wire::{BodyTimeout, InFlight};

/// A head that takes less is not worth counting.
const LONG_HEAD: usize = 8 << 10;

/// Answers one request of a connection.
pub(super) async fn answer(
    conversation: &Arc<Conversation>,
    request: http::Request<Incoming>,
) -> Response {
    let start = Instant::now();
    let last = conversation.is_last(start);
    let (mut response, mut exchange) = match admit(conversation, request, start) {
        Ok((request, mut exchange)) => {
            let response = exchange.run(request).await;
            (response, exchange)
        }
        Err(refused) => *refused,
    };
    let version = exchange.version;
    let received = exchange.received.clone();
    if version >= Version::HTTP_2 && exchange.method == Method::HEAD {
        reply::keep_head_only(&mut response);
    }
    exchange.name_response(&mut response);
    if conversation.door.entry_point.facts.hardened {
        reply::keep_out_of_caches(&mut response);
    }
    let until = exchange.attach(&mut response);
    if let Some(until) = until {
        // Nobody asks the body for more while the client takes nothing.
        match &conversation.gate {
            Some(gate) => gate.write_until(until),
            None => stream::end_at(until),
        }
    }
    if let Some(gate) = &conversation.gate {
        gate.answered(response.status());
        let rest = received.is_some_and(|received| received.leaves_a_rest(gate));
        let last = last || rest || gate.asked_to_close();
        if last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            reply::close(&mut response);
        }
    }
    response
}

/// A request that was refused: the response, and what is to be said of it.
type Refused = Box<(Response, Box<Exchange>)>;

/// Checks a request and makes it canonical, or refuses it.
fn admit(
    conversation: &Arc<Conversation>,
    request: http::Request<Incoming>,
    start: Instant,
) -> Result<(Request, Box<Exchange>), Refused> {
    let (mut parts, body) = request.into_parts();
    let mut exchange = Exchange::new(conversation, start, parts.version);
    let entry_point = &conversation.door.entry_point;
    let mut switches = false;
    if let Some(gate) = &conversation.gate {
        if let Some(held) = &conversation.held {
            held.begun();
        }
        match gate.admit() {
            Ok(in_flight) => exchange.in_flight = Some(in_flight),
            Err(rejection) => {
                if let Some(method) = rejection.method.as_deref() {
                    exchange.method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET);
                }
                exchange.raw_target = rejection.target;
                return exchange.refuse(rejection.status, rejection.reason);
            }
        }
        // Only a body that fails and an upgrade ask the gate again.
        switches = parts.headers.contains_key(UPGRADE);
        if switches || !body.is_end_stream() {
            parts.extensions.insert(Arc::clone(gate));
        }
    }
    exchange.method = parts.method.clone();
    exchange.uri = parts.uri.clone();
    exchange.capture_request(&parts.headers);
    let Some(size) = entry_point.limits.measure(&parts.headers) else {
        conversation.bombs.fetch_add(1, Relaxed);
        return exchange
            .refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header fields");
    };
    if exchange.is_too_heavy(size) {
        return exchange.refuse(StatusCode::SERVICE_UNAVAILABLE, "overload");
    }
    if conversation.gate.is_none() && !exchange.takes_room(size) {
        return exchange.refuse(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "too many header fields in the requests of this connection",
        );
    }
    if let Err(refusal) = head::canonicalize(entry_point, &mut parts) {
        return exchange.refuse(refusal.status, refusal.reason);
    }
    exchange.uri = parts.uri.clone();
    // Traefik lets such a request go round until descriptors run out.
    if !entry_point.facts.exact
        && !rounds::count(&mut parts.headers, &conversation.door.shared.server_name)
    {
        return exchange.refuse(StatusCode::LOOP_DETECTED, "the request has come back too often");
    }
    exchange.describe(conversation, &mut parts.headers);
    let carries = memory::is_limited() && !body.is_end_stream();
    // Of HTTP/1 alone: a tunnel goes on with what is held for its connection.
    if (carries || switches)
        && let Some(held) = exchange.held()
    {
        parts.extensions.insert(held);
    }
    let body = exchange.body(conversation, body);
    Ok((Request::from_parts(parts, body), exchange))
}

/// One request and what is to be said of it when it is over.
///
/// Dropped before its response is attached, it counts as left by the client.
struct Exchange {
    conversation: Arc<Conversation>,
    cx: Context,
    method: Method,
    uri: Uri,
    version: Version,
    started: SystemTime,
    raw_target: Option<Box<str>>,
    reason: Option<&'static str>,
    protocol: Protocol,
    router: Option<Arc<HttpRouter>>,
    received: Option<Arc<Received>>,
    request_headers: Option<HeaderMap>,
    label_headers: Option<HeaderMap>,
    forwarded_for: Option<HeaderValue>,
    request_count: u64,
    in_flight: Option<InFlight>,
    /// HTTP/2 only: the part of its connection's room for heads that it takes.
    head: usize,
    /// HTTP/2 only: what is held for its stream, where that is counted.
    held: Option<Arc<Held>>,
    /// A long head, where that is counted.
    keeping: Option<Keeping>,
    /// HTTP/2 only.
    _busy: Option<Busy>,
    result: Option<Answered>,
    table: Option<Arc<RoutingTable>>,
}

/// What is known when the head of the response is.
struct Answered {
    status: StatusCode,
    outcome: Outcome,
    grpc_status: Option<u16>,
    origin_headers: Option<HeaderMap>,
    downstream_headers: Option<HeaderMap>,
    /// A tunnel is what has become of its connection, which counts as open until then.
    _tunnel: Option<OpenConnection>,
}

impl Exchange {
    fn new(conversation: &Arc<Conversation>, start: Instant, version: Version) -> Box<Self> {
        let log = conversation.door.shared.access_log.as_ref();
        Box::new(Self {
            cx: Context {
                connection: Arc::clone(&conversation.connection),
                host: Box::default(),
                authority: None,
                start,
                request_id: None,
            },
            conversation: Arc::clone(conversation),
            method: Method::GET,
            uri: Uri::default(),
            version,
            started: if log.is_some() { SystemTime::now() } else { SystemTime::UNIX_EPOCH },
            raw_target: None,
            reason: None,
            protocol: Protocol::Http,
            router: None,
            received: None,
            request_headers: None,
            label_headers: None,
            forwarded_for: None,
            request_count: log.map_or(0, |log| log.count_request()),
            in_flight: None,
            head: 0,
            held: None,
            keeping: None,
            _busy: conversation.gate.is_none().then(|| Busy::new(conversation)),
            result: None,
            table: None,
        })
    }

    /// Counts a long head, where memory has a limit; `true` when there is no room for it.
    fn is_too_heavy(&mut self, size: usize) -> bool {
        if size <= LONG_HEAD || !memory::is_limited() {
            return false;
        }
        if size > overload::LONG && memory::is_scarce() {
            return true;
        }
        let mut keeping = Keeping::new(self.held());
        keeping.grow(size);
        self.keeping = Some(keeping);
        false
    }

    /// Takes as much of the room that the heads of one connection have; `false` when there is not so much left.
    fn takes_room(&mut self, size: usize) -> bool {
        self.head = size;
        let taken = self.conversation.heads.fetch_add(size, Relaxed);
        taken + size <= self.conversation.door.entry_point.limits.at_once()
    }

    fn capture_request(&mut self, headers: &HeaderMap) {
        if let Some(log) = &self.conversation.door.shared.access_log {
            self.request_headers = log.capture(headers);
        }
        if self.conversation.door.shared.metrics.label_headers().next().is_some() {
            self.label_headers = Some(self.conversation.door.shared.metrics.capture(headers));
        }
    }

    /// Refuses the request before anything was routed.
    fn refuse<T>(
        mut self: Box<Self>,
        status: StatusCode,
        reason: &'static str,
    ) -> Result<T, Refused> {
        self.reason = Some(reason);
        let mut response = refusal(status, reason);
        // Whatever follows on this connection may have been meant as something else.
        if self.version < Version::HTTP_2 {
            reply::close(&mut response);
        }
        Err(Box::new((response, self)))
    }

    /// Writes the forwarded headers, and fills in what is known of the request.
    fn describe(&mut self, conversation: &Conversation, headers: &mut HeaderMap) {
        let connection = &conversation.connection;
        let entry_point = &conversation.door.entry_point;
        let websocket = self.version == Version::HTTP_11
            && upgrade_of(headers).is_some_and(|upgrade| upgrade.is_websocket());
        let host = headers.get(HOST).cloned();
        forwarded::apply(
            headers,
            &ForwardedFacts {
                peer_ip_text: &connection.peer_ip_text,
                trusted: conversation.trusted,
                tls: connection.tls.is_some(),
                websocket,
                host: host.as_ref(),
                server_name: &conversation.door.shared.server_name,
                connection_allow: &entry_point.connection_headers,
                strip_forwarded_rfc7239: entry_point.facts.hardened,
            },
        );
        if let Some(name) = &entry_point.request_id {
            let given = headers.get(name).filter(|id| conversation.trusted && is_sane(id)).cloned();
            let id = given.unwrap_or_else(request_id::new);
            forwarded::delete_spellings(headers, name);
            headers.insert(name, id.clone());
            self.cx.request_id = Some(id);
        }
        let text = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        self.cx.host = Box::from(&*canonical_host(text));
        self.cx.authority = host;
        self.protocol = protocol_of(websocket, headers);
        if conversation.door.shared.access_log.is_some() {
            self.forwarded_for = headers.get(X_FORWARDED_FOR).cloned();
        }
    }

    /// What is held for this exchange: of HTTP/1 that of its connection.
    fn held(&mut self) -> Option<Arc<Held>> {
        let of_connection = self.conversation.held.as_ref()?;
        if self.conversation.gate.is_some() {
            return Some(Arc::clone(of_connection));
        }
        let held = self.held.get_or_insert_with(|| {
            let held = Held::new(false);
            overload::here(&held);
            stream::end_with(Arc::clone(&held));
            held
        });
        Some(Arc::clone(held))
    }

    /// The body with its time limit and its count.
    fn body(&mut self, conversation: &Conversation, body: Incoming) -> Body {
        let mut body = Body::from(body);
        if body.is_end_stream() {
            return body;
        }
        let timeouts = &conversation.door.entry_point.timeouts;
        // On HTTP/1 the gate keeps the time, for a body and for everything else.
        if let (None, Some(limit)) = (&conversation.gate, timeouts.read) {
            body = Body::boxed(match timeouts.body {
                BodyTimeout::Total => TimedBody::until(body, self.cx.start + limit),
                BodyTimeout::PerRead => TimedBody::per_read(body, limit),
            });
        }
        let received = Arc::new(Received::of(&body));
        self.received = Some(Arc::clone(&received));
        body.on_end(move |end: BodyEnd, trailers: Option<&HeaderMap>| received.over(end, trailers));
        body
    }

    /// Finds the router and lets it answer.
    async fn run(&mut self, mut request: Request) -> Response {
        let flat = match &self.conversation.door.shared.cname {
            None => None,
            // Boxed: hardly anybody has it switched on.
            Some(flattener) => Box::pin(flattener.flat(&self.cx.host)).await,
        };
        if let Some(flat) = &flat {
            request.extensions_mut().insert(FlatHost(Arc::clone(flat)));
        }
        let path = routing_path(request.uri().path());
        let view = RequestView {
            host: &self.cx.host,
            flat_host: flat.as_deref(),
            path: &path,
            query: request.uri().query(),
            method: request.method(),
            headers: request.headers(),
            client_ip: self.cx.connection.peer_ip,
        };
        let table = self.conversation.door.shared.table.current();
        let routers = table.entry_points.get(self.conversation.door.entry_point.position);
        let secure = self.cx.connection.tls.is_some();
        let router = routers
            .map(|routes| if secure { &routes.https } else { &routes.http })
            .and_then(|routers| routers.find(&view));
        let Some(router) = router else {
            return text(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        if let Some(overload) = &self.conversation.door.shared.overload
            && !router.service.ends_with("@internal")
            && overload.refuses_request(|| self.conversation.has_others())
        {
            self.reason = Some("overload");
            return reply::overloaded();
        }
        self.router = Some(Arc::clone(router));
        if let Some(characters) = &router.encoded_characters
            && characters.denied(request.uri().path())
        {
            self.reason = Some("encoded character");
            return empty(StatusCode::BAD_REQUEST);
        }
        let strict = self.conversation.door.entry_point.strict_tls_options;
        if let (Some(routes), Some(tls)) = (routers, &self.cx.connection.tls)
            && routes.is_misdirected(
                router,
                &self.cx.host,
                (&tls.server_name, &tls.options),
                strict,
            )
        {
            self.reason = Some("TLS options of another host");
            return text(StatusCode::MISDIRECTED_REQUEST, "Misdirected Request\n");
        }
        drop(path);
        let router = Arc::clone(router);
        self.table = Some(table);
        // A handler may do all of its work before there is a future.
        let begin = AssertUnwindSafe(|| router.chain.handle(&self.cx, request));
        let answer = match catch_unwind(begin) {
            Ok(answer) => AssertUnwindSafe(answer).catch_unwind().await,
            Err(panic) => Err(panic),
        };
        answer.unwrap_or_else(|_| {
            error!(routerName = %router.name, "a handler panicked");
            ProxyError::Panic.into_response()
        })
    }

    /// Tells the client the name of its request, also of one that was refused before it had one.
    fn name_response(&mut self, response: &mut Response) {
        if let Some(name) = &self.conversation.door.entry_point.request_id {
            let id = self.cx.request_id.get_or_insert_with(request_id::new);
            response.headers_mut().insert(name, id.clone());
        }
    }

    /// Hands the exchange over to the response: it is over when the response is. Returns when that must be.
    fn attach(mut self: Box<Self>, response: &mut Response) -> Option<Instant> {
        let outcome = response.extensions_mut().remove::<Outcome>().unwrap_or_default();
        let until = outcome.until;
        let headers = response.headers();
        if headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
        {
            self.protocol = Protocol::Sse;
        }
        let shared = &self.conversation.door.shared;
        let capture = |headers| shared.access_log.as_ref().and_then(|log| log.capture(headers));
        let downstream_headers = capture(headers);
        let origin_headers = outcome.origin_headers.as_deref().and_then(capture);
        self.result = Some(Answered {
            status: response.status(),
            outcome,
            grpc_status: headers.get("grpc-status").and_then(number),
            origin_headers,
            downstream_headers,
            _tunnel: (response.status() == StatusCode::SWITCHING_PROTOCOLS)
                .then(|| self.conversation.door.opened()),
        });
        if let Some(limit) = self.conversation.door.entry_point.timeouts.write {
            let deadline = self.cx.start + limit;
            let body = std::mem::take(response.body_mut());
            *response.body_mut() = Body::boxed(WriteDeadline::new(body, deadline));
        }
        // A gate keeps this time by itself.
        if self.conversation.gate.is_none() && shared.guard.limits().stall.is_some() {
            Paced::wrap(response.body_mut());
        }
        // Outermost: while it gives nothing, it is the client's turn.
        if Weighed::wants(response.body())
            && let Some(held) = self.held()
        {
            let body = std::mem::take(response.body_mut());
            *response.body_mut() = Weighed::body(body, held);
        }
        on_end_boxed(response, self);
        until
    }

    fn finish(&mut self, end: BodyEnd, trailers: Option<&HeaderMap>) {
        let Some(answered) = self.result.take() else { return };
        if let Some(reason) = self.reason {
            let entry_point = &*self.cx.connection.entry_point.name;
            let (client, status) = (self.cx.connection.peer, answered.status.as_u16());
            debug!(entryPointName = entry_point, %client, status, reason, "request refused");
        }
        // From here on it is over: dropping it must not count it again.
        self.table = None;
        let shared = &self.conversation.door.shared;
        // HTTP/2: it pays for frames.
        if end.ending == Ending::Complete && self.conversation.gate.is_none() {
            self.conversation.answered.fetch_add(1, Relaxed);
        }
        if answered.outcome.error == Some(ProxyError::BodyTooSlow) {
            let at = &self.conversation.door.entry_point;
            shared.guard.hit(Limit::RequestBody, at, self.cx.connection.peer);
        }
        let now = Instant::now();
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.over(now);
        }
        let duration = now.saturating_duration_since(self.cx.start);
        let request_bytes = self.received.as_ref().map_or(0, |received| received.bytes());
        let trailer = trailers.and_then(|trailers| trailers.get("grpc-status")).and_then(number);
        let none = HeaderMap::new();
        let mut observation = Observation {
            status: answered.status,
            grpc_status: trailer.or(answered.grpc_status),
            method: &self.method,
            headers: self.label_headers.as_ref().unwrap_or(&none),
            protocol: self.protocol,
            tls: self.cx.connection.tls.as_ref(),
            duration,
            request_bytes,
            response_bytes: end.bytes,
            ending: end.ending,
            error: answered.outcome.error,
        };
        if self.router.as_ref().is_none_or(|router| router.count) {
            if let Some(metrics) = &self.conversation.door.entry_point.metrics {
                metrics.observe(&observation);
            }
            if let Some(metrics) = self.router.as_ref().and_then(|router| router.metrics.as_ref()) {
                metrics.observe(&observation);
            }
            if let Some(start) = answered.outcome.service_start {
                observation.duration = now.saturating_duration_since(start);
            }
            for observer in &answered.outcome.observers {
                observer.observe(&observation);
            }
        }
        let log = shared.access_log.as_ref().filter(|log| {
            self.router.as_ref().is_none_or(|router| router.access_log)
                && log.wants(answered.status.as_u16(), answered.outcome.retries, duration)
        });
        if let Some(log) = log {
            let router = self.router.as_ref().map(|router| match &answered.outcome.routers_below {
                None => Cow::Borrowed(&*router.name),
                Some(below) => Cow::Owned(format!("{} -> {below}", router.name)),
            });
            log.write(&self.record(&answered, router.as_deref(), &end, request_bytes, duration));
        }
    }

    fn record<'a>(
        &'a self,
        answered: &'a Answered,
        router: Option<&'a str>,
        end: &BodyEnd,
        request_bytes: u64,
        duration: std::time::Duration,
    ) -> AccessRecord<'a> {
        let connection = &self.cx.connection;
        let outcome = &answered.outcome;
        let exceeded = || {
            let later = outcome.later.as_ref().and_then(|later| later.get().copied());
            outcome.error.or(later).and_then(ProxyError::exceeded)
        };
        let path = match &self.raw_target {
            Some(target) => target,
            None => self.uri.path_and_query().map_or(self.uri.path(), |target| target.as_str()),
        };
        AccessRecord {
            start: self.started,
            duration,
            entry_point: &connection.entry_point.name,
            router,
            service: outcome.service.as_deref(),
            server_url: outcome.server.as_deref(),
            client: connection.peer,
            forwarded_for: self.forwarded_for.as_ref(),
            user: outcome.user.as_deref(),
            authority: self.cx.authority.as_ref(),
            method: &self.method,
            path,
            protocol: self.version,
            scheme: connection.scheme(),
            tls: connection.tls.as_ref(),
            tls_subject: connection.tls.as_ref().and_then(ClientTls::subject),
            request_bytes,
            request_count: self.request_count,
            request_id: self.cx.request_id.as_ref(),
            retries: outcome.retries,
            origin_status: outcome.origin_status.map(|status| status.as_u16()),
            origin_duration: outcome.origin_duration,
            origin_bytes: outcome.origin_status.map(|_| end.bytes),
            status: answered.status.as_u16(),
            response_bytes: end.bytes,
            reason: self.reason.or_else(exceeded),
            request_headers: self.request_headers.as_ref(),
            origin_headers: answered.origin_headers.as_ref(),
            downstream_headers: answered.downstream_headers.as_ref(),
        }
    }
}

impl EndHook for Exchange {
    fn ended(mut self: Box<Self>, end: BodyEnd, trailers: Option<&HeaderMap>) {
        self.finish(end, trailers);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let (Some(_), Some(held)) = (&self.conversation.gate, &self.conversation.held) {
            held.over();
        }
        if self.head > 0 {
            self.conversation.heads.fetch_sub(self.head, Relaxed);
        }
        // Dropped while a handler was still at it: the client went away.
        if self.result.is_none() && self.table.is_some() && !std::thread::panicking() {
            self.table = None;
            self.result = Some(Answered {
                status: ProxyError::ClientGone.status(),
                outcome: Outcome { error: Some(ProxyError::ClientGone), ..Outcome::default() },
                grpc_status: None,
                origin_headers: None,
                downstream_headers: None,
                _tunnel: None,
            });
            self.finish(BodyEnd { ending: Ending::Dropped, bytes: 0 }, None);
        }
    }
}

fn protocol_of(websocket: bool, headers: &HeaderMap) -> Protocol {
    if websocket { Protocol::WebSocket } else { Protocol::of_request(headers) }
}

fn number(value: &HeaderValue) -> Option<u16> {
    value.to_str().ok()?.parse().ok()
}
