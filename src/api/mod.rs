//! `/api/*`: read-only views over the report of the running configuration and live health, and
//! beside them the page that stands for Traefik's dashboard.
//!
//! It may be served from any router (`api@internal`), on any worker: it reads snapshots and
//! changes nothing. Shapes, paging and error texts are Traefik's.

mod dashboard;
pub mod ping;
mod redact;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

pub use self::dashboard::Dashboard;
use crate::compile::{Report, StaticFacts, Status};
use crate::exchange::error::{empty, text};
use crate::exchange::{Body, Context, Handler, Request, Response, ResponseFuture, ready};
use crate::values::Profile;

/// What the API shows of the static configuration.
#[derive(Default)]
pub struct StaticView {
    /// `api.basePath`, without a slash at its end.
    pub base_path: String,
    /// Entry points by name, as `/api/entrypoints` shows them.
    pub entry_points: BTreeMap<String, Value>,
    /// The `features` of `/api/overview`.
    pub features: Value,
    /// The `providers` of `/api/overview`.
    pub providers: Vec<String>,
    /// When the process started, in RFC 3339.
    pub start_date: String,
    /// `api.dashboard`: whether the ways to the dashboard are answered too.
    pub dashboard: bool,
    /// `api.disableDashboardAd`
    pub disable_dashboard_ad: bool,
    /// `api.dashboardName`
    pub dashboard_name: String,
}

/// The report of the running configuration, shared with whoever shows it.
pub type LiveReport = Arc<ArcSwap<Report>>;

/// Serves `/api/*`, and `/dashboard/` for routers that send both here as Traefik's documentation
/// has it.
pub struct Api {
    view: StaticView,
    facts: Arc<StaticFacts>,
    report: LiveReport,
}

impl Api {
    /// An API over `report`.
    pub fn new(view: StaticView, facts: Arc<StaticFacts>, report: LiveReport) -> Self {
        Self { view, facts, report }
    }

    fn answer(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap) -> Response {
        let base = self.view.base_path.trim_end_matches('/');
        let Some(path) = path.strip_prefix(base) else { return not_found() };
        let beside = self.view.dashboard.then(|| dashboard::beside_the_api(base, path, headers));
        let beside = beside.flatten();
        if *method != Method::GET {
            return if path.starts_with("/api") || beside.is_some() {
                text(StatusCode::METHOD_NOT_ALLOWED, "")
            } else {
                not_found()
            };
        }
        if let Some(beside) = beside {
            return beside;
        }
        let report = self.report.load_full();
        let Some(path) = path.strip_prefix("/api/") else { return not_found() };
        let query = Query::parse(query);
        match path.split('/').collect::<Vec<_>>()[..] {
            ["version"] => ok(&self.version()),
            ["overview"] => ok(&self.overview(&report)),
            ["rawdata"] => ok(&self.shown(views::raw_data(&report, &self.facts))),
            ["entrypoints"] => query.page(self.view.entry_points.values().cloned().collect()),
            ["entrypoints", name] => {
                one("entryPoint", name, |name| self.view.entry_points.get(name).cloned())
            }
            ["http", "routers"] => query.page(views::routers(&report, &self.facts, &query)),
            ["http", "routers", name] => {
                one("router", name, |name| views::router(&report, &self.facts, name))
            }
            ["http", "services"] => query.page(self.all_shown(views::services(&report, &query))),
            ["http", "services", name] => one("service", name, |name| {
                views::service(&report, name).map(|one| self.shown(one))
            }),
            ["http", "middlewares"] => {
                query.page(self.all_shown(views::middlewares(&report, &query)))
            }
            ["http", "middlewares", name] => one("middleware", name, |name| {
                views::middleware(&report, name).map(|one| self.shown(one))
            }),
            ["tcp", "routers" | "services" | "middlewares"] | ["udp", "routers" | "services"] => {
                query.page(Vec::new())
            }
            ["tcp" | "udp", "routers", name] => one("router", name, |_| None),
            ["tcp" | "udp", "services", name] => one("service", name, |_| None),
            ["tcp", "middlewares", name] => one("middleware", name, |_| None),
            ["certificates"] => query.page(views::certificates(&report, &query)),
            ["certificates", name] => {
                one("certificate", name, |name| views::certificate(&report, name))
            }
            _ => not_found(),
        }
    }

    /// A view as the profile lets it be seen.
    fn shown(&self, mut view: Value) -> Value {
        if self.facts.profile != Profile::Exact {
            redact::hide_credentials(&mut view);
        }
        view
    }

    fn all_shown(&self, views: Vec<Value>) -> Vec<Value> {
        views.into_iter().map(|view| self.shown(view)).collect()
    }

    fn version(&self) -> Value {
        json!({
            "Version": env!("CARGO_PKG_VERSION"),
            "Codename": "doorward",
            "startDate": self.view.start_date,
            "disableDashboardAd": self.view.disable_dashboard_ad,
            "dashboardName": self.view.dashboard_name,
        })
    }

