//! What a pod of the demo answers: Odoo's paths with small pages that say which pod answered, for
//! which tenant, and what the proxy told it. Everything a client sent is escaped.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::odoo::Pod;
use super::websocket::accept_value;

/// The header in which a pod says its name.
pub(super) const POD_HEADER: &str = "x-demo-pod";

/// The longest that `/slow` takes.
const SLOWEST: Duration = Duration::from_mins(1);

/// The forwarded headers that a page shows.
const SHOWN: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "cookie",
];

/// Where a connection finds the WebSocket that one of its requests asked for.
#[derive(Clone, Default)]
pub(super) struct Upgrade(Arc<Mutex<Option<(OnUpgrade, String)>>>);

impl Upgrade {
    /// The upgrade to come, with the tenant's host.
    pub(super) fn take(&self) -> Option<(OnUpgrade, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, upgrade: OnUpgrade, tenant: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgrade, tenant));
    }
}

/// The web port.
pub(super) async fn web(mut request: Request<Incoming>, pod: &Pod) -> Response<Full<Bytes>> {
    // A connection that is closed with bytes unread is reset, and the reply may be lost with it.
    while let Some(Ok(_)) = request.body_mut().frame().await {}
    let path = request.uri().path();
    let mut response = if path == "/web/health" {
        health(pod)
    } else {
        let number = pod.requests.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::time::sleep(pod.behaviour.delay).await;
        match path {
            "/" | "/web" | "/odoo" => html(pod, page(&request, pod, number)),
            "/web/login" => html(pod, login(&request, pod, number)),
            "/slow" => {
                let pause = asked_pause(request.uri().query());
                tokio::time::sleep(pause).await;
                text(pod, StatusCode::OK, format!("{} took {pause:?}\n", pod.name))
            }
            "/websocket" => {
                let words = "Couldn't bind the websocket: this is the port of the workers\n";
                text(pod, StatusCode::INTERNAL_SERVER_ERROR, words.to_owned())
            }
            _ if path.starts_with("/web/database") => {
                let words = "The database manager: a proxy must not let the public come here\n";
                text(pod, StatusCode::OK, words.to_owned())
            }
            _ => text(pod, StatusCode::NOT_FOUND, format!("{} has no such page\n", pod.name)),
        }
    };
    if !pod.behaviour.keep_alive {
        *response.version_mut() = Version::HTTP_10;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The bus port.
pub(super) fn bus(
    mut request: Request<Incoming>,
    pod: &Pod,
    upgrade: &Upgrade,
) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/websocket" => {
            pod.requests.fetch_add(1, Ordering::Relaxed);
            let Some(accept) = handshake(&request) else {
                let words = "This is for a WebSocket of version 13\n";
                let mut response = text(pod, StatusCode::UPGRADE_REQUIRED, words.to_owned());
                let version = HeaderValue::from_static("13");
                response.headers_mut().insert(SEC_WEBSOCKET_VERSION, version);
                return response;
            };
            upgrade.put(hyper::upgrade::on(&mut request), host(request.headers()));
            let mut response = answer(pod, StatusCode::SWITCHING_PROTOCOLS, None, Bytes::new());
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            response
        }
        "/web/health" | "/websocket/health" => health(pod),
        _ => text(pod, StatusCode::NOT_FOUND, "The bus has no pages\n".to_owned()),
    }
}

