//! A client of the demo's own proxy: one connection for each request, TLS by the development
//! authority and nothing else. Names are not looked up; everything is on the loopback address.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::Bytes;
use http::header::{
    CONNECTION, COOKIE, HOST, LOCATION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, SET_COOKIE, UPGRADE,
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::AUTHORITY;
use super::options::DemoOptions;
use super::pages::POD_HEADER;
use super::websocket::{Side, Socket, accept_value, new_key};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(5);

/// How long the proxy may take until it answers for both tenants.
const START_LIMIT: Duration = Duration::from_secs(15);

/// An open WebSocket to the proxy.
pub(super) type ClientSocket = Socket<TokioIo<hyper::upgrade::Upgraded>>;

/// Where the proxy listens, and whom to trust.
pub(super) struct Client {
    tls: TlsConnector,
    http_port: u16,
    https_port: u16,
    admin_port: u16,
}

/// A whole reply.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// The pod that answered; none when the proxy did.
    pub(super) fn pod(&self) -> Option<&str> {
        self.text_of(POD_HEADER)
    }

    /// Where a redirect leads.
    pub(super) fn location(&self) -> Option<&str> {
        self.text_of(LOCATION.as_str())
    }

    /// The cookie that it sets, as a client sends it back.
    pub(super) fn cookie(&self) -> Option<&str> {
        self.text_of(SET_COOKIE.as_str())?.split(';').next()
    }

    fn text_of(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Client {
    /// A client for the ports of these options.
    pub(super) fn new(options: &DemoOptions) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(AUTHORITY.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            http_port: options.http_port,
            https_port: options.https_port,
            admin_port: options.admin_port,
        })
    }

    /// Returns when both tenants are answered for.
    pub(super) async fn wait_for_proxy(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        for host in ["north.localhost", "south.localhost"] {
            loop {
                let problem = match self.get(host, "/web/health", None).await {
                    Ok(reply) if reply.status == StatusCode::OK => break,
                    Ok(reply) => anyhow!("it answers {} for {host}", reply.status),
                    Err(error) => error,
                };
                if Instant::now() > deadline {
                    return Err(problem.context("the proxy is not ready"));
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Asks the proxy over TLS.
    pub(super) async fn get(
        &self,
        host: &str,
        path: &str,
        cookie: Option<&str>,
    ) -> anyhow::Result<Reply> {
        let mut request = Request::get(path).header(HOST, self.authority(host));
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        let request = request.body(Empty::new())?;
        limited(async {
            let stream = self.connect(host).await?;
            whole(exchange(stream, request).await?).await
        })
        .await
    }

    /// Asks the proxy's port of plain HTTP.
    pub(super) async fn get_plain(&self, host: &str, path: &str) -> anyhow::Result<Reply> {
        self.get_clear(self.http_port, &format!("{host}:{}", self.http_port), path).await
    }

    /// Asks the proxy's own pages.
    pub(super) async fn get_admin(&self, path: &str) -> anyhow::Result<Reply> {
        self.get_clear(self.admin_port, &format!("localhost:{}", self.admin_port), path).await
    }

    /// Opens a WebSocket; the second value is the pod that took it.
    pub(super) async fn websocket(&self, host: &str) -> anyhow::Result<(ClientSocket, String)> {
        let key = new_key()?;
        let request = Request::get("/websocket")
            .header(HOST, self.authority(host))
            .header(ORIGIN, format!("https://{}", self.authority(host)))
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key)
            .body(Empty::new())?;
        limited(async {
            let response = exchange(self.connect(host).await?, request).await?;
            let status = response.status();
            ensure!(status == StatusCode::SWITCHING_PROTOCOLS, "the handshake ended with {status}");
            let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
            ensure!(
                accept.is_some_and(|accept| accept.as_bytes() == accept_value(&key).as_bytes()),
                "the handshake was not answered for its key"
            );
            let pod = response.headers().get(POD_HEADER);
            let pod = pod.and_then(|pod| pod.to_str().ok()).unwrap_or("nobody").to_owned();
            let stream = hyper::upgrade::on(response).await?;
            Ok((Socket::new(TokioIo::new(stream), Side::Client), pod))
        })
        .await
    }

    /// The host as a browser writes it.
    pub(super) fn authority(&self, host: &str) -> String {
        if self.https_port == 443 { host.to_owned() } else { format!("{host}:{}", self.https_port) }
    }

    async fn connect(&self, host: &str) -> anyhow::Result<Box<TlsStream<TcpStream>>> {
        let stream = tcp(self.https_port).await?;
        let name = ServerName::try_from(host.to_owned())?;
        // Boxed, for a TLS connection is large and would be moved through every future here.
        let stream = Box::pin(self.tls.connect(name, stream)).await;
        stream.map(Box::new).context("the TLS handshake failed")
    }

    async fn get_clear(&self, port: u16, authority: &str, path: &str) -> anyhow::Result<Reply> {
        let request = Request::get(path).header(HOST, authority).body(Empty::new())?;
        limited(async { whole(exchange(tcp(port).await?, request).await?).await }).await
    }
}

/// Runs something that must be over soon.
pub(super) async fn limited<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match timeout(LIMIT, work).await {
        Ok(result) => result,
        Err(_) => bail!("no answer in {LIMIT:?}"),
    }
}

async fn tcp(port: u16) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    let stream = stream.with_context(|| format!("nothing answers on port {port}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> anyhow::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // How it ends is seen by whoever reads the reply.
    tokio::spawn(async move { connection.with_upgrades().await.ok() });
    Ok(sender.send_request(request).await?)
}

async fn whole(response: Response<Incoming>) -> anyhow::Result<Reply> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Reply { status: parts.status, headers: parts.headers, body })
}
