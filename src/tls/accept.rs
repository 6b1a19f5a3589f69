//! The handshake with a client: hello, options by server name, certificate, and what came of it.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion, ServerConnection};
use rustls_pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::hello::{self, Hello, read_hello};
use super::options::TlsProfile;
use super::prefixed::PrefixedStream;
use super::routes::{Selected, TlsRoutes};
use crate::exchange::ClientTls;

/// The HTTP version that client and server agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// `h2`.
    H2,
    /// `http/1.1`, or nothing that we know.
    Http1,
}

/// A connection after its handshake.
pub type Accepted<S> = (TlsStream<PrefixedStream<S>>, ClientTls, Alpn);

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The client left without a word.
    #[error("the client closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(io::Error),
    /// The hello did not come in time.
    #[error("no ClientHello in time")]
    HelloTimeout,
    /// The handshake did not end in time.
    #[error("the handshake did not end in time")]
    HandshakeTimeout,
    /// What came is not TLS.
    #[error("the client does not speak TLS")]
    NotTls,
    /// The hello goes on and on.
    #[error("the ClientHello is too large")]
    HelloTooLarge,
    /// `sniStrict`, and no certificate for the name.
    #[error("no certificate for the server name")]
    UnrecognizedName,
    /// The options of the host are in error.
    #[error("TLS options `{name}` are in error: {reason}")]
    BrokenOptions {
        /// Name of the options.
        name: Arc<str>,
        /// What is wrong with them.
        reason: Arc<str>,
    },
    /// The client offers protocols, and none that is served.
    #[error("no application protocol in common")]
    NoApplicationProtocol,
    /// No version, suite or group in common.
    #[error("nothing in common: {0}")]
    NothingInCommon(rustls::Error),
    /// The client should have shown a certificate.
    #[error("the client showed no certificate")]
    NoClientCertificate,
    /// The client's certificate is not good enough.
    #[error("the client's certificate was refused: {0}")]
    ClientCertificate(rustls::Error),
    /// The client refused us.
    #[error("the client refused: {0}")]
    ClientAlert(rustls::Error),
    /// The client broke the rules of TLS.
    #[error("{0}")]
    Protocol(rustls::Error),
}

impl AcceptError {
    /// One word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Io(_) => "io",
            Self::HelloTimeout => "hello_timeout",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::NotTls => "not_tls",
            Self::HelloTooLarge => "hello_too_large",
            Self::UnrecognizedName => "unrecognized_name",
            Self::BrokenOptions { .. } => "broken_options",
            Self::NoApplicationProtocol => "no_application_protocol",
            Self::NothingInCommon(_) => "nothing_in_common",
            Self::NoClientCertificate => "no_client_certificate",
            Self::ClientCertificate(_) => "client_certificate",
            Self::ClientAlert(_) => "client_alert",
            Self::Protocol(_) => "protocol",
        }
    }

    pub(super) fn from_hello(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
                Self::NotTls
            }
            error => Self::from_tls(error),
        }
    }

    fn from_tls(error: rustls::Error) -> Self {
        match error {
            rustls::Error::NoApplicationProtocol => Self::NoApplicationProtocol,
            rustls::Error::PeerIncompatible(_) => Self::NothingInCommon(error),
            rustls::Error::NoCertificatesPresented => Self::NoClientCertificate,
            rustls::Error::InvalidCertificate(_) => Self::ClientCertificate(error),
            rustls::Error::AlertReceived(_) => Self::ClientAlert(error),
            error => Self::Protocol(error),
        }
    }

    fn from_io(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(tls) => Self::from_tls(tls.clone()),
            None => Self::Io(error),
        }
    }
}

/// Accepts TLS on `stream`, of which `prefix` was read already, at our address `local_ip`.
pub async fn accept<S>(
    mut stream: S,
    prefix: Bytes,
    routes: &TlsRoutes,
    local_ip: IpAddr,
    hello_deadline: Instant,
    handshake_deadline: Instant,
) -> Result<Accepted<S>, AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = read_hello(&mut stream, prefix, hello_deadline).await?;
    accept_hello(stream, hello, routes, local_ip, handshake_deadline).await
}

/// Goes on with the handshake that `hello` began.
pub async fn accept_hello<S>(
    mut stream: S,
    hello: Hello,
    routes: &TlsRoutes,
    local_ip: IpAddr,
    deadline: Instant,
) -> Result<Accepted<S>, AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let profile = match routes.select(hello.server_name()) {
        Selected::Config(profile) => Arc::clone(profile),
        Selected::Refuse(broken) => {
            let (name, reason) = (Arc::clone(&broken.name), Arc::clone(&broken.reason));
            return Err(AcceptError::BrokenOptions { name, reason });
        }
    };
    let Some(config) = profile.for_connection(hello.server_name(), local_ip) else {
        let alert = hello::alert(hello::UNRECOGNIZED_NAME);
        let _ = timeout_at(deadline, hello::send(&mut stream, &alert)).await;
        return Err(AcceptError::UnrecognizedName);
    };
    let (accepted, server_name, rest) = hello.into_parts();
    let start = StartHandshake::from_parts(accepted, PrefixedStream::new(rest, stream));
    let stream = timeout_at(deadline, start.into_stream(config))
        .await
        .map_err(|_| AcceptError::HandshakeTimeout)?
        .map_err(AcceptError::from_io)?;
    let connection = stream.get_ref().1;
    recheck(connection, &profile)?;
    let tls = describe(connection, server_name.unwrap_or_default(), &profile);
    let alpn = match connection.alpn_protocol() {
        Some(b"h2") => Alpn::H2,
        _ => Alpn::Http1,
    };
    Ok((stream, tls, alpn))
}

/// A resumed session brings its certificate along, which may have expired meanwhile.
fn recheck(connection: &ServerConnection, profile: &TlsProfile) -> Result<(), AcceptError> {
    if connection.handshake_kind() == Some(HandshakeKind::Resumed)
        && let Some(verifier) = profile.recheck()
        && let Some([leaf, intermediates @ ..]) = connection.peer_certificates()
    {
        verifier
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .map_err(AcceptError::ClientCertificate)?;
    }
    Ok(())
}

fn describe(
    connection: &ServerConnection,
    server_name: Box<str>,
    profile: &TlsProfile,
) -> ClientTls {
    let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
    ClientTls {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        },
        cipher: suite.map_or("", cipher_name),
        server_name,
        options: Arc::clone(&profile.options_name),
        certificates: connection.peer_certificates().map(<[_]>::to_vec).unwrap_or_default(),
        ..ClientTls::default()
    }
}

/// The IANA name: rustls calls the suites of TLS 1.3 otherwise.
fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or(""),
    }
}
