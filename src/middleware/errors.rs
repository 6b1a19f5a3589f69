//! `errors`: replaces answers of certain statuses by pages of another service.
//!
//! The page's headers and body go to the client under the status that it stands for; of the answer
//! that it replaces nothing is left.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, PROXY_AUTHORIZATION,
    RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::at_hand::discard;
use super::retry::Replaced;
use super::{Build, BuildContext, redirect};
use crate::exchange::forwarded::ForwardedForRemoved;
use crate::exchange::{
    Body, Context, Handler, Middleware, Next, Outcome, Remade, Request, Response, ResponseFuture,
};
use crate::values::{BuildError, Profile, is_default, status};

/// Options of `errors`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ErrorsConfig {
    /// Statuses that are replaced: `404` or `500-599`, one per item. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<String>,
    /// Which statuses reach the client as another one: `"418": 404` or `"500-504": 500`. Default:
    /// none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub status_rewrites: BTreeMap<String, i64>,
    /// The service that has the pages. Required.
    pub service: String,
    /// Path, and query, of a page: `{status}` becomes the status that the client gets,
    /// `{originalStatus}` the one that is replaced, `{url}` the escaped URL of the request. `{requestId}`
    /// is Doorward's own: the name that the entry point's `requestId` gave it, or nothing. Default: `/`.
    #[serde(skip_serializing_if = "is_default")]
    pub query: String,
    /// The headers of the request that the service gets. Default: all of them but the client's credentials
    /// (`Authorization`, `Cookie`, `Proxy-Authorization`), which are meant for the application; under `exact` these
    /// too (CVE-2026-41181). `[]`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_request_headers: Option<Vec<String>>,
}

impl Build for ErrorsConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        if self.status.is_empty() {
            let message = "`status` is empty: no answer is replaced; list statuses such as 500-599";
            cx.warnings.push(BuildError::at("status", message));
        }
        let mut statuses = Vec::with_capacity(self.status.len());
        for (at, text) in self.status.iter().enumerate() {
            statuses.push(range(&format!("status[{at}]"), text)?);
        }
        let mut rewrites = Vec::with_capacity(self.status_rewrites.len());
        for (text, code) in &self.status_rewrites {
            let option = format!("statusRewrites.{text}");
            let status = u16::try_from(*code).ok().filter(|code| (200..=999).contains(code));
            let status = status.and_then(|code| StatusCode::from_u16(code).ok());
            let status = status.ok_or_else(|| {
                BuildError::at(&*option, format!("{code} is no status of a final answer"))
            })?;
            rewrites.push((range(&option, text)?, status));
        }
        // Traefik takes any of several that fit; the one that says most is meant.
        rewrites.sort_by_key(|((low, high), _)| high - low);
        let template = template(&self.query).map_err(|message| BuildError::at("query", message))?;
        let mut headers = None;
        for (at, name) in self.error_request_headers.iter().flatten().enumerate() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                let message = format!("{name:?} is no header name");
                BuildError::at(format!("errorRequestHeaders[{at}]"), message)
            })?;
            headers.get_or_insert_with(Vec::new).push(name);
        }
        let pages = (cx.service)(&self.service)
            .map_err(|error| BuildError::at("service", error.message))?;
        Ok(Arc::new(Errors {
            statuses,
            rewrites,
            template,
            headers: self.error_request_headers.is_some().then(|| headers.unwrap_or_default()),
            pages,
            exact: cx.profile == Profile::Exact,
            hardened: cx.profile == Profile::Hardened,
        }))
    }
}

type Range = (u16, u16);

fn range(option: &str, text: &str) -> Result<Range, BuildError> {
    status::range(text).ok_or_else(|| {
        let message = format!("{text:?} is neither a status nor a range such as 500-599");
        BuildError::at(option, message)
    })
}

fn is_in((low, high): Range, status: StatusCode) -> bool {
    (low..=high).contains(&status.as_u16())
}

