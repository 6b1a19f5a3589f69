//! A stand-in for the proxy in the demo's own tests: just enough of one that a tour can be green,
//! and faults that must turn it red. It forwards one request for each connection.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader,
    copy_bidirectional,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{DemoOptions, ProxySetting};

/// What the stand-in does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// A pod that refuses the connection is a 502.
    NoRetry,
    /// The pods of both tenants are taken for one's.
    MixedTenants,
}

struct StandIn {
    options: DemoOptions,
    fault: Fault,
    turn: AtomicUsize,
}

/// Serves until told to stop.
pub(super) async fn serve(
    options: DemoOptions,
    setting: ProxySetting,
    fault: Fault,
) -> anyhow::Result<()> {
    assert!(setting.static_text.contains(&options.https_port.to_string()));
    let certs = setting.static_file.parent().unwrap().join("certs");
    let chain = CertificateDer::pem_file_iter(certs.join("development-only-leaf.pem"))?;
    let key = PrivateKeyDer::from_pem_file(certs.join("development-only-leaf.key.pem"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain.collect::<Result<_, _>>()?, key)?;
    let tls = TlsAcceptor::from(Arc::new(tls));
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let http = listen(options.http_port).await?;
    let https = listen(options.https_port).await?;
    let admin = listen(options.admin_port).await?;
    let stand_in = Arc::new(StandIn { options, fault, turn: AtomicUsize::new(0) });
    loop {
        let stand_in = Arc::clone(&stand_in);
        tokio::select! {
            () = setting.stop.cancelled() => return Ok(()),
            Ok((mut stream, _)) = http.accept() => tokio::spawn(async move {
                let host = format!("north.localhost:{}", stand_in.options.https_port);
                let location = format!("location: https://{host}/web?a=1\r\n");
                answer(&mut stream, "301 Moved Permanently", &location).await;
            }),
            Ok((mut stream, _)) = admin.accept() => tokio::spawn(async move {
                answer(&mut stream, "200 OK", "").await;
            }),
            Ok((stream, _)) = https.accept() => {
                let tls = tls.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = tls.accept(stream).await {
                        stand_in.forward(stream).await;
                    }
                })
            }
        };
    }
}

impl StandIn {
    async fn forward(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut client = BufReader::new(stream);
        let (target, fields) = read_head(&mut client).await;
        if target.contains("/web/database") {
            return answer(&mut client, "403 Forbidden", "").await;
        }
        let bus = target.contains("/websocket");
        let tenant = if fields["host"].starts_with("north") { "north" } else { "south" };
        let Some((pod, mut server)) = self.dial(tenant, bus, fields.get("cookie")).await else {
            return answer(&mut client, "502 Bad Gateway", "").await;
        };
        let mut head = format!("{target}\r\n");
        for (name, value) in &fields {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head.push_str("x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: https\r\n");
        write!(head, "x-forwarded-host: {}\r\n\r\n", fields["host"]).unwrap();
        server.write_all(head.as_bytes()).await.unwrap();
        let mut server = BufReader::new(server);
        let (status, fields) = read_head(&mut server).await;
        let mut head = format!("{status}\r\nset-cookie: pod={pod}; Path=/\r\n");
        for (name, value) in &fields {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head.push_str("\r\n");
        if client.write_all(head.as_bytes()).await.is_ok() {
            // Either side may go away first.
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
        let _ = client.shutdown().await;
    }

    /// A connection to the pod of the cookie, or to the next one, or to the standby.
    async fn dial(
        &self,
        tenant: &str,
        bus: bool,
        cookie: Option<&String>,
    ) -> Option<(&'static str, TcpStream)> {
        let own = |name: &str| name.starts_with(tenant) || self.fault == Fault::MixedTenants;
        let mut pods: Vec<_> = self.options.pods().filter(|pod| own(pod.name)).collect();
        if tenant == "north" {
            let first = self.turn.fetch_add(1, Ordering::Relaxed) % pods.len();
            pods.rotate_left(first);
        }
        pods.sort_by_key(|pod| cookie.is_none_or(|cookie| *cookie != format!("pod={}", pod.name)));
        if self.fault == Fault::NoRetry {
            pods.truncate(1);
        }
        for pod in pods {
            let port = if bus { pod.bus } else { pod.http };
            if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                return Some((pod.name, stream));
            }
        }
        None
    }
}

async fn read_head(stream: &mut (impl AsyncBufRead + Unpin)) -> (String, BTreeMap<String, String>) {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap_or_default();
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let fields = lines.iter().skip(1).filter_map(|line| line.split_once(": "));
    let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    (lines.first().cloned().unwrap_or_default(), fields.collect())
}

async fn answer(stream: &mut (impl AsyncWrite + Unpin), status: &str, fields: &str) {
    let head = format!("HTTP/1.1 {status}\r\n{fields}content-length: 0\r\n\r\n");
    // A client that has gone away needs no answer.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.shutdown().await;
}