/// The answer to the key of a proper WebSocket handshake (RFC 6455, section 4.2.1).
fn handshake(request: &Request<Incoming>) -> Option<HeaderValue> {
    let headers = request.headers();
    let says = |name, word: &str| {
        let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    let proper = request.method() == Method::GET
        && says(CONNECTION, "upgrade")
        && says(UPGRADE, "websocket")
        && says(SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(SEC_WEBSOCKET_KEY)?.to_str().ok()?;
    HeaderValue::try_from(accept_value(key)).ok().filter(|_| proper)
}

fn page(request: &Request<Incoming>, pod: &Pod, number: u64) -> String {
    let mut rows = String::new();
    for name in SHOWN {
        for value in request.headers().get_all(name) {
            let value = escape(&String::from_utf8_lossy(value.as_bytes()));
            // Writing to a string does not fail.
            let _ = write!(rows, "<tr><th>{name}</th><td>{value}</td></tr>");
        }
    }
    let tenant = escape(&host(request.headers()));
    let target = escape(&request.uri().to_string());
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{tenant}</title>\
         <style>body{{font-family:sans-serif;margin:3rem}}th{{text-align:left;padding-right:2rem}}\
         pre{{background:#eee;padding:1rem}}</style>\
         <h1>{tenant}</h1>\
         <p>Answered by pod <b id=\"pod\">{pod}</b>, its request number {number}, for \
         <code>{target}</code>.</p>\
         <table>{rows}</table><h2>Bus</h2><pre id=\"bus\">connecting</pre>{SCRIPT}\n",
        pod = escape(&pod.name),
    )
}

/// Opens a WebSocket to the page's own host and shows what the bus says.
const SCRIPT: &str = "<script>\
    const log = document.getElementById('bus');\
    const scheme = location.protocol === 'https:' ? 'wss://' : 'ws://';\
    const socket = new WebSocket(scheme + location.host + '/websocket');\
    socket.onmessage = event => { log.textContent += '\\n' + event.data };\
    socket.onopen = () => { log.textContent = 'open'; socket.send('hello from the page') };\
    socket.onclose = () => { log.textContent += '\\nclosed: reload the page' };\
    </script>";

fn login(request: &Request<Incoming>, pod: &Pod, number: u64) -> String {
    let tenant = escape(&host(request.headers()));
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Log in: {tenant}</title>\
         <h1>{tenant}</h1><form><label>Email <input name=\"login\"></label> \
         <label>Password <input name=\"password\" type=\"password\"></label> \
         <button>Log in</button></form>\
         <p>Answered by pod <b id=\"pod\">{pod}</b>, its request number {number}.</p>\n",
        pod = escape(&pod.name),
    )
}

/// Which host the request is for: what the proxy forwarded, as Odoo's `proxy_mode` reads it.
fn host(headers: &HeaderMap) -> String {
    let value = headers.get("x-forwarded-host").or_else(|| headers.get(HOST));
    value.map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// The milliseconds of `/slow?ms=`, one second without them.
fn asked_pause(query: Option<&str>) -> Duration {
    let mut pairs = query.unwrap_or_default().split('&');
    let millis = pairs.find_map(|pair| pair.strip_prefix("ms=")?.parse().ok());
    Duration::from_millis(millis.unwrap_or(1000)).min(SLOWEST)
}

fn health(pod: &Pod) -> Response<Full<Bytes>> {
    let body = Bytes::from_static(b"{\"status\": \"pass\"}");
    answer(pod, StatusCode::OK, Some("application/json; charset=utf-8"), body)
}

fn html(pod: &Pod, body: String) -> Response<Full<Bytes>> {
    answer(pod, StatusCode::OK, Some("text/html; charset=utf-8"), body.into())
}

fn text(pod: &Pod, status: StatusCode, body: String) -> Response<Full<Bytes>> {
    answer(pod, status, Some("text/plain; charset=utf-8"), body.into())
}

fn answer(
    pod: &Pod,
    status: StatusCode,
    kind: Option<&'static str>,
    body: Bytes,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Some(kind) = kind {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Ok(name) = HeaderValue::try_from(&pod.name) {
        headers.insert(POD_HEADER, name);
    }
    response
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_client_sent_is_markup() {
        assert_eq!(escape("<a href=\"'&"), "&lt;a href=&quot;&#39;&amp;");
    }

    #[test]
    fn a_pause_is_asked_for_in_milliseconds_and_bounded() {
        assert_eq!(asked_pause(Some("a=b&ms=20")), Duration::from_millis(20));
        assert_eq!(asked_pause(Some("ms=x")), Duration::from_secs(1));
        assert_eq!(asked_pause(None), Duration::from_secs(1));
        assert_eq!(asked_pause(Some("ms=99999999")), SLOWEST);
    }

    #[test]
    fn the_forwarded_host_names_the_tenant() {
        let mut headers = HeaderMap::new();
        assert_eq!(host(&headers), "");
        headers.insert(HOST, HeaderValue::from_static("direct"));
        assert_eq!(host(&headers), "direct");
        headers.insert("x-forwarded-host", HeaderValue::from_static("north.localhost"));
        assert_eq!(host(&headers), "north.localhost");
    }
}