/// A part of a page's address.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Status,
    OriginalStatus,
    Url,
    RequestId,
}

const PLACEHOLDERS: [(&str, Part); 4] = [
    ("{status}", Part::Status),
    ("{originalStatus}", Part::OriginalStatus),
    ("{url}", Part::Url),
    ("{requestId}", Part::RequestId),
];

/// Takes `query` apart. What may not stand in a URL is escaped, a fragment is cut off.
fn template(query: &str) -> Result<Vec<Part>, String> {
    let query = query.split('#').next().unwrap_or_default();
    let mut rest = query.strip_prefix('/').unwrap_or(query);
    let mut parts = Vec::new();
    let mut text = String::from("/");
    let mut in_query = false;
    while let Some(c) = rest.chars().next() {
        let found = PLACEHOLDERS.into_iter().find(|(name, _)| rest.starts_with(name));
        if let Some((name, part)) = found {
            parts.extend([Part::Text(std::mem::take(&mut text)), part]);
            rest = rest.get(name.len()..).unwrap_or_default();
            continue;
        }
        let (character, behind) = rest.split_at(c.len_utf8());
        in_query |= c == '?';
        // Go reads escapes in paths only, and passes queries on as they are.
        let digits = behind.bytes().take(2).filter(u8::is_ascii_hexdigit).count();
        if c == '%' && !in_query && digits < 2 {
            return Err("two hexadecimal digits must stand behind `%`".into());
        }
        if c.is_ascii_control() {
            return Err("`query`: a URL cannot contain control characters".into());
        }
        if c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?%[]".contains(c) {
            text.push(c);
        } else {
            escape(&mut text, character.as_bytes());
        }
        rest = behind;
    }
    parts.push(Part::Text(text));
    Ok(parts)
}

fn escape(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "%{byte:02X}");
    }
}

/// Go's `url.QueryEscape`.
fn query_escape(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            byte => escape(out, &[byte]),
        }
    }
}

/// These speak of the request's own body or connection.
const NOT_OF_A_PAGE: [HeaderName; 7] =
    [CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
/// And these of what the client has of the resource that it asked for. A page that answered them, which
/// Traefik lets happen, would be a part, or nothing at all.
const CONDITIONS: [HeaderName; 6] =
    [IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE];

struct Errors {
    statuses: Vec<Range>,
    /// Narrow ones first.
    rewrites: Vec<(Range, StatusCode)>,
    template: Vec<Part>,
    headers: Option<Vec<HeaderName>>,
    pages: Arc<dyn Handler>,
    exact: bool,
    /// Let nobody keep a page, whatever the service says of the file that it is.
    hardened: bool,
}

/// What is kept of a request for the sake of a page.
struct Origin {
    url: Option<String>,
    headers: HeaderMap,
    forwarded_for_removed: bool,
}

impl Middleware for Errors {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        if self.statuses.is_empty() {
            return next.run(cx, request);
        }
        Box::pin(async move {
            let mut request = request;
            let remade = Remade::of(&mut request);
            let url = self.url(cx, &request);
            let response = next.run(cx, request).await;
            let status = response.status();
            let caught = !status.is_informational()
                && self.statuses.iter().any(|&range| is_in(range, status));
            if !caught {
                return response;
            }
            // Those behind may have checked and removed credentials, and set who the client is.
            let (headers, forwarded_for_removed) = remade.headers();
            let origin = Origin { url, headers: self.chosen(&headers), forwarded_for_removed };
            self.replace(cx, origin, response).await
        })
    }
}

impl Errors {
    /// The URL that the client asked for, if the page's address names it.
    fn url(&self, cx: &Context, request: &Request) -> Option<String> {
        self.template.contains(&Part::Url).then(|| {
            let scheme = cx.connection.scheme().as_str();
            let rest = redirect::path_and_query(request);
            [scheme, "://", redirect::host(request), rest].concat()
        })
    }

