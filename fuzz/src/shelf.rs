//! One middleware alone, built of options and files, in front of an origin that keeps what it got.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use doorward::exchange::{
    Body, Chain, Connection, Context, EntryPointFacts, Handler, OpenWork, Request, Response,
    ResponseFuture, ready,
};
use doorward::middleware::{BuildContext, MiddlewareConfig};
use doorward::state::SharedState;
use doorward::upstream::Proxies;
use doorward::values::{BuildError, Files, Profile, QualifiedName};
use http::HeaderValue;
use http::request::Parts;
use tokio::time::Instant;

/// Builds the first middleware that is set, with this file at every path.
pub(super) fn build(
    config: &MiddlewareConfig,
    file: &[u8],
    profile: Profile,
    origin: Arc<dyn Handler>,
) -> Result<Chain, BuildError> {
    let name = QualifiedName::new("fuzzed", "file");
    let state = SharedState::default();
    let mut warnings = Vec::new();
    let mut built = Vec::new();
    for part in config.set().into_iter().filter_map(|(_, part)| part) {
        built.push(part.build(&mut BuildContext {
            name: &name,
            owner: &name,
            files: &OneFile(Arc::from(file)),
            state: &state,
            profile,
            proxies: &Proxies::default(),
            service: &mut |_: &str| Ok(Arc::clone(&origin)),
            warnings: &mut warnings,
        })?);
    }
    for warning in warnings {
        assert!(!warning.message.is_empty(), "a warning says nothing");
    }
    Ok(Chain::new(built, origin))
}

struct OneFile(Arc<[u8]>);

impl Files for OneFile {
    fn read(&self, _: &Path) -> io::Result<Arc<[u8]>> {
        Ok(Arc::clone(&self.0))
    }

    fn exists(&self, _: &Path) -> bool {
        true
    }
}

/// A request of a client at 192.0.2.7, in clear text.
pub(super) fn context(host: &str) -> Context {
    let ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    Context {
        connection: Arc::new(Connection {
            entry_point: Arc::new(EntryPointFacts {
                name: "web".into(),
                ..EntryPointFacts::default()
            }),
            peer: (ip, 40_000).into(),
            peer_ip: ip,
            peer_ip_text: HeaderValue::from_static("192.0.2.7"),
            local: (Ipv4Addr::LOCALHOST, 80).into(),
            tls: None,
            opened: Instant::now(),
            work: OpenWork::default(),
            own: OnceLock::new(),
        }),
        host: host.into(),
        authority: HeaderValue::from_str(host).ok(),
        start: Instant::now(),
        request_id: None,
    }
}

/// Answers with what it was given, and keeps the heads of the requests.
#[derive(Default)]
pub(super) struct Origin {
    seen: Mutex<Vec<Parts>>,
    answers: Mutex<Vec<Response>>,
}

impl Origin {
    /// The answer to the next request; the ones behind it get an empty 200.
    pub(super) fn answer(&self, response: Response) {
        *self.answers.lock().unwrap() = vec![response];
    }

    /// The heads of all requests since it was asked before.
    pub(super) fn seen(&self) -> Vec<Parts> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl Handler for Origin {
    fn handle<'a>(&'a self, _: &'a Context, request: Request) -> ResponseFuture<'a> {
        self.seen.lock().unwrap().push(request.into_parts().0);
        let answer = self.answers.lock().unwrap().pop();
        ready(answer.unwrap_or_else(|| Response::new(Body::empty())))
    }
}
