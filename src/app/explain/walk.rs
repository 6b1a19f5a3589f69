//! A request on its way behind a router: what middlewares make of it, and which routers below take it.
//!
//! Middlewares that only read and change the head of a request are run for what they are; all others are taken to let
//! it through, and the steps say so.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use http::StatusCode;
use http::header::LOCATION;

use super::request::Canonical;
use super::subject::Subject;
use super::told::MiddlewareTold;
use crate::exchange::canonical::routing_path;
use crate::exchange::error::empty;
use crate::exchange::view::RequestView;
use crate::exchange::{
    Chain, Context, Handler, Middleware, Request, Response, ResponseFuture, ready,
};
use crate::middleware::BuildContext;
use crate::router::{Below, HttpRouter, HttpRouters};
use crate::state::SharedState;
use crate::values::secret::{HIDDEN, is_secret_name, masked_url};
use crate::values::{BuildError, Disk, QualifiedName};

/// Kinds that look at nothing but the head of a request, and at nobody else.
const RUN: [&str; 10] = [
    "addPrefix",
    "contentType",
    "encodedCharacters",
    "headers",
    "redirectRegex",
    "redirectScheme",
    "replacePath",
    "replacePathRegex",
    "stripPrefix",
    "stripPrefixRegex",
];
/// Kinds that look at the client's address besides.
const RUN_FOR_CLIENT: [&str; 2] = ["ipAllowList", "ipWhiteList"];
/// Kinds that let every request through, whatever it is.
const HARMLESS: [&str; 8] = [
    "buffering",
    "chain",
    "circuitBreaker",
    "compress",
    "errors",
    "grpcWeb",
    "passTLSClientCert",
    "retry",
];

/// Whether a middleware of this kind keeps requests out: whatever is not known to let all of them through.
pub(in crate::app) fn is_guard(kind: &str) -> bool {
    kind == "encodedCharacters" || !RUN.contains(&kind) && !HARMLESS.contains(&kind)
}

/// One middleware on the way.
pub(in crate::app) struct Step {
    pub(in crate::app) name: QualifiedName,
    pub(in crate::app) kind: String,
    /// What it did, or may do.
    pub(in crate::app) effect: Option<String>,
}

impl Step {
    pub(super) fn told(self, subject: &Subject) -> MiddlewareTold {
        MiddlewareTold {
            place: subject.middleware_place(&self.name),
            name: self.name.to_string(),
            kind: self.kind,
            effect: self.effect,
        }
    }
}

/// What one router did with the request.
pub(in crate::app) struct Passage<'t> {
    pub(in crate::app) steps: Vec<Step>,
    pub(in crate::app) end: End<'t>,
}

/// Where the way behind a router ends.
pub(in crate::app) enum End<'t> {
    /// At its service, which gets this request.
    Service(Box<Request>),
    /// A middleware answers.
    Answered { by: QualifiedName, status: StatusCode, location: Option<String> },
    /// At routers below it, for this request.
    Below(&'t HttpRouters, Box<Request>),
}

impl End<'_> {
    /// The router below that takes the request.
    pub(in crate::app) fn next(&self, cx: &Context) -> Option<&Arc<HttpRouter>> {
        let Self::Below(routers, request) = self else { return None };
        with_view(cx, request, |view| routers.find(view))
    }
}

/// Asks about a request as routers below others see it.
pub(in crate::app) fn with_view<T>(
    cx: &Context,
    request: &Request,
    ask: impl FnOnce(&RequestView<'_>) -> T,
) -> T {
    let path = routing_path(request.uri().path());
    ask(&RequestView {
        host: &cx.host,
        flat_host: None,
        path: &path,
        query: request.uri().query(),
        method: request.method(),
        headers: request.headers(),
        client_ip: cx.connection.peer_ip,
    })
}

/// Sends a request through the middlewares of `router`.
pub(in crate::app) fn pass<'t>(
    router: &'t Arc<HttpRouter>,
    subject: &Subject,
    canonical: &Canonical,
    request: Request,
    knows_client: bool,
) -> Passage<'t> {
    let links = subject.report(&router.name).map(|report| &*report.links).unwrap_or_default();
    let all = router.chain.middlewares();
    // Who keeps the router's limits stands in front of those that are named, and a broken router has none of them.
    let named = all.get(all.len().saturating_sub(links.len())..).unwrap_or_default();
    let built = |at: usize, _: &QualifiedName| named.get(at).filter(|_| !router.broken).cloned();
    let walker = Walker { subject, cx: &canonical.cx, knows_client };
    let (steps, end) = walker.through(links, built, request);
    let below = router.chain.handler().as_any().and_then(|end| end.downcast_ref::<Below>());
    let end = match (end, below) {
        (Err(Answer { by, status, location }), _) => End::Answered { by, status, location },
        (Ok(request), Some(below)) => End::Below(below.routers(), Box::new(request)),
        (Ok(request), None) => End::Service(Box::new(request)),
    };
    Passage { steps, end }
}

