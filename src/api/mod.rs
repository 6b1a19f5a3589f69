//! `/api/*`: read-only views over the report of the running configuration and live health, and
//! beside them the page that stands for Traefik's dashboard.
//!
//! It may be served from any router (`api@internal`), on any worker: it reads snapshots and
//! changes nothing. Shapes, paging and error texts are Traefik's.

mod dashboard;
mod dump;
pub mod ping;
mod query;
mod redact;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

pub use self::dashboard::Dashboard;
use self::query::{Query, Sorting};
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
    /// The static configuration, for the support dump.
    pub configuration: Value,
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
            ["support-dump"] => self.support_dump(&report),
            ["entrypoints"] => query.page(self.view.entry_points.values().cloned().collect()),
            ["entrypoints", name] => {
                one("entry point", name, |name| self.view.entry_points.get(name).cloned())
            }
            ["http", "routers"] => {
                let found = self.all_shown(views::routers(&report, &self.facts, &query));
                query.list(Sorting::Routers, found)
            }
            ["http", "routers", name] => one("router", name, |name| {
                views::router(&report, &self.facts, name).map(|one| self.shown(one))
            }),
            ["http", "services"] => {
                query.list(Sorting::Services, self.all_shown(views::services(&report, &query)))
            }
            ["http", "services", name] => one("service", name, |name| {
                views::service(&report, name).map(|one| self.shown(one))
            }),
            ["http", "middlewares"] => {
                let found = self.all_shown(views::middlewares(&report, &query));
                query.list(Sorting::Middlewares, found)
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
            ["certificates"] => {
                query.list(Sorting::Certificates, views::certificates(&report, &query))
            }
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
        let mut version = json!({
            "Version": env!("CARGO_PKG_VERSION"),
            "Codename": "doorward",
            "startDate": self.view.start_date,
        });
        if self.view.disable_dashboard_ad {
            version["disableDashboardAd"] = json!(true);
        }
        if !self.view.dashboard_name.is_empty() {
            version["dashboardName"] = json!(self.view.dashboard_name);
        }
        version
    }

    /// What somebody may be sent who shall help: three files, and no secret in any of them.
    fn support_dump(&self, report: &Report) -> Response {
        let version = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "codename": "doorward",
            "startDate": self.view.start_date,
        });
        let files = [
            ("version.json", version),
            ("static-config.json", self.view.configuration.clone()),
            ("runtime-config.json", views::raw_data(report, &self.facts)),
        ];
        match dump::archive(files) {
            Ok(archive) => {
                let mut response = Response::new(Body::from(Bytes::from(archive)));
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/gzip"));
                let name = HeaderValue::from_static("attachment; filename=support-dump.tar.gz");
                headers.insert(CONTENT_DISPOSITION, name);
                response
            }
            Err(problem) => error(StatusCode::INTERNAL_SERVER_ERROR, &problem.to_string()),
        }
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

/// The object of this name, or Traefik's 404.
fn one(kind: &str, name: &str, find: impl FnOnce(&str) -> Option<Value>) -> Response {
    let name = query::decoded(name, false);
    match find(&name) {
        Some(value) => ok(&value),
        None => error(StatusCode::NOT_FOUND, &format!("{kind} not found: {name}")),
    }
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
    fn json_is_escaped_as_go_does() {
        assert_eq!(go_json(&json!("a&b<c>")), "\"a\\u0026b\\u003cc\\u003e\"\n");
    }
}
