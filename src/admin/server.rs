//! From a connection to an answer: who may ask, whether it is JSON, which resource it is for.
//!
//! Everything is bounded: connections, the time that one takes, heads and bodies. A connection has
//! one request. A change runs by itself, so that it is ended and told of also if the client leaves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, TRANSFER_ENCODING, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::audit::{Audit, Change};
use super::auth::{Keys, Stranger};
use super::call::{Call, Place, Reply, Resource, Role, Who};
use super::failures::Failures;
use super::gate::Gate;
use super::guests::Guests;
use super::head::Head;
use super::json as body_json;
use super::listener::{Listener, Stream};
use crate::values::unescaped;

/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 64;
/// For a TLS handshake and the head of a request: until then nobody has shown a credential.
const PATIENCE: Duration = Duration::from_secs(3);
/// For a whole connection.
const LIFETIME: Duration = Duration::from_mins(1);
/// After an accept that failed, which may be for want of files.
const PAUSE: Duration = Duration::from_millis(100);
/// Most bytes of a head, and header fields in it.
const HEAD: usize = 16 << 10;
const FIELDS: usize = 64;
/// Most bytes of a body.
const BODY: usize = 64 << 10;

/// See the module.
pub(super) struct Server {
    pub(super) keys: ArcSwap<Keys>,
    pub(super) gate: Gate,
    pub(super) failures: Failures,
    pub(super) audit: Arc<Audit>,
    pub(super) resources: Vec<Arc<dyn Resource>>,
}

/// Who is at the other end of a connection.
#[derive(Clone)]
struct Peer {
    from: Place,
    certificate: Option<CertificateDer<'static>>,
    head: Head,
    /// Cancelled when the head is there.
    heard: CancellationToken,
}

