//! `failover`: a service, and the one that stands in for it when it is down or answers with an error.
//!
//! Without `errors.status` nothing is kept of a request. With it, the body is in memory before the
//! main service sees the request, so that the other gets the same one, whole.

use std::sync::Arc;

use http::StatusCode;

use super::composite::{child, grounds_of, leaves_of, must_check_health};
use super::unseen::Unseen;
use super::{FailoverConfig, Service, ServiceContext};
use crate::exchange::{
    Attempts, Context, Handler, Outcome, ProxyError, Replay, Request, Response, ResponseFuture,
    error, ready,
};
use crate::values::{BuildError, Profile, StatusRanges};

/// See the module.
pub(super) struct Failover {
    main: Arc<dyn Service>,
    fallback: Arc<dyn Service>,
    /// Whether the main service knows how it is; otherwise it is always asked first.
    main_checks_health: bool,
    heeds_health: bool,
    on_status: Option<OnStatus>,
    grounds: Box<[Arc<dyn Service>]>,
    leaves: Box<[Arc<dyn Service>]>,
    /// The other service does not ask a server that the main one has asked.
    spares: bool,
}

/// Failover by status.
struct OnStatus {
    statuses: StatusRanges,
    /// Longest body that is kept.
    limit: Option<u64>,
}

impl Failover {
    /// Builds the service that `config` describes.
    pub(super) fn build(
        config: &FailoverConfig,
        cx: &mut ServiceContext<'_>,
    ) -> Result<Self, BuildError> {
        let on_status = match &config.errors {
            Some(errors) if !errors.status.is_empty() => Some(OnStatus {
                statuses: StatusRanges::read("errors.status", &errors.status, cx.warnings)?,
                limit: u64::try_from(errors.max_request_body_bytes).ok(),
            }),
            _ => None,
        };
        let main = child(&config.service, "service", cx)?;
        if on_status.is_none() {
            must_check_health(&*main, &config.service, cx, "service")?;
        }
        let fallback = child(&config.fallback, "fallback", cx)?;
        let heeds_health = config.health_check.is_some();
        if heeds_health {
            must_check_health(&*fallback, &config.fallback, cx, "fallback")?;
        }
        let main_checks_health = main.checks_health();
        let all_tell = heeds_health && main_checks_health;
        let grounds = grounds_of([&main, &fallback].into_iter().filter(|_| all_tell));
        Ok(Self {
            leaves: leaves_of([&main, &fallback].into_iter()),
            spares: cx.profile != Profile::Exact,
            main,
            fallback,
            main_checks_health,
            heeds_health,
            on_status,
            grounds,
        })
    }

    fn main_is_up(&self) -> bool {
        !self.main_checks_health || self.main.is_up()
    }

    fn fall_back<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        // Without `healthCheck`, nobody asks the fallback how it is.
        if !self.heeds_health || self.fallback.is_up() {
            return self.fallback.handle(cx, request);
        }
        let mut response = error::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable\n");
        Outcome::of(&mut response).error = Some(ProxyError::NoAvailableServer);
        ready(response)
    }

    async fn try_both(&self, on_status: &OnStatus, cx: &Context, mut request: Request) -> Response {
        if self.spares {
            Attempts::begin(&mut request);
        }
        let replay = match Replay::buffered(request, on_status.limit).await {
            Ok(replay) if replay.is_whole() => replay,
            Ok(_) => {
                return error::text(StatusCode::PAYLOAD_TOO_LARGE, "Request body too large\n");
            }
            Err(error) => return unreadable(error),
        };
        // A whole request is there any number of times.
        let Some(request) = replay.request() else { return ProxyError::Panic.into_response() };
        let unseen = Unseen::of(&request);
        let response = self.main.handle(cx, request).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            || !on_status.statuses.contains(response.status())
        {
            return response;
        }
        let sent = response.extensions().get::<Outcome>().is_some_and(|outcome| outcome.sent);
        unseen.dropped(cx, response);
        let Some(request) = replay.request() else { return ProxyError::Panic.into_response() };
        let mut response = self.fall_back(cx, request).await;
        // Of both: nobody must believe that nothing was done.
        Outcome::of(&mut response).sent |= sent;
        response
    }
}

/// Traefik's answer when the body cannot be read before anybody is asked; limits of our own have theirs.
fn unreadable(why: ProxyError) -> Response {
    if why.exceeded().is_some() {
        return why.into_response();
    }
    let mut response = error::text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error\n");
    Outcome::of(&mut response).error = Some(why);
    response
}

impl Handler for Failover {
    fn handle<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        if !self.main_is_up() {
            return self.fall_back(cx, request);
        }
        match &self.on_status {
            None => self.main.handle(cx, request),
            Some(on_status) => Box::pin(self.try_both(on_status, cx, request)),
        }
    }
}

impl Service for Failover {
    fn is_up(&self) -> bool {
        // One that is empty has a part that never says that it is down.
        !self.heeds_health
            || self.grounds.is_empty()
            || self.grounds.iter().any(|service| service.is_up())
    }

    fn grounds(&self) -> &[Arc<dyn Service>] {
        &self.grounds
    }

    fn leaves(&self) -> &[Arc<dyn Service>] {
        &self.leaves
    }

    fn checks_health(&self) -> bool {
        self.heeds_health
    }

    fn kind(&self) -> Option<&'static str> {
        Some("failover")
    }
}