    fn overview(&self, report: &Report) -> Value {
        let count = |statuses: &mut dyn Iterator<Item = Status>| {
            let (mut total, mut warnings, mut errors) = (0, 0, 0);
            for status in statuses {
                total += 1;
                warnings += u32::from(status == Status::Warning);
                errors += u32::from(status == Status::Disabled);
            }
            json!({"total": total, "warnings": warnings, "errors": errors})
        };
        let none = json!({"total": 0, "warnings": 0, "errors": 0});
        json!({
            "http": {
                "routers": count(&mut report.routers.iter().map(|router| router.status)),
                "services": count(&mut report.services.iter().map(|service| service.status)),
                "middlewares": count(&mut report.middlewares.iter().map(|one| one.status)),
            },
            "tcp": {"routers": none, "services": none, "middlewares": none},
            "udp": {"routers": none, "services": none},
            "certificates": views::certificate_counts(report),
            "features": self.view.features,
            "providers": self.view.providers,
        })
    }
}

impl Handler for Api {
    fn handle<'a>(&'a self, _cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        let (uri, headers) = (request.uri(), request.headers());
        let query = uri.query().unwrap_or_default();
        ready(self.answer(request.method(), uri.path(), query, headers))
    }
}

/// What a list is asked for.
struct Query {
    page: String,
    per_page: String,
    search: String,
    status: String,
    service_name: String,
    middleware_name: String,
    sort_by: String,
    descending: bool,
}

impl Query {
    fn parse(query: &str) -> Self {
        let value = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| percent_decoded(value))
                .unwrap_or_default()
        };
        Self {
            page: value("page"),
            per_page: value("per_page"),
            search: value("search").to_lowercase(),
            status: value("status").to_lowercase(),
            service_name: value("serviceName"),
            middleware_name: value("middlewareName"),
            sort_by: value("sortBy"),
            descending: value("direction") == "desc",
        }
    }

    /// One page of `items`; the number of the next in `X-Next-Page`, 1 when there is none.
    fn page(&self, items: Vec<Value>) -> Response {
        let positive = |name: &str, text: &str, default: usize| match text {
            "" => Ok(default),
            text => text
                .parse::<usize>()
                .ok()
                .filter(|&number| number > 0)
                .ok_or_else(|| format!("invalid request: {name}: {text}")),
        };
        let page = positive("page", &self.page, 1);
        let per_page = positive("per_page", &self.per_page, 100);
        let (page, per_page) = match (page, per_page) {
            (Ok(page), Ok(per_page)) => (page, per_page),
            (Err(message), _) | (_, Err(message)) => {
                return error(StatusCode::BAD_REQUEST, &message);
            }
        };
        let start = (page - 1).saturating_mul(per_page);
        if start > 0 && start >= items.len() {
            let message = format!("invalid request: page: {page}, per_page: {per_page}");
            return error(StatusCode::BAD_REQUEST, &message);
        }
        let more = start + per_page < items.len();
        let items: Vec<_> = items.into_iter().skip(start).take(per_page).collect();
        let mut response = ok(&Value::Array(items));
        let next = if more { page + 1 } else { 1 };
        response
            .headers_mut()
            .insert(HeaderName::from_static("x-next-page"), HeaderValue::from(next));
        response
    }
}

/// The object of this name, or Traefik's 404.
fn one(kind: &str, name: &str, find: impl FnOnce(&str) -> Option<Value>) -> Response {
    let name = percent_decoded(name);
    match find(&name) {
        Some(value) => ok(&value),
        None => error(StatusCode::NOT_FOUND, &format!("{kind} not found: {name}")),
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digit =
                    |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
                if let (Some(high), Some(low)) = (digit(high), digit(low)) {
                    bytes.push(high * 16 + low);
                    rest = after;
                } else {
                    bytes.push(first);
                }
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// JSON as Go's encoder writes it: `&`, `<` and `>` escaped, a newline at the end.
fn go_json(value: &Value) -> String {
    let mut out = String::new();
    for character in value.to_string().chars() {
        match character {
            '&' => out.push_str("\\u0026"),
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
    out.push('\n');
    out
}

fn ok(value: &Value) -> Response {
    let mut response = Response::new(Body::from(go_json(value)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Traefik sends its errors as JSON with the content type of a text.
fn error(status: StatusCode, message: &str) -> Response {
    let mut response = Response::new(Body::from(go_json(&json!({"message": message}))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// `noop@internal`
pub struct Noop;

impl Handler for Noop {
    fn handle<'a>(&'a self, _cx: &'a Context, _request: Request) -> ResponseFuture<'a> {
        ready(empty(StatusCode::IM_A_TEAPOT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_as_traefik_does() {
        let items = |count: usize| (0..count).map(|n| json!(n)).collect::<Vec<_>>();
        let next =
            |response: &Response| response.headers()["x-next-page"].to_str().unwrap().to_owned();
        assert_eq!(next(&Query::parse("").page(items(3))), "1");
        assert_eq!(next(&Query::parse("page=1&per_page=2").page(items(3))), "2");
        assert_eq!(next(&Query::parse("page=2&per_page=2").page(items(3))), "1");
        for bad in ["page=0", "page=x", "per_page=-1", "page=3&per_page=2"] {
            assert_eq!(Query::parse(bad).page(items(3)).status(), StatusCode::BAD_REQUEST, "{bad}");
        }
        assert_eq!(Query::parse("page=1").page(items(0)).status(), StatusCode::OK);
    }

    #[test]
    fn json_is_escaped_as_go_does() {
        assert_eq!(go_json(&json!("a&b<c>")), "\"a\\u0026b\\u003cc\\u003e\"\n");
    }
}
