//! One GET of a JSON document: how `explain` asks a running instance. Clear text, or TLS as the system's authorities
//! have it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::header::{ACCEPT, HOST};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For one document.
const TIMEOUT: Duration = Duration::from_secs(15);
/// No document is longer: a hundred thousand routers are a tenth of it.
const LONGEST: usize = 512 << 20;

/// Fetches `url`. Blocks.
pub(super) fn json(url: &str, headers: &HeaderMap) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bytes = runtime.block_on(async {
        tokio::time::timeout(TIMEOUT, get(url, headers)).await.context("no answer in time")?
    });
    let bytes = bytes.with_context(|| format!("cannot get {url}"))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{url} is not JSON"))
}

async fn get(url: &str, headers: &HeaderMap) -> anyhow::Result<Bytes> {
    let uri: Uri = url.parse()?;
    let host = uri.host().context("the URL has no host")?;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => bail!("write the URL as http://host:port or https://host:port"),
    };
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = TcpStream::connect((name, port)).await.context("no connection")?;
    if !tls {
        return exchange(stream, &uri, headers).await;
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server_name = ServerName::try_from(name.to_owned())?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(server_name, stream).await.context("no TLS")?;
    exchange(stream, &uri, headers).await
}

async fn exchange<S>(stream: S, uri: &Uri, headers: &HeaderMap) -> anyhow::Result<Bytes>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = http::Request::get(target).body(Empty::<Bytes>::new())?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority)?);
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        request.headers_mut().insert(name, value.clone());
    }
    let response = sender.send_request(request).await?;
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        bail!("it answers {status}: give a credential with --api-header");
    }
    if status != StatusCode::OK {
        bail!("it answers {status}");
    }
    let body = Limited::new(response.into_body(), LONGEST).collect().await;
    connection.abort();
    Ok(body.map_err(|error| anyhow::anyhow!(error))?.to_bytes())
}