/// Who sends requests through middlewares.
#[derive(Clone, Copy)]
pub(super) struct Walker<'w> {
    pub(super) subject: &'w Subject,
    pub(super) cx: &'w Context,
    /// Whether the client's address is the one that will ask.
    pub(super) knows_client: bool,
}

/// The answer of a middleware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) by: QualifiedName,
    pub(super) status: StatusCode,
    pub(super) location: Option<String>,
}

impl Walker<'_> {
    /// Sends `request` through `links`: what each has done, and the request that is left or the answer.
    pub(super) fn through(
        &self,
        links: &[QualifiedName],
        mut built: impl FnMut(usize, &QualifiedName) -> Option<Arc<dyn Middleware>>,
        mut request: Request,
    ) -> (Vec<Step>, Result<Request, Answer>) {
        let mut steps = Vec::with_capacity(links.len());
        let mut rest = links.iter().enumerate();
        while let Some((at, name)) = rest.next() {
            let kind = self.subject.middleware_kind(name);
            let runs =
                RUN.contains(&&*kind) || self.knows_client && RUN_FOR_CLIENT.contains(&&*kind);
            let middleware = if runs { built(at, name) } else { None };
            let mut step = Step { name: name.clone(), effect: None, kind };
            let Some(middleware) = middleware else {
                step.effect = is_guard(&step.kind).then(|| "may refuse the request".to_owned());
                steps.push(step);
                continue;
            };
            let before = target(&request);
            match run(&middleware, self.cx, request) {
                Ok(changed) => {
                    request = changed;
                    let now = target(&request);
                    step.effect = (now != before).then(|| format!("the path becomes {now}"));
                    if is_guard(&step.kind) {
                        step.effect = Some("lets the request through".to_owned());
                    }
                    steps.push(step);
                }
                Err(response) => {
                    let location = response.headers().get(LOCATION);
                    let location = location.and_then(|to| to.to_str().ok());
                    let location =
                        location.map(|to| masked_url(to, HIDDEN, is_secret_name).into_owned());
                    let status = response.status();
                    step.effect = Some(match &location {
                        Some(location) => format!("answers {} to {location}", status.as_u16()),
                        None => format!("answers {}", status.as_u16()),
                    });
                    steps.push(step);
                    steps.extend(rest.map(|(_, name)| self.unreached(name)));
                    return (steps, Err(Answer { by: name.clone(), status, location }));
                }
            }
        }
        (steps, Ok(request))
    }

    /// A middleware that an answer before it keeps the request from.
    pub(super) fn unreached(&self, name: &QualifiedName) -> Step {
        Step {
            name: name.clone(),
            kind: self.subject.middleware_kind(name),
            effect: Some("is not reached".to_owned()),
        }
    }

    /// Builds the middleware `name` for a service.
    pub(super) fn build(
        &self,
        name: &QualifiedName,
        owner: &QualifiedName,
    ) -> Option<Arc<dyn Middleware>> {
        let object = self.subject.table.merged.middlewares.get(name)?;
        let facts = &self.subject.table.facts;
        let set = object.config.set();
        let [(_, Some(config))] = &set[..] else { return None };
        let mut service = |_: &str| -> Result<Arc<dyn Handler>, BuildError> {
            Err(BuildError::new("nobody is asked here"))
        };
        let built = config.build(&mut BuildContext {
            name,
            owner,
            files: &Disk,
            state: &SharedState::default(),
            profile: facts.profile,
            proxies: &facts.proxies,
            service: &mut service,
            warnings: &mut Vec::new(),
        });
        built.ok()
    }
}

/// Path and query.
pub(super) fn target(request: &Request) -> String {
    let uri = request.uri();
    uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string)
}

/// Runs one middleware: the request that it lets through, or its answer.
fn run(
    middleware: &Arc<dyn Middleware>,
    cx: &Context,
    request: Request,
) -> Result<Request, Box<Response>> {
    let through = Arc::new(Through::default());
    let chain = Chain::new(vec![Arc::clone(middleware)], Arc::clone(&through) as Arc<dyn Handler>);
    let answer = chain.handle(cx, request).now_or_never();
    let request = through.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (request, answer) {
        (Some(request), _) => Ok(request),
        (None, Some(answer)) => Err(Box::new(answer)),
        // None of the kinds that are run waits for anything.
        (None, None) => Err(Box::new(empty(StatusCode::INTERNAL_SERVER_ERROR))),
    }
}

/// Keeps the request that reached it.
#[derive(Default)]
struct Through(Mutex<Option<Request>>);

impl Handler for Through {
    fn handle<'a>(&'a self, _cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
        ready(empty(StatusCode::OK))
    }
}
