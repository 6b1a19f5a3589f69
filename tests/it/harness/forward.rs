//! A forward proxy: what stands between a network and the world, and is named in `HTTP_PROXY`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::certs::Pair;
use super::origin::Origin;

/// The proxy. It knows servers by `host:port`, and nobody else does.
pub(crate) struct Forward {
    origin: Origin,
    heads: Arc<Mutex<Vec<String>>>,
}

type Servers = HashMap<String, SocketAddr>;

impl Forward {
    /// Speaks HTTP.
    pub(crate) fn http(servers: &[(&str, SocketAddr)]) -> Self {
        Self::start(servers, None, false)
    }

    /// Speaks HTTP inside TLS.
    pub(crate) fn https(identity: &Pair, servers: &[(&str, SocketAddr)]) -> Self {
        Self::start(servers, Some(acceptor(identity, &[])), false)
    }

    /// Speaks SOCKS 5.
    pub(crate) fn socks(servers: &[(&str, SocketAddr)]) -> Self {
        Self::start(servers, None, true)
    }

    fn start(servers: &[(&str, SocketAddr)], tls: Option<TlsAcceptor>, socks: bool) -> Self {
        let servers: Servers =
            servers.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let origin = Origin::raw(move |stream, _| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                stream.set_nonblocking(true).unwrap();
                let stream = TcpStream::from_std(stream).unwrap();
                match &tls {
                    _ if socks => drop(serve_socks(stream, &servers, &seen).await),
                    None => drop(serve(stream, &servers, &seen).await),
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            let _ = serve(stream, &servers, &seen).await;
                        }
                    }
                }
            });
        });
        Self { origin, heads }
    }

    /// For the variable.
    pub(crate) fn authority(&self) -> String {
        self.origin.address().to_string()
    }

    /// The heads of the first requests of all connections; with SOCKS, the servers that were named.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.origin.connections()
    }
}

/// What speaks TLS with this certificate.
pub(crate) fn acceptor(identity: &Pair, protocols: &[&str]) -> TlsAcceptor {
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.der()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve<S>(
    mut client: S,
    servers: &Servers,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    seen.lock().unwrap().push(head.clone());
    let (line, fields) = head.split_once("\r\n").unwrap();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let bare = target.strip_prefix("http://").unwrap_or(target);
    let (authority, path) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
    let Some(server) = servers.get(authority) else {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    };
    let mut server = TcpStream::connect(server).await?;
    if method == "CONNECT" {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    } else {
        let kept = fields.split_inclusive("\r\n");
        let kept = kept.filter(|field| !field.to_lowercase().starts_with("proxy-"));
        let head = format!("{method} {path} HTTP/1.1\r\n{}", kept.collect::<String>());
        server.write_all(head.as_bytes()).await?;
    }
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// Names only, which is what a proxy is asked for here.
async fn serve_socks(
    mut client: TcpStream,
    servers: &Servers,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut offer = [0; 3];
    client.read_exact(&mut offer).await?;
    assert_eq!(offer, [5, 1, 0]);
    client.write_all(&[5, 0]).await?;
    let mut asked = [0; 4];
    client.read_exact(&mut asked).await?;
    assert_eq!(asked, [5, 1, 0, 3]);
    let mut name = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut name).await?;
    let port = client.read_u16().await?;
    let server = format!("{}:{port}", String::from_utf8(name).unwrap());
    seen.lock().unwrap().push(server.clone());
    let mut server = TcpStream::connect(servers[&server]).await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
