//! HTTP/2: a client over clear text or TLS, and a backend that answers as a gRPC server does.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::certs::Tls;
use super::origin::Origin;

/// An HTTP/2 connection in clear text, without asking whether the server speaks it.
pub(crate) async fn connect(to: SocketAddr) -> SendRequest<Full<Bytes>> {
    over(TcpStream::connect(to).await.unwrap()).await
}

/// An HTTP/2 connection over TLS.
pub(crate) async fn connect_tls(to: SocketAddr, name: &str) -> SendRequest<Full<Bytes>> {
    over(tls(to, name).await).await
}

/// A TLS connection that agreed on HTTP/2.
pub(crate) async fn tls(to: SocketAddr, name: &str) -> TlsStream<TcpStream> {
    let config = Arc::new(Tls::anyone().protocols(&["h2"]).config());
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect(to).await.unwrap();
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    stream
}

/// The same over `stream`, for bodies of any kind.
pub(crate) async fn over<S, B>(stream: S) -> SendRequest<B>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// What came back over HTTP/2.
pub(crate) struct Received {
    pub(crate) response: http::response::Parts,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

/// Sends one request and reads its answer to the end.
pub(crate) async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: http::request::Builder,
    body: &'static [u8],
) -> Received {
    let request: Request<Full<Bytes>> = request.body(Full::new(Bytes::from_static(body))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let (response, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    Received { response, body: collected.to_bytes(), trailers }
}

/// A backend that speaks HTTP/2 in clear text, echoes bodies, and ends with `grpc-status`.
pub(crate) fn grpc_origin() -> Origin {
    Origin::raw(|stream, _| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = TokioIo::new(TcpStream::from_std(stream).unwrap());
            let service = hyper::service::service_fn(echo);
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(stream, service)
                .await;
        });
    })
}

async fn echo(
    request: Request<Incoming>,
) -> Result<Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>, Infallible> {
    let te = request.headers().get("te").cloned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(body.unwrap_or_default())), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let mut response = Response::new(BodyExt::boxed(body));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    if let Some(te) = te {
        response.headers_mut().insert("x-te", te);
    }
    Ok(response)
}
