//! `mirroring`: a service answers, and others get copies of its requests.
//!
//! Nothing that a mirror does reaches the client, or another mirror: copies go out when the answer is
//! over, from tasks of their own, and there is a bound to how many, how long and how large they are.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{Extensions, Method, StatusCode};
use http_body::Body as _;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::error::Elapsed;

use super::composite::{child, grounds_of};
use super::copied::{BodyCopy, Load, Places, copied};
use super::unseen::Unseen;
use super::{MirroringConfig, Service, ServiceContext};
use crate::exchange::forwarded::ForwardedForRemoved;
use crate::exchange::{
    Body, BodyEnd, Context, Ending, Handler, OpenWorkItem, Request, Response, ResponseFuture,
    on_end,
};
use crate::values::BuildError;

/// No mirror is listened to for longer: one that never ends would keep its place for ever.
const LONGEST: Duration = Duration::from_mins(5);
/// And none may take longer to begin its answer.
const LONGEST_HEAD: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Mirroring {
    name: Arc<str>,
    main: Arc<dyn Service>,
    mirrors: Box<[Mirror]>,
    turns: Arc<Turns>,
    copies_body: bool,
    limit: Option<u64>,
    load: Arc<Load>,
    heeds_health: bool,
    grounds: Box<[Arc<dyn Service>]>,
}

/// Who gets copies.
#[derive(Clone)]
struct Mirror {
    service: Arc<dyn Service>,
    /// Its own: one that hangs takes nothing from the others.
    places: Arc<Places>,
}

impl Mirroring {
    /// Builds the service that `config` describes.
    pub(super) fn build(
        config: &MirroringConfig,
        cx: &mut ServiceContext<'_>,
    ) -> Result<Self, BuildError> {
        let main = child(&config.service, "service", cx)?;
        let mut mirrors = Vec::with_capacity(config.mirrors.len());
        let mut percents = Vec::with_capacity(config.mirrors.len());
        let mut key = format!("{}\nmirrors", cx.name);
        for (at, mirror) in config.mirrors.iter().enumerate() {
            let service = child(&mirror.name, &format!("mirrors[{at}].name"), cx)?;
            let places = format!("{}\nmirror {}", cx.name, mirror.name);
            mirrors.push(Mirror { service, places: cx.state.carry_over(&places, Places::default) });
            let percent = u64::try_from(mirror.percent).ok().filter(|&percent| percent <= 100);
            percents.push(percent.ok_or_else(|| {
                let option = format!("mirrors[{at}].percent");
                BuildError::at(option, "percent must be between 0 and 100")
            })?);
            let _ = write!(key, "\n{} {}", mirror.name, mirror.percent);
        }
        if config.max_body_size < -1 {
            let message = format!(
                "`maxBodySize` is {}, which means -1: bodies of any length are copied",
                config.max_body_size
            );
            cx.warnings.push(BuildError::at("maxBodySize", message));
        }
        let heeds_health = config.health_check.is_some();
        Ok(Self {
            name: cx.name.shared(),
            grounds: grounds_of([&main].into_iter().filter(|_| heeds_health)),
            main,
            mirrors: mirrors.into(),
            turns: cx.state.carry_over(&key, || Turns::new(percents)),
            copies_body: config.mirror_body,
            limit: u64::try_from(config.max_body_size).ok(),
            load: cx.state.carry_over(cx.name.as_str(), Load::default),
            heeds_health,
        })
    }

    async fn with_mirrors(&self, cx: &Context, request: Request, mirrors: Chosen) -> Response {
        let head = request.method() == Method::HEAD;
        let (original, body) = request.into_parts();
        let mut parts = original.clone();
        parts.extensions = extensions_of(&original.extensions);
        let (body, copy) = if body.is_end_stream() {
            (body, None)
        } else if self.copies_body {
            let (body, copy) = copied(body, self.limit, &self.load);
            (body, Some(copy))
        } else {
            for name in [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT] {
                parts.headers.remove(name);
            }
            (body, None)
        };
        let mut response = self.main.handle(cx, Request::from_parts(original, body)).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // There is nobody for a mirror to talk to.
            return response;
        }
        parts.headers.remove(UPGRADE);
        let (over, answered) = oneshot::channel();
        on_end(&mut response, move |end: BodyEnd, _: Option<&http::HeaderMap>| {
            // The body of an answer to HEAD is read by nobody.
            if end.ending == Ending::Complete || head && end.ending == Ending::Dropped {
                let _ = over.send(());
            }
        });
        let mirroring = Mirrored {
            name: Arc::clone(&self.name),
            mirrors: mirrors.iter().filter_map(|&at| self.mirrors.get(at).cloned()).collect(),
            parts,
            cx: cx.clone(),
        };
        let work = cx.connection.work.begin_apart();
        tokio::task::spawn_local(mirroring.run(answered, copy, work));
        response
    }
}