    /// What of a request's headers a page is asked for with.
    fn chosen(&self, asked: &HeaderMap) -> HeaderMap {
        let mut headers = match &self.headers {
            None => {
                let mut all = asked.clone();
                if !self.exact {
                    for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
                        all.remove(name);
                    }
                }
                all
            }
            Some(names) => {
                let mut chosen = HeaderMap::new();
                for name in names {
                    for value in asked.get_all(name) {
                        chosen.append(name, value.clone());
                    }
                }
                chosen
            }
        };
        for name in NOT_OF_A_PAGE {
            headers.remove(name);
        }
        if !self.exact {
            for name in CONDITIONS {
                headers.remove(name);
            }
        }
        if let Some(host) = asked.get(HOST) {
            headers.insert(HOST, host.clone());
        }
        headers
    }

    async fn replace(&self, cx: &Context, origin: Origin, mut response: Response) -> Response {
        let original = response.status();
        let rewrite = self.rewrites.iter().find(|(range, _)| is_in(*range, original));
        let status = rewrite.map_or(original, |(_, status)| *status);
        let replaced = Replaced::of(&response);
        let first = std::mem::take(Outcome::of(&mut response));
        discard(response).await;
        let mut page = match self.address(cx, status, original, origin.url.as_deref()) {
            Some(address) => self.pages.handle(cx, request(address, origin)).await,
            None => plain(status),
        };
        *page.status_mut() = status;
        if self.hardened && !status.is_success() {
            page.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            page.headers_mut().remove(CONTENT_LENGTH);
            *page.body_mut() = Body::empty();
        }
        page.extensions_mut().insert(replaced);
        // Both services have had a request, and both want to hear of its end.
        let outcome = Outcome::of(&mut page);
        outcome.observers.insert_many(0, first.observers);
        outcome.service_start = first.service_start.or(outcome.service_start);
        outcome.user = first.user.or(outcome.user.take());
        outcome.retries += first.retries;
        outcome.challenge = first.challenge;
        if first.sent {
            // What was done must not be done again because there is no page for it.
            outcome.sent = true;
        }
        page
    }

    /// Where the page for a status is; `None` when that is no address.
    fn address(
        &self,
        cx: &Context,
        status: StatusCode,
        original: StatusCode,
        url: Option<&str>,
    ) -> Option<Uri> {
        let mut address = String::new();
        for part in &self.template {
            match part {
                Part::Text(text) => address.push_str(text),
                Part::Status => address.push_str(status.as_str()),
                Part::OriginalStatus => address.push_str(original.as_str()),
                Part::Url => query_escape(&mut address, url.unwrap_or_default()),
                Part::RequestId => {
                    let id = cx.request_id.as_ref().and_then(|id| id.to_str().ok());
                    query_escape(&mut address, id.unwrap_or_default());
                }
            }
        }
        Uri::try_from(address).ok()
    }
}

fn request(address: Uri, origin: Origin) -> Request {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = address;
    *request.headers_mut() = origin.headers;
    if origin.forwarded_for_removed {
        request.extensions_mut().insert(ForwardedForRemoved);
    }
    request
}

