//! The handler at the end of every chain: passes a request on to one server and the answer back.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::connect::Stream;
use super::gunzip;
use super::headers::{RequestFacts, UpgradeName, prepare_request, prepare_response, set_host};
use super::http1::Answer;
use super::limits::{Watch, answered_by};
use super::owner::{self, Owner};
use super::send::{Failure, Line, origin_form};
use super::target::Target;
use super::transport::{Origin, ServersTransport};
use super::upgrade::tunnel;
use super::upload::Upload;
use crate::exchange::forwarded::ForwardedForRemoved;
use crate::exchange::memory::Held;
use crate::exchange::{
    Body, Context, Handler, Outcome, ProxyError, Request, Response, ResponseFuture, error, ready,
};
use crate::tls::PrefixedStream;
use crate::wire::GateControl;

/// How requests are changed for one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwarderOptions {
    /// Pass the client's `Host` on, in place of the server's.
    pub pass_host_header: bool,
    /// Put the path of the server's URL in front of the request's.
    pub preserve_path: bool,
}

impl Default for ForwarderOptions {
    fn default() -> Self {
        Self { pass_host_header: true, preserve_path: false }
    }
}

/// Sends requests to one server.
#[derive(Debug)]
pub struct Forwarder {
    transport: Arc<ServersTransport>,
    target: Target,
    origin: Arc<Origin>,
    options: ForwarderOptions,
}

/// A switch of protocols that is asked for: to what, the client's side, and what is held for its connection.
type Upgrade = (UpgradeName, OnUpgrade, Option<Arc<Held>>);

impl Forwarder {
    /// A forwarder to `target`. Forwarders of the same transport and server share connections.
    pub fn new(
        transport: Arc<ServersTransport>,
        target: Target,
        options: ForwarderOptions,
    ) -> Self {
        let origin = transport.origin(&target);
        Self { transport, target, origin, options }
    }

    /// The server.
    pub fn target(&self) -> &Target {
        &self.target
    }

