//! What the tests of the shelf share: a context, a backend that keeps what it saw, and building.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::{Build, BuildContext};
use crate::exchange::{
    Body, Chain, ClientTls, Connection, Context, EntryPointFacts, Handler, Middleware, OpenWork,
    Request, Response, ResponseFuture, ready,
};
use crate::state::SharedState;
use crate::upstream::Proxies;
use crate::values::{BuildError, Files, Profile, QualifiedName};

/// A context of a clear-text connection from `peer`.
pub(crate) fn context(peer: &str) -> Context {
    let ip: IpAddr = peer.parse().unwrap();
    let connection = Connection {
        entry_point: Arc::new(EntryPointFacts { name: "web".into(), ..EntryPointFacts::default() }),
        peer: SocketAddr::new(ip, 40_000),
        peer_ip: ip.to_canonical(),
        peer_ip_text: HeaderValue::from_str(&ip.to_canonical().to_string()).unwrap(),
        local: "127.0.0.1:80".parse().unwrap(),
        tls: None,
        opened: Instant::now(),
        work: OpenWork::default(),
        own: std::sync::OnceLock::new(),
    };
    Context {
        connection: Arc::new(connection),
        host: "a.test".into(),
        authority: Some(HeaderValue::from_static("a.test")),
        start: Instant::now(),
        request_id: None,
    }
}

/// The same context over TLS.
pub(crate) fn over_tls(mut cx: Context) -> Context {
    let connection = Arc::get_mut(&mut cx.connection).unwrap();
    connection.tls = Some(ClientTls::default());
    cx
}

/// A GET request for `a.test`.
pub(crate) fn get(target: &str) -> Request {
    http::Request::builder().uri(target).header("host", "a.test").body(Body::empty()).unwrap()
}

/// The same request with one more header.
pub(crate) fn with(mut request: Request, name: &str, value: &str) -> Request {
    request.headers_mut().append(
        HeaderName::from_bytes(name.as_bytes()).unwrap(),
        HeaderValue::from_bytes(value.as_bytes()).unwrap(),
    );
    request
}

/// The whole body as text.
pub(crate) async fn body(response: Response) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Files that are not on disk.
#[derive(Default)]
pub(crate) struct FakeFiles(pub(crate) HashMap<String, String>);

impl Files for FakeFiles {
    fn read(&self, path: &Path) -> io::Result<Arc<[u8]>> {
        let text = self.0.get(path.to_str().unwrap()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::from(text.as_bytes()))
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.contains_key(path.to_str().unwrap())
    }
}

/// What a build is given besides its options.
#[derive(Default)]
pub(crate) struct Setting {
    pub(crate) files: FakeFiles,
    pub(crate) state: SharedState,
    pub(crate) profile: Profile,
}

impl Setting {
    /// Builds a middleware; returns the warnings with it.
    pub(crate) fn build(
        &self,
        config: &dyn Build,
    ) -> Result<(Arc<dyn Middleware>, Vec<BuildError>), BuildError> {
        self.build_for("router", config)
    }

    /// The same for this router.
    pub(crate) fn build_for(
        &self,
        router: &str,
        config: &dyn Build,
    ) -> Result<(Arc<dyn Middleware>, Vec<BuildError>), BuildError> {
        let mut warnings = Vec::new();
        let built = config.build(&mut BuildContext {
            name: &QualifiedName::new("mid", "file"),
            owner: &QualifiedName::new(router, "file"),
            files: &self.files,
            state: &self.state,
            profile: self.profile,
            proxies: &Proxies::default(),
            service: &mut |name: &str| Err(BuildError::new(format!("no service {name}"))),
            warnings: &mut warnings,
        })?;
        Ok((built, warnings))
    }
}

/// Builds a middleware with nothing around it.
pub(crate) fn build(config: &dyn Build) -> Result<Arc<dyn Middleware>, BuildError> {
    Setting::default().build(config).map(|(middleware, _)| middleware)
}

type Answer = Box<dyn Fn(usize, Request) -> ResponseFuture<'static> + Send + Sync>;

struct Backend {
    seen: Mutex<Vec<Parts>>,
    answer: Answer,
}

impl Handler for Backend {
    fn handle<'a>(&'a self, _cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        let (parts, body) = request.into_parts();
        let call = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(parts.clone());
            seen.len()
        };
        (self.answer)(call, Request::from_parts(parts, body))
    }
}

/// A chain of middlewares in front of a backend that keeps the heads it saw.
pub(crate) struct Bench {
    chain: Chain,
    backend: Arc<Backend>,
    pub(crate) cx: Context,
}

impl Bench {
    /// A backend that answers 200 without a body.
    pub(crate) fn new(middlewares: Vec<Arc<dyn Middleware>>) -> Self {
        Self::answering(middlewares, |_, _| Response::new(Body::empty()))
    }

    /// A backend that answers by `answer`, which gets the number of the call, from 1.
    pub(crate) fn answering(
        middlewares: Vec<Arc<dyn Middleware>>,
        answer: impl Fn(usize, Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        Self::waiting(middlewares, move |call, request| ready(answer(call, request)))
    }

    /// A backend that answers by a future.
    pub(crate) fn waiting(
        middlewares: Vec<Arc<dyn Middleware>>,
        answer: impl Fn(usize, Request) -> ResponseFuture<'static> + Send + Sync + 'static,
    ) -> Self {
        let backend = Arc::new(Backend { seen: Mutex::default(), answer: Box::new(answer) });
        let handler: Arc<dyn Handler> = Arc::clone(&backend) as Arc<dyn Handler>;
        Self { chain: Chain::new(middlewares, handler), backend, cx: context("192.0.2.1") }
    }

    /// The same with another context.
    pub(crate) fn with_context(mut self, cx: Context) -> Self {
        self.cx = cx;
        self
    }

    /// Sends a request through the chain.
    pub(crate) fn send(&self, request: Request) -> ResponseFuture<'_> {
        self.chain.handle(&self.cx, request)
    }

    /// Sends a request through the chain and returns the status only.
    pub(crate) async fn status(&self, request: Request) -> StatusCode {
        self.send(request).await.status()
    }

    /// Head of the last request that the backend saw.
    pub(crate) fn seen(&self) -> Parts {
        self.backend.seen.lock().unwrap().last().cloned().expect("the backend saw a request")
    }

    /// How many requests the backend saw.
    pub(crate) fn calls(&self) -> usize {
        self.backend.seen.lock().unwrap().len()
    }
}