/// The answer without a page, as Go's `http.Error` writes it.
fn plain(status: StatusCode) -> Response {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut response = Response::new(Body::from(format!("{reason}\n")));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http::request::Parts;

    use super::*;
    use crate::exchange::error::bare;
    use crate::exchange::{Observation, Observer, ProxyError, ready};
    use crate::middleware::testing::{Bench, Setting, body, context, get, over_tls, with};
    use crate::values::QualifiedName;

    type Answer = fn() -> Response;

    /// The service with the pages: it keeps what it was asked.
    struct Pages {
        asked: Mutex<Vec<Parts>>,
        answer: Answer,
    }

    impl Handler for Pages {
        fn handle<'a>(&'a self, _: &'a Context, request: Request) -> ResponseFuture<'a> {
            assert!(http_body::Body::is_end_stream(request.body()));
            self.asked.lock().unwrap().push(request.into_parts().0);
            ready((self.answer)())
        }
    }

    impl Pages {
        fn with(answer: Answer) -> Arc<Self> {
            Arc::new(Self { asked: Mutex::default(), answer })
        }

        fn last(&self) -> Parts {
            self.asked.lock().unwrap().last().cloned().unwrap()
        }
    }

    fn page() -> Response {
        let mut response = Response::new(Body::from_static(b"page"));
        response.headers_mut().insert("x-page", HeaderValue::from_static("1"));
        response
    }

    fn build(config: &ErrorsConfig, pages: &Arc<Pages>) -> Result<Arc<dyn Middleware>, BuildError> {
        build_in(Profile::Safe, config, pages)
    }

    fn build_in(
        profile: Profile,
        config: &ErrorsConfig,
        pages: &Arc<Pages>,
    ) -> Result<Arc<dyn Middleware>, BuildError> {
        let setting = Setting { profile, ..Setting::default() };
        config.build(&mut BuildContext {
            name: &QualifiedName::new("mid", "file"),
            owner: &QualifiedName::new("router", "file"),
            files: &setting.files,
            state: &setting.state,
            profile: setting.profile,
            proxies: &crate::upstream::Proxies::default(),
            service: &mut |name: &str| match name {
                "pages" => Ok(Arc::clone(pages) as Arc<dyn Handler>),
                _ => Err(BuildError::new(format!("no service {name}"))),
            },
            warnings: &mut Vec::new(),
        })
    }

    fn config(status: &[&str]) -> ErrorsConfig {
        ErrorsConfig {
            status: status.iter().map(|&text| text.to_owned()).collect(),
            service: "pages".into(),
            query: "/{status}.html".into(),
            ..ErrorsConfig::default()
        }
    }

    /// An app that answers with the status that is the request's path.
    fn bench(config: &ErrorsConfig, pages: &Arc<Pages>) -> Bench {
        Bench::answering(vec![build(config, pages).unwrap()], |_, request| {
            let code = request.uri().path().trim_start_matches('/').get(..3).unwrap();
            let mut response = bare(code.parse().unwrap());
            response.headers_mut().insert("x-app", HeaderValue::from_static("1"));
            Outcome::of(&mut response).retries = 2;
            Outcome::of(&mut response).challenge = true;
            response
        })
    }

    /// RP 7.6.
    #[tokio::test]
    async fn listed_statuses_get_a_page_and_keep_their_status() {
        let pages = Pages::with(page);
        let bench = bench(&config(&["404", "500-503"]), &pages);
        for (path, caught) in
            [("/200", false), ("/403", false), ("/404", true), ("/500", true), ("/504", false)]
        {
            let mut response = bench.send(get(path)).await;
            assert_eq!(response.status().as_str(), &path[1..]);
            assert_eq!(response.headers().contains_key("x-page"), caught);
            assert_eq!(response.headers().contains_key("x-app"), !caught);
            assert_eq!(Outcome::of(&mut response).retries, 2);
            assert!(Outcome::of(&mut response).challenge);
            if caught {
                assert_eq!(body(response).await, "page");
                let asked = pages.last();
                assert_eq!(asked.method, http::Method::GET);
                assert_eq!(asked.uri, format!("{path}.html").as_str());
            }
        }
        assert_eq!(pages.asked.lock().unwrap().len(), 2);
    }

    /// RP-7.6.19: a page answered with 304 or 206 would be none.
    #[tokio::test]
    async fn a_page_is_asked_for_as_a_whole() {
        let names = ["range", "if-range", "if-match", "if-none-match", "if-modified-since"];
        for (profile, listed) in [
            (Profile::Safe, None),
            (Profile::Safe, Some(names.map(str::to_owned).to_vec())),
            (Profile::Exact, None),
        ] {
            let pages = Pages::with(page);
            let config = ErrorsConfig { error_request_headers: listed, ..config(&["404"]) };
            let built = build_in(profile, &config, &pages).unwrap();
            let bench = Bench::answering(vec![built], |_, _| bare(StatusCode::NOT_FOUND));
            let request = names.iter().fold(get("/404"), |request, name| with(request, name, "x"));
            bench.send(with(request, "if-unmodified-since", "x")).await;
            let asked = pages.last().headers;
            assert!(bench.seen().headers.contains_key("range"));
            for name in names {
                assert_eq!(asked.contains_key(name), profile == Profile::Exact, "{name}");
            }
        }
    }

    #[tokio::test]
    async fn an_upgrade_is_no_error() {
        let pages = Pages::with(page);
        let bench = bench(&config(&["100-599"]), &pages);
        assert_eq!(bench.status(get("/101")).await, 101);
    }

    #[tokio::test]
    async fn statuses_are_rewritten() {
        let rewrites = [("418", 404), ("410-420", 410), ("500-599", 503), ("599", 200)];
        let rewrites = rewrites.map(|(from, to)| (from.to_owned(), to));
        let config = ErrorsConfig {
            status_rewrites: rewrites.into_iter().collect(),
            query: "{originalStatus}/{status}?{status}".into(),
            ..config(&["400-599"])
        };
        let pages = Pages::with(page);
        let bench = bench(&config, &pages);
        for (from, to) in [(418, 404), (419, 410), (404, 404), (599, 200), (502, 503)] {
            assert_eq!(bench.status(get(&format!("/{from}"))).await, to);
            assert_eq!(pages.last().uri, format!("/{from}/{to}?{to}").as_str());
        }
    }

    #[tokio::test]
    async fn addresses_of_pages() {
        for (query, want) in [
            ("", "/"),
            ("/", "/"),
            ("a", "/a"),
            ("//a", "//a"),
            ("/{status}{status}/{other}", "/404404/%7Bother%7D"),
            ("/a b/ä\"?q= {status}#{url}", "/a%20b/%C3%A4%22?q=%20404"),
            ("/?q=100%", "/?q=100%"),
            ("/p%2Fq?u={url}", "/p%2Fq?u=http%3A%2F%2Fa.test%2F404%252F%3Fx%3D1%26y%3D~%2B2"),
        ] {
            let pages = Pages::with(page);
            let config = ErrorsConfig { query: query.into(), ..config(&["404"]) };
            bench(&config, &pages).send(get("/404%2F?x=1&y=~+2")).await;
            assert_eq!(pages.last().uri.to_string(), want, "{query}");
        }
        let pages = Pages::with(page);
        let config = ErrorsConfig { query: "?{url}".into(), ..config(&["404"]) };
        let bench = bench(&config, &pages).with_context(over_tls(context("192.0.2.1")));
        bench.send(get("/404")).await;
        assert_eq!(pages.last().uri, "/?https%3A%2F%2Fa.test%2F404");
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_answered_without_a_page() {
        let pages = Pages::with(page);
        let config = ErrorsConfig { query: "/{url}".into(), ..config(&["404"]) };
        let long = format!("/404?{}", "/".repeat(40_000));
        let response = bench(&config, &pages).send(get(&long)).await;
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(body(response).await, "Not Found\n");
    }

    /// T-43
    #[tokio::test]
    async fn which_headers_the_service_gets() {
        for (names, want) in [
            (None, &["host", "x-a"][..]),
            (Some(vec![]), &["host"]),
            (Some(vec!["X-A", "X-Absent", "Expect"]), &["host", "x-a"]),
        ] {
            let names = names.map(|names| names.into_iter().map(str::to_owned).collect());
            let config = ErrorsConfig { error_request_headers: names, ..config(&["404"]) };
            let pages = Pages::with(page);
            let mut request = with(with(get("/404"), "cookie", "a=b"), "x-a", "1");
            for (name, value) in [
                ("content-length", "4"),
                ("transfer-encoding", "chunked"),
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("expect", "100-continue"),
            ] {
                request = with(request, name, value);
            }
            *request.method_mut() = http::Method::POST;
            *request.body_mut() = Body::from_static(b"body");
            bench(&config, &pages).send(request).await;
            let asked = pages.last();
            let mut headers: Vec<_> = asked.headers.keys().map(HeaderName::as_str).collect();
            headers.sort_unstable();
            assert_eq!(headers, want);
        }
    }

    /// RP 7.6: "its 5xx body with the original status".
    #[tokio::test]
    async fn a_service_that_fails_gives_its_body() {
        let pages = Pages::with(|| ProxyError::NoAvailableServer.into_response());
        let mut response = bench(&config(&["404"]), &pages).send(get("/404")).await;
        assert_eq!(response.status(), 404);
        assert_eq!(Outcome::of(&mut response).error, Some(ProxyError::NoAvailableServer));
        assert_eq!(body(response).await, "no available server\n");
    }

    #[tokio::test]
    async fn a_status_without_a_body_has_none() {
        let config = ErrorsConfig {
            status_rewrites: [("404".to_owned(), 204)].into_iter().collect(),
            ..config(&["404"])
        };
        let response = bench(&config, &Pages::with(page)).send(get("/404")).await;
        assert_eq!(response.status(), 204);
        assert_eq!(body(response).await, "");
    }

    struct Counter;

    impl Observer for Counter {
        fn observe(&self, _: &Observation<'_>) {}
    }

    #[tokio::test]
    async fn both_services_are_told_of_the_end() {
        fn observed(service: &str) -> Response {
            let mut response = bare(StatusCode::NOT_FOUND);
            let outcome = Outcome::of(&mut response);
            outcome.observers.push(Arc::new(Counter));
            outcome.service = Some(service.into());
            response
        }
        let pages = Pages::with(|| observed("pages"));
        let middleware = || build(&config(&["404"]), &pages).unwrap();
        let bench = Bench::answering(vec![middleware(), middleware()], |_, _| observed("app"));
        let mut response = bench.send(get("/")).await;
        let outcome = Outcome::of(&mut response);
        assert_eq!((outcome.observers.len(), outcome.service.as_deref()), (3, Some("pages")));
        // Who sends the request again does so at the cost of the first, through any number of pages.
        assert_eq!(Replaced::of(&response).0.as_deref(), Some("app"));
    }

    #[test]
    fn options_are_checked() {
        let pages = Pages::with(page);
        let rewrite = |from: &str, to: i64| ErrorsConfig {
            status_rewrites: [(from.to_owned(), to)].into_iter().collect(),
            ..config(&[])
        };
        for (config, option) in [
            (config(&["404", "500,502"]), "status[1]"),
            (rewrite("5xx", 500), "statusRewrites.5xx"),
            (rewrite("404", 99), "statusRewrites.404"),
            (rewrite("404", 101), "statusRewrites.404"),
            (rewrite("404", -1), "statusRewrites.404"),
            (ErrorsConfig { service: "none".into(), ..config(&[]) }, "service"),
            (ErrorsConfig { query: "/%zz".into(), ..config(&[]) }, "query"),
            (ErrorsConfig { query: "/%".into(), ..config(&[]) }, "query"),
            (ErrorsConfig { query: "/a\n".into(), ..config(&[]) }, "query"),
            (
                ErrorsConfig { error_request_headers: Some(vec!["a b".into()]), ..config(&[]) },
                "errorRequestHeaders[0]",
            ),
        ] {
            assert_eq!(build(&config, &pages).err().unwrap().option, option);
        }
        let none: ErrorsConfig = serde_json::from_str(r#"{"errorRequestHeaders": []}"#).unwrap();
        assert_eq!(none.error_request_headers, Some(vec![]));
    }
}