impl Server {
    /// Serves what connects until `shutdown`.
    pub(super) async fn run(self: Arc<Self>, listener: Listener, shutdown: CancellationToken) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        let guests = Arc::new(Guests::default());
        loop {
            let next = async {
                let permit = Arc::clone(&connections).acquire_owned().await;
                listener.accept().await.map(|accepted| (accepted, permit))
            };
            let accepted = tokio::select! {
                accepted = next => accepted,
                () = shutdown.cancelled() => return,
            };
            match accepted {
                Ok(((stream, from), permit)) => {
                    let Some(guest) = guests.enter(from) else {
                        debug!(%from, "admin connection: there are too many from this address");
                        continue;
                    };
                    let (server, shutdown) = (Arc::clone(&self), shutdown.clone());
                    tokio::spawn(async move {
                        server.connection(stream, from, &shutdown).await;
                        drop((guest, permit));
                    });
                }
                Err(error) => {
                    warn!(%error, "the admin API cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection. One that has not asked anything is ended early, and by a stop.
    async fn connection(
        self: Arc<Self>,
        stream: Stream,
        from: Place,
        shutdown: &CancellationToken,
    ) {
        let heard = CancellationToken::new();
        let silence = async {
            tokio::select! {
                () = heard.cancelled() => std::future::pending().await,
                () = tokio::time::sleep(PATIENCE) => {}
                () = shutdown.cancelled() => {}
            }
        };
        let peer = Peer { from, certificate: None, head: Head::default(), heard: heard.clone() };
        tokio::select! {
            served = timeout(LIFETIME, self.secured(stream, peer)) => match served {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%from, %error, "admin connection"),
                Err(_) => debug!(%from, "admin connection: it took too long"),
            },
            () = silence => debug!(%from, "admin connection: nothing was asked"),
        }
    }

    async fn secured(self: Arc<Self>, stream: Stream, peer: Peer) -> io::Result<()> {
        let tls = self.keys.load().tls.clone();
        match (stream, tls) {
            (Stream::Unix(stream), _) => self.http(stream, peer).await,
            (Stream::Tcp(stream), None) => self.http(stream, peer).await,
            (Stream::Tcp(stream), Some(tls)) => {
                let stream = TlsAcceptor::from(tls).accept(stream).await?;
                let (_, session) = stream.get_ref();
                let certificate = session.peer_certificates().and_then(<[_]>::first);
                let certificate = certificate.map(|certificate| certificate.clone().into_owned());
                self.http(stream, Peer { certificate, ..peer }).await
            }
        }
    }

    async fn http<S>(self: Arc<Self>, stream: S, peer: Peer) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = peer.head.of(stream);
        let service = service_fn(move |request| {
            peer.heard.cancel();
            let (server, peer) = (Arc::clone(&self), peer.clone());
            async move { Ok::<_, std::convert::Infallible>(server.answer(request, &peer).await) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .keep_alive(false)
            .max_buf_size(HEAD)
            .max_headers(FIELDS)
            .serve_connection(TokioIo::new(stream), service)
            .await
            .map_err(io::Error::other)
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: &Peer,
    ) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        if let Err((status, message)) = self.gate.check(&parts.uri, &parts.headers) {
            return response(Reply::error(status, message));
        }
        if parts.headers.contains_key(TRANSFER_ENCODING) && peer.head.has("content-length") {
            let message = "a body has a `Content-Length` or a `Transfer-Encoding`, not both";
            return response(Reply::error(StatusCode::BAD_REQUEST, message));
        }
        let who = match self.who(&parts.headers, peer) {
            Ok(who) => who,
            Err(refusal) => return response(refusal),
        };
        let method = match parts.method {
            Method::HEAD => Method::GET,
            method => method,
        };
        let changes = method != Method::GET;
        if changes && who.role < Role::Write {
            let change = self.change(&who, peer, &method, parts.uri.path(), Value::Null);
            let message = "this takes the role `write`";
            self.audit.refuse(change, StatusCode::FORBIDDEN.as_u16(), message).await;
            return response(Reply::error(StatusCode::FORBIDDEN, message));
        }
        let Some((resource, path)) = self.find(parts.uri.path()) else {
            return response(self.beside(&method, parts.uri.path()));
        };
        let Some(query) = unescaped_query(parts.uri.query().unwrap_or_default()) else {
            let message = "the query is not properly escaped";
            return response(Reply::error(StatusCode::BAD_REQUEST, message));
        };
        let body = match read(&parts.headers, body).await {
            Ok(body) => body,
            Err(refusal) => return response(refusal),
        };
        let call = Call { method, path, query, body, who };
        if !changes {
            return response(resource.answer(&call).await);
        }
        let told = resource.told(&call);
        let change = self.change(&call.who, peer, &call.method, parts.uri.path(), told);
        let work = tokio::spawn(async move { self.carry_out(&*resource, &call, &change).await });
        let failed = |_| Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "the change has failed");
        response(work.await.unwrap_or_else(failed))
    }

    /// Tells of a change, makes it, and tells what came of it.
    async fn carry_out(&self, resource: &dyn Resource, call: &Call, change: &Change) -> Reply {
        if self.audit.begin(change).await.is_err() {
            let message = "the audit log cannot be written: nothing was changed";
            return Reply::error(StatusCode::SERVICE_UNAVAILABLE, message);
        }
        let reply = resource.answer(call).await;
        let message = reply.body["message"].as_str().filter(|_| !reply.status.is_success());
        let told = self.audit.end(change, reply.status.as_u16(), message.unwrap_or_default()).await;
        if told.is_err() && reply.status.is_success() {
            let message = "it was done, but the audit log could not be told";
            return Reply::error(StatusCode::INTERNAL_SERVER_ERROR, message);
        }
        reply
    }

    fn change(&self, who: &Who, peer: &Peer, method: &Method, path: &str, told: Value) -> Change {
        self.audit.change(who.clone(), peer.from, method.clone(), path.to_owned(), told)
    }

    /// Who asks, or the answer to somebody who may not.
    fn who(&self, headers: &HeaderMap, peer: &Peer) -> Result<Who, Reply> {
        let who = self.keys.load().who(headers, peer.from, peer.certificate.as_ref());
        who.map_err(|stranger| {
            if stranger == Stranger::Nobody {
                self.failures.nothing();
            } else if let Some(wait) = self.failures.wait(peer.from) {
                self.failures.nothing();
                let message = "too many failed authentications";
                let refusal = Reply::error(StatusCode::TOO_MANY_REQUESTS, message);
                return refusal.with(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
            } else {
                let has_to_wait = self.failures.wrong(peer.from);
                warn!(from = %peer.from, "admin API: authentication failed");
                if has_to_wait {
                    warn!(from = %peer.from, "admin API: too many failed authentications");
                }
            }
            let refusal = Reply::error(StatusCode::UNAUTHORIZED, "who are you?");
            refusal.with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
        })
    }

    /// The resource of a path, and the steps behind its name.
    fn find(&self, path: &str) -> Option<(Arc<dyn Resource>, Vec<String>)> {
        let mut steps = path.strip_prefix("/v1/")?.split('/');
        let name = steps.next()?;
        let resource = self.resources.iter().find(|resource| resource.name() == name)?;
        let steps: Option<Vec<String>> = steps.map(unescaped).collect();
        let mut steps = steps?;
        // A slash at the end of a list's path says no more than none.
        if steps.len() == 1 && steps.first().is_some_and(String::is_empty) {
            steps.clear();
        }
        Some((Arc::clone(resource), steps))
    }

    /// What is at a path that no resource has.
    fn beside(&self, method: &Method, path: &str) -> Reply {
        if !matches!(path, "/" | "/v1" | "/v1/") {
            return Reply::not_found();
        }
        if *method != Method::GET {
            return Reply::not_allowed("GET, HEAD");
        }
        let resources = self.resources.iter().map(|resource| {
            let path = format!("/v1/{}", resource.name());
            json!({"name": resource.name(), "path": path, "about": resource.about()})
        });
        Reply::ok(json!({"resources": resources.collect::<Vec<_>>()}))
    }
}

/// Reads a body, which must be JSON. Nothing is read of one that is not or that is too long.
async fn read(headers: &HeaderMap, body: Incoming) -> Result<Option<Value>, Reply> {
    let limit = || {
        let message = format!("a body has at most {BODY} bytes");
        Reply::error(StatusCode::PAYLOAD_TOO_LARGE, &message)
    };
    let length = http_body::Body::size_hint(&body);
    if length.exact() == Some(0) {
        return Ok(None);
    }
    if length.lower() > BODY as u64 {
        return Err(limit());
    }
    if !is_json(headers) {
        let message = "a body is `Content-Type: application/json`";
        return Err(Reply::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let bytes = Limited::new(body, BODY).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            limit()
        } else {
            Reply::error(StatusCode::BAD_REQUEST, "the body ended early")
        }
    })?;
    body_json::parse(&bytes.to_bytes()).map(Some).map_err(|error| {
        Reply::error(StatusCode::BAD_REQUEST, &format!("the body is no JSON to act on: {error}"))
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
    let kind = kind.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let body = if reply.body.is_null() {
        Bytes::new()
    } else {
        let mut text = reply.body.to_string();
        text.push('\n');
        text.into()
    };
    let has_body = !body.is_empty();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.extend(reply.headers);
    response
}

/// `None` when it is not properly escaped: what somebody has narrowed down must not become all.
fn unescaped_query(query: &str) -> Option<Vec<(String, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((unescaped_in_query(name)?, unescaped_in_query(value)?))
    });
    pairs.collect()
}

/// There a blank may be `+`.
fn unescaped_in_query(text: &str) -> Option<String> {
    unescaped(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_unescaped() {
        for (text, plain, query) in [
            ("a%40b", Some("a@b"), Some("a@b")),
            ("a+b", Some("a+b"), Some("a b")),
            ("2001:db8::%2F64", Some("2001:db8::/64"), Some("2001:db8::/64")),
            ("%", None, None),
            ("%4", None, None),
            ("%+1", None, None),
            ("%ff", None, None),
            ("", Some(""), Some("")),
        ] {
            assert_eq!(unescaped(text).as_deref(), plain, "{text}");
            assert_eq!(unescaped_in_query(text).as_deref(), query, "{text}");
        }
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            unescaped_query("a=1&&b&c=x%3Dy"),
            Some(vec![pair("a", "1"), pair("b", ""), pair("c", "x=y")])
        );
        assert_eq!(unescaped_query("a=1&d=%zz"), None);
    }

    #[test]
    fn only_json_is_json() {
        for (kinds, want) in [
            (&["application/json"][..], true),
            (&["Application/JSON; charset=utf-8"], true),
            (&["text/plain"], false),
            (&["application/jsonp"], false),
            (&["application/json", "text/plain"], false),
            (&[], false),
        ] {
            let headers: HeaderMap =
                kinds.iter().map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind))).collect();
            assert_eq!(is_json(&headers), want, "{kinds:?}");
        }
    }
}