    #[cfg(test)]
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Passes `request` on and answers with what the server says, or with why it says nothing.
    pub fn forward<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        if request.method() == Method::CONNECT {
            return ready(error::empty(StatusCode::NOT_IMPLEMENTED));
        }
        let mut request = request;
        let watch = request.extensions_mut().remove::<Watch>().map(Box::new);
        if watch.as_ref().is_some_and(|watch| watch.refuses(request.body())) {
            return ready(ProxyError::BodyTooLarge.into_response());
        }
        let upgrade = self.prepare(cx, &mut request);
        let owner = owner::of_request(cx, request.headers());
        let unpack = cx.connection.entry_point.exact && gunzip::ask(&mut request);
        let client = request.extensions().get::<Arc<GateControl>>().cloned();
        let upgrade = upgrade.map(|name| {
            let held = request.extensions().get::<Arc<Held>>().cloned();
            Box::new((name, hyper::upgrade::on(&mut request), held))
        });
        // What our own layers left there is not for hyper's HTTP/2 client.
        request.extensions_mut().clear();
        let hold = expects_continue(&request);
        let mut request = request.map(|body| Upload::new(body, hold, client));
        // A block, and no function: the arguments of an async function are kept twice.
        Box::pin(async move {
            let asked = upgrade.is_some();
            let start = Instant::now();
            let mut line = self.line(start, asked, owner);
            line.exact = cx.connection.entry_point.exact;
            if let Some(first_byte) = watch.as_ref().and_then(|watch| watch.answer.first_byte) {
                line.response_header = first_byte;
            }
            let sent = line.send(&mut request).await;
            drop(request);
            let mut response = self.answered(cx, start, sent, upgrade);
            if let Some(watch) = watch
                && let Some(idle) = watch.answer.idle.flatten()
            {
                let body = std::mem::take(response.body_mut());
                *response.body_mut() = answered_by(body, idle, &watch.later);
            }
            if unpack {
                gunzip::unpack(&mut response);
            }
            response
        })
    }

    /// Sends a request of our own (a health probe): no header is added but `Host`, none removed.
    pub async fn send(&self, mut request: Request) -> Result<Response, ProxyError> {
        self.set_path(request.uri_mut(), false);
        set_host(request.headers_mut(), self.target.host_header(), true);
        let owner = owner::of_question(request.headers());
        let mut request = request.map(|body| Upload::new(body, false, None));
        let answer = self.line(Instant::now(), false, owner.as_ref()).send(&mut request).await;
        answer.map(|answer| answer.response).map_err(|failure| failure.error)
    }

    /// The same for a question whose body is at hand and which does no harm twice: when a
    /// connection that was idle before ends without a byte of an answer, it goes out once more,
    /// over a new one.
    pub async fn ask(&self, question: http::Request<Bytes>) -> Result<Response, ProxyError> {
        let (mut parts, body) = question.into_parts();
        self.set_path(&mut parts.uri, false);
        set_host(&mut parts.headers, self.target.host_header(), true);
        let request = || {
            let upload = Upload::new(Body::from(body.clone()), false, None);
            http::Request::from_parts(parts.clone(), upload)
        };
        let owner = owner::of_question(&parts.headers);
        let mut line = self.line(Instant::now(), false, owner.as_ref());
        let mut answer = line.send(&mut request()).await;
        if let Err(Failure { stale: true, .. }) = answer {
            line.fresh = true;
            answer = line.send(&mut request()).await;
        }
        answer.map(|answer| answer.response).map_err(|failure| failure.error)
    }

    fn answered(
        &self,
        cx: &Context,
        start: Instant,
        sent: Result<Answer, Failure>,
        upgrade: Option<Box<Upgrade>>,
    ) -> Response {
        let outcome =
            Outcome { server: Some(Arc::clone(self.target.text())), ..Outcome::default() };
        match sent {
            Ok(Answer { response, at, switched, owner }) => {
                if let Some(owner) = owner {
                    owner::adopt(cx, owner);
                }
                let outcome = Outcome {
                    origin_status: Some(response.status()),
                    origin_headers: cx
                        .connection
                        .entry_point
                        .origin_headers
                        .then(|| Arc::new(response.headers().clone())),
                    origin_duration: Some(at.saturating_duration_since(start)),
                    sent: true,
                    ..outcome
                };
                answer(cx, response, switched, outcome, upgrade)
            }
            Err(Failure { error, sent, stale: _ }) => {
                let mut response = error.into_response();
                if error == ProxyError::UpstreamInvalid && cx.connection.entry_point.exact {
                    response = error::bare(StatusCode::INTERNAL_SERVER_ERROR);
                }
                *Outcome::of(&mut response) = Outcome { error: Some(error), sent, ..outcome };
                response
            }
        }
    }

    fn line<'a>(
        &'a self,
        start: Instant,
        upgrade: bool,
        owner: Option<&'a Arc<Owner>>,
    ) -> Line<'a> {
        let Self { transport, origin, target, .. } = self;
        let response_header = transport.timeouts.response_header;
        let (fresh, exact) = (false, false);
        Line { transport, origin, target, start, upgrade, owner, response_header, fresh, exact }
    }

    /// Makes a client's request fit for the server; returns the upgrade that it asks for.
    fn prepare(&self, cx: &Context, request: &mut Request) -> Option<UpgradeName> {
        let facts = RequestFacts {
            append_forwarded_for: (!cx.connection.entry_point.not_append_forwarded_for
                && request.extensions().get::<ForwardedForRemoved>().is_none())
            .then_some(&cx.connection.peer_ip_text),
            hardened: cx.connection.entry_point.hardened,
        };
        self.set_path(request.uri_mut(), self.options.preserve_path);
        if request.version() != Version::HTTP_11 {
            // Only HTTP/1.1 can switch protocols (RFC 9110, 7.8).
            request.headers_mut().remove(UPGRADE);
        }
        let carries = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
        let body = request.body();
        let (is_empty, length) = (body.is_end_stream(), body.size_hint().exact());
        let headers = request.headers_mut();
        let upgrade = prepare_request(headers, &facts);
        fit_length(headers, if is_empty { Some(0) } else { length });
        if is_empty && carries && !headers.contains_key(CONTENT_LENGTH) {
            // RFC 9110, 8.6: some servers answer 411 otherwise. HTTP/2 clients need not say it.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if self.options.pass_host_header
            && !headers.contains_key(HOST)
            && let Some(authority) = &cx.authority
        {
            headers.insert(HOST, authority.clone());
        }
        set_host(headers, self.target.host_header(), self.options.pass_host_header);
        upgrade
    }

    fn set_path(&self, uri: &mut Uri, preserve: bool) {
        let path = origin_form(uri);
        *uri = Uri::from(if preserve { self.target.join(path) } else { path });
    }
}