/// What a copy takes along of what our own layers left with a request: not what belongs to the
/// client's connection.
fn extensions_of(original: &Extensions) -> Extensions {
    let mut extensions = Extensions::new();
    if let Some(removed) = original.get::<ForwardedForRemoved>().copied() {
        extensions.insert(removed);
    }
    extensions
}

/// One request on its way to mirrors.
struct Mirrored {
    name: Arc<str>,
    mirrors: Vec<Mirror>,
    parts: Parts,
    cx: Context,
}

impl Mirrored {
    async fn run(
        self,
        answered: oneshot::Receiver<()>,
        copy: Option<oneshot::Receiver<BodyCopy>>,
        work: OpenWorkItem,
    ) {
        let service = &*self.name;
        if answered.await.is_err() {
            tracing::debug!(serviceName = service, "not mirrored: the client went away");
            return;
        }
        let copy = match copy {
            None => None,
            Some(copy) => {
                let Ok(copy) = copy.await else {
                    tracing::debug!(serviceName = service, "not mirrored: no whole body to copy");
                    return;
                };
                Some(copy)
            }
        };
        let copied = Arc::new(Copied { parts: self.parts, copy, cx: self.cx });
        for mirror in self.mirrors {
            let Some(place) = mirror.places.take() else {
                tracing::debug!(
                    serviceName = service,
                    "not mirrored: too many copies on their way"
                );
                continue;
            };
            let (copied, name) = (Arc::clone(&copied), Arc::clone(&self.name));
            let work = copied.cx.connection.work.begin_apart();
            tokio::task::spawn_local(async move {
                tokio::select! {
                    () = work.cut() => {}
                    sent = tokio::time::timeout(LONGEST, copied.send(&*mirror.service)) => {
                        if !matches!(sent, Ok(Ok(()))) {
                            tracing::debug!(serviceName = &*name, "a mirror took too long");
                        }
                    }
                }
                drop(place);
            });
        }
        drop(work);
    }
}

/// A request whose main answer is over.
struct Copied {
    parts: Parts,
    copy: Option<BodyCopy>,
    cx: Context,
}

impl Copied {
    async fn send(&self, mirror: &dyn Service) -> Result<(), Elapsed> {
        let bytes = self.copy.as_ref().map(|copy| copy.bytes.clone()).unwrap_or_default();
        let request = Request::from_parts(self.parts.clone(), Body::from(bytes));
        let unseen = Unseen::of(&request);
        let answered = tokio::time::timeout(LONGEST_HEAD, mirror.handle(&self.cx, request));
        unseen.read(&self.cx, answered.await?).await;
        Ok(())
    }
}

impl Handler for Mirroring {
    fn handle<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        let mirrors = self.turns.next();
        if mirrors.is_empty() {
            return self.main.handle(cx, request);
        }
        Box::pin(self.with_mirrors(cx, request, mirrors))
    }
}

impl Service for Mirroring {
    fn is_up(&self) -> bool {
        !self.heeds_health || self.grounds.iter().any(|service| service.is_up())
    }

    fn grounds(&self) -> &[Arc<dyn Service>] {
        &self.grounds
    }

    fn has_other_than(&self, servers: &[Arc<str>]) -> bool {
        self.main.has_other_than(servers)
    }

    fn leaves(&self) -> &[Arc<dyn Service>] {
        self.main.leaves()
    }

    fn checks_health(&self) -> bool {
        self.heeds_health && self.main.checks_health()
    }

    fn kind(&self) -> Option<&'static str> {
        if self.heeds_health { self.main.kind() } else { Some("mirroring") }
    }
}

/// Places of mirrors.
type Chosen = SmallVec<[usize; 4]>;

/// Which mirrors get a copy of the next request: not by chance, so that shares are exact.
struct Turns {
    percents: Box<[u64]>,
    counts: Mutex<Counts>,
}

struct Counts {
    requests: u64,
    copies: Box<[u64]>,
}

impl Turns {
    fn new(percents: Vec<u64>) -> Self {
        let copies = vec![0; percents.len()].into();
        Self { percents: percents.into(), counts: Mutex::new(Counts { requests: 0, copies }) }
    }

    fn next(&self) -> Chosen {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { requests, copies } = &mut *counts;
        *requests += 1;
        let mut chosen = Chosen::new();
        for (at, (copies, percent)) in copies.iter_mut().zip(&self.percents).enumerate() {
            if *copies * 100 < *requests * percent {
                *copies += 1;
                chosen.push(at);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests;
