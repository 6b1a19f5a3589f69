//! Load generator of the comparison for the one row no Debian tool covers: a new connection and a
//! full TLS 1.3 handshake for every request.
//!
//! It offers X25519 alone, never resumes, and checks on every connection that this is what it got.
//! It does not verify certificates: the comparison's self-check does that once, and the cores that
//! run this program are the cores the proxies need.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

const USAGE: &str = "usage: loadgen ADDRESS HOST PATH BODY_BYTES CONNECTIONS SECONDS THREADS";

/// No request may take longer; one that does is an error.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let plan = Plan::from_arguments().ok_or(USAGE)?;
    let tls = Arc::new(client_config()?);
    let started = Instant::now();
    let deadline = started + plan.length;
    let workers: Vec<_> = (0..plan.threads)
        .map(|_| {
            let (plan, tls) = (plan.clone(), Arc::clone(&tls));
            std::thread::spawn(move || run_worker(&plan, &tls, deadline))
        })
        .collect();
    let mut total = Tally::default();
    for worker in workers {
        total.add(worker.join().map_err(|_| "a worker thread panicked")??);
    }
    total.latencies.sort_unstable();
    let report = serde_json::json!({
        "requests": total.latencies.len(),
        "duration_us": micros(started.elapsed()),
        "p50_us": total.percentile(50),
        "p99_us": total.percentile(99),
        "cipher_suites": total.cipher_suites,
        "errors": total.errors,
    });
    writeln!(io::stdout(), "{report}")?;
    Ok(())
}

/// What to ask of whom, how often at once, and for how long.
#[derive(Clone)]
struct Plan {
    address: SocketAddr,
    server_name: ServerName<'static>,
    request: Arc<[u8]>,
    body_bytes: usize,
    connections: usize,
    length: Duration,
    threads: usize,
}

impl Plan {
    fn from_arguments() -> Option<Self> {
        let mut arguments = std::env::args().skip(1);
        let address = arguments.next()?.parse().ok()?;
        let host = arguments.next()?;
        let path = arguments.next()?;
        let body_bytes = arguments.next()?.parse().ok()?;
        let connections: usize = arguments.next()?.parse().ok()?;
        let seconds = arguments.next()?.parse().ok()?;
        let threads: usize = arguments.next()?.parse().ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        Some(Self {
            address,
            server_name: ServerName::try_from(host).ok()?,
            request: request.into_bytes().into(),
            body_bytes,
            connections: connections.div_ceil(threads.max(1)),
            length: Duration::try_from_secs_f64(seconds).ok()?,
            threads: threads.max(1),
        })
    }
}

/// What came of the requests, in microseconds and in words.
#[derive(Default)]
struct Tally {
    latencies: Vec<u64>,
    cipher_suites: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        for (name, count) in other.cipher_suites {
            *self.cipher_suites.entry(name).or_default() += count;
        }
        for (name, count) in other.errors {
            *self.errors.entry(name).or_default() += count;
        }
    }

    fn percentile(&self, percent: usize) -> u64 {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        self.latencies.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }
}

fn client_config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    });
    let verifier =
        Arc::new(Unverified(provider.signature_verification_algorithms.supported_schemes()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn run_worker(plan: &Plan, tls: &Arc<ClientConfig>, deadline: Instant) -> io::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connections: Vec<_> = (0..plan.connections)
            .map(|_| tokio::spawn(run_connection(plan.clone(), Arc::clone(tls), deadline)))
            .collect();
        let mut total = Tally::default();
        for connection in connections {
            total.add(connection.await.map_err(io::Error::other)?);
        }
        Ok(total)
    })
}

async fn run_connection(plan: Plan, tls: Arc<ClientConfig>, deadline: Instant) -> Tally {
    let mut tally = Tally::default();
    let connector = TlsConnector::from(tls);
    let mut reply = Vec::with_capacity(plan.body_bytes + 4096);
    while Instant::now() < deadline {
        let asked =
            tokio::time::timeout(REQUEST_LIMIT, ask(&plan, &connector, &mut reply, &mut tally));
        let failure = match asked.await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timeout".to_owned(),
        };
        *tally.errors.entry(failure).or_default() += 1;
        // A proxy that refuses everything must not turn this into a busy loop.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tally
}

/// One connection, one handshake, one request; the server closes, so that the waiting state that
/// follows a close does not use up this side's ports.
async fn ask(
    plan: &Plan,
    connector: &TlsConnector,
    reply: &mut Vec<u8>,
    tally: &mut Tally,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let started = Instant::now();
    let tcp = TcpStream::connect(plan.address).await?;
    tcp.set_nodelay(true)?;
    let mut stream = connector.connect(plan.server_name.clone(), tcp).await?;
    check_handshake(stream.get_ref().1)?;
    stream.write_all(&plan.request).await?;

    reply.clear();
    let mut answered = None;
    loop {
        match stream.read_buf(reply).await {
            Ok(0) => break,
            // Closed without close_notify: no harm when the reply was whole.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        if answered.is_none() && is_whole(reply, plan.body_bytes)? {
            answered = Some(started.elapsed());
        }
    }
    tally.latencies.push(micros(answered.ok_or("the reply was cut short")?));
    if let Some(suite) = stream.get_ref().1.negotiated_cipher_suite() {
        let name = format!("{:?}", suite.suite());
        *tally.cipher_suites.entry(name).or_default() += 1;
    }
    Ok(())
}

fn check_handshake(connection: &rustls::ClientConnection) -> Result<(), &'static str> {
    let group =
        connection.negotiated_key_exchange_group().map(rustls::crypto::SupportedKxGroup::name);
    match () {
        () if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) => Err("not TLS 1.3"),
        () if connection.handshake_kind() != Some(HandshakeKind::Full) => {
            Err("not a full handshake")
        }
        () if group != Some(rustls::NamedGroup::X25519) => Err("not X25519"),
        () => Ok(()),
    }
}

fn is_whole(reply: &[u8], body_bytes: usize) -> Result<bool, &'static str> {
    let Some(head) = reply.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(false);
    };
    if !reply.starts_with(b"HTTP/1.1 200 ") {
        return Err("status is not 200");
    }
    Ok(reply.len() - head - 4 >= body_bytes)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Takes any certificate and any signature.
#[derive(Debug)]
struct Unverified(Vec<SignatureScheme>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