impl Handler for Forwarder {
    fn handle<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        self.forward(cx, request)
    }
}

/// A middleware may have replaced the body: then `Content-Length` must not promise another one. And one length is
/// written in one way, on one line.
fn fit_length(headers: &mut HeaderMap, length: Option<u64>) {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(length), Some(said)) = (length, lines.next()) else { return };
    let text = said.as_bytes();
    let canonical = matches!(text, [b'0'] | [b'1'..=b'9', ..]) && lines.next().is_none();
    let said = str::from_utf8(text).ok().and_then(|said| said.parse::<u64>().ok());
    if said != Some(length) || !canonical {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

fn expects_continue(request: &Request) -> bool {
    request
        .headers()
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The server's answer as the client gets it.
fn answer(
    cx: &Context,
    mut response: Response,
    switched: Option<Box<PrefixedStream<Stream>>>,
    outcome: Outcome,
    upgrade: Option<Box<Upgrade>>,
) -> Response {
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let mut open = None;
    if switching {
        let granted = upgrade.filter(|asked| asked.0.is_granted_by(response.headers()));
        let (Some(asked), Some(server_side)) = (granted, switched) else {
            let error = ProxyError::UnexpectedUpgrade;
            let mut response = error.into_response();
            *Outcome::of(&mut response) = Outcome { error: Some(error), ..outcome };
            return response;
        };
        let (_, client, held) = *asked;
        open = Some(tunnel(cx, client, held, *server_side));
    }
    // The entry point's connection decides the version.
    *response.version_mut() = Version::HTTP_11;
    response.extensions_mut().clear();
    response.extensions_mut().insert(outcome);
    if let Some(tunnel) = open {
        response.extensions_mut().insert(tunnel);
    }
    prepare_response(response.headers_mut(), switching);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_length_is_written_in_one_way() {
        for (lines, length, want) in [
            (&["3"][..], Some(3), &["3"][..]),
            (&["3", "3"], Some(3), &["3"]),
            (&["003"], Some(3), &["3"]),
            (&["+3"], Some(3), &["3"]),
            (&["5"], Some(3), &["3"]),
            (&["0"], Some(0), &["0"]),
            (&["00"], Some(0), &["0"]),
            (&["3"], None, &["3"]),
            (&[], Some(3), &[]),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_LENGTH, HeaderValue::from_static(line));
            }
            fit_length(&mut headers, length);
            assert!(headers.get_all(CONTENT_LENGTH).iter().eq(want), "{lines:?} {length:?}");
        }
    }

    /// A future above a kilobyte is served by the slow path of the allocator, for every request.
    #[test]
    fn what_every_request_goes_through_is_small() {
        fn size<A, F: Future>(_: impl Fn(A) -> F) -> usize {
            size_of::<F>()
        }
        type Sent = (&'static Line<'static>, &'static mut http::Request<Upload>);
        let sending = size(|(line, request): Sent| line.send(request));
        let all = sending + size_of::<http::Request<Upload>>() + 128;
        assert!(all <= 1024, "{all}");
    }
}
