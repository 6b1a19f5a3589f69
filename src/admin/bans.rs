//! `/v1/bans`: who is banned, and an end to it. `/v1/bans/{middleware}/{source}` is one of them.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Answer, Call, Reply, Resource};
use crate::middleware::ban::{BanList, BanView, Bans, Refused};
use crate::values::GoDuration;

/// See the module.
pub struct BansResource {
    bans: Arc<Bans>,
}

/// Body of a `PUT`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// Default: as long as bans of the middleware last.
    duration: Option<GoDuration>,
    #[serde(default)]
    reason: String,
}

/// Longest reason, in bytes.
const LONGEST_REASON: usize = 1024;

impl BansResource {
    /// The resource over these bans.
    pub fn new(bans: Arc<Bans>) -> Self {
        Self { bans }
    }

    fn reply(&self, call: &Call) -> Reply {
        match (&call.method, &call.path[..]) {
            (&Method::GET, []) => self.list(call.query("middleware")),
            (_, [] | [_]) if call.method == Method::GET => Reply::not_found(),
            (_, []) => Reply::not_allowed("GET, HEAD"),
            (_, [_]) => Reply::not_found(),
            (method, [middleware, source @ ..]) => {
                let Some(list) = self.bans.get(middleware) else {
                    return no_middleware(middleware);
                };
                // The slash of a network need not be escaped.
                let source = source.join("/");
                match *method {
                    Method::GET => one(&list, &source),
                    Method::PUT => put(&list, &source, call),
                    Method::DELETE => delete(&list, &source),
                    _ => Reply::not_allowed("GET, HEAD, PUT, DELETE"),
                }
            }
        }
    }

    fn list(&self, middleware: Option<&str>) -> Reply {
        let lists = match middleware.map(|name| (name, self.bans.get(name))) {
            None => self.bans.all(),
            Some((_, Some(list))) => vec![list],
            Some((name, None)) => return no_middleware(name),
        };
        let views: Vec<BanView> = lists.iter().flat_map(|list| list.views()).collect();
        Reply::ok(json!(views))
    }
}

impl Resource for BansResource {
    fn name(&self) -> &'static str {
        "bans"
    }

    fn about(&self) -> &'static str {
        "sources that a middleware has banned: GET, and GET, PUT, DELETE of {middleware}/{source}"
    }

    fn told(&self, call: &Call) -> Value {
        call.body.clone().unwrap_or_default()
    }

    fn answer<'a>(&'a self, call: &'a Call) -> Answer<'a> {
        Box::pin(std::future::ready(self.reply(call)))
    }
}

fn one(list: &BanList, source: &str) -> Reply {
    match list.find(source) {
        Ok(Some(view)) => Reply::ok(json!(view)),
        Ok(None) => not_banned(source),
        Err(refused) => refusal(&refused),
    }
}

fn put(list: &BanList, source: &str, call: &Call) -> Reply {
    let order: Order = match call.read() {
        Ok(order) => order,
        Err(reply) => return reply,
    };
    if order.reason.len() > LONGEST_REASON {
        let message = format!("`reason` has at most {LONGEST_REASON} bytes");
        return Reply::error(StatusCode::BAD_REQUEST, &message);
    }
    match list.ban_by_hand(source, order.duration, &call.who.name, &order.reason) {
        Ok(view) => Reply::ok(json!(view)),
        Err(refused) => refusal(&refused),
    }
}

fn delete(list: &BanList, source: &str) -> Reply {
    match list.unban(source) {
        Ok(true) => Reply::done(),
        Ok(false) => not_banned(source),
        Err(refused) => refusal(&refused),
    }
}

fn no_middleware(name: &str) -> Reply {
    Reply::error(StatusCode::NOT_FOUND, &format!("there is no middleware {name:?} that bans"))
}

fn not_banned(source: &str) -> Reply {
    Reply::error(StatusCode::NOT_FOUND, &format!("{source} is not banned"))
}

fn refusal(refused: &Refused) -> Reply {
    let status = match refused {
        Refused::Wrong(_) => StatusCode::BAD_REQUEST,
        Refused::Useless(_) => StatusCode::CONFLICT,
        Refused::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
    };
    Reply::error(status, &refused.to_string())
}
