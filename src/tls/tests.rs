//! Handshakes of real clients over a pipe in memory, and what such tests need.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::*;
use crate::exchange::ClientTls;
use crate::state::SharedState;
use crate::values::{Disk, Files, Profile};

/// The provider of every test.
pub(super) fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// A certificate and its key, both PEM.
pub(super) struct Pair {
    pub(super) cert: String,
    pub(super) key: String,
}

/// An authority.
pub(super) struct Ca {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self { issuer: rcgen::CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub(super) fn issue(&self, name: &str, sans: &[&str]) -> Pair {
        self.issue_for(name, sans, 90)
    }

    pub(super) fn issue_for(&self, name: &str, sans: &[&str], days: u64) -> Pair {
        let sans: Vec<String> = sans.iter().map(|&san| san.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(sans).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !name.is_empty() {
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
        }
        params.not_after = (SystemTime::now() + Duration::from_hours(24 * days)).into();
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }
}

/// Files that a test holds in memory.
#[derive(Default)]
pub(super) struct MemoryFiles(Mutex<HashMap<PathBuf, Arc<[u8]>>>);

impl MemoryFiles {
    pub(super) fn put(&self, path: &str, content: &str) {
        self.0.lock().unwrap().insert(path.into(), content.as_bytes().into());
    }

    pub(super) fn remove(&self, path: &str) {
        self.0.lock().unwrap().remove(Path::new(path));
    }
}

impl Files for MemoryFiles {
    fn read(&self, path: &Path) -> io::Result<Arc<[u8]>> {
        self.0.lock().unwrap().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.lock().unwrap().contains_key(path)
    }
}

pub(super) fn config_of(pair: &Pair) -> CertificateConfig {
    CertificateConfig {
        cert_file: pair.cert.as_str().into(),
        key_file: pair.key.as_str().into(),
        stores: Vec::new(),
    }
}

pub(super) fn store(pairs: &[&Pair]) -> Arc<CertificateStore> {
    let certificates: Vec<_> = pairs.iter().map(|pair| config_of(pair)).collect();
    let state = SharedState::default();
    CertificateStore::build(&certificates, None, &Disk, &state, None).unwrap().store
}

fn options_of(name: &str, config: &TlsOptionsConfig, state: &SharedState) -> Arc<TlsOptions> {
    try_options(name, config, state).unwrap()
}

fn try_options(
    name: &str,
    config: &TlsOptionsConfig,
    state: &SharedState,
) -> Result<Arc<TlsOptions>, crate::values::BuildError> {
    let files = MemoryFiles::default();
    TlsOptions::build(&name.into(), config, &files, state, Profile::Safe, &mut Vec::new())
}

pub(super) fn options(name: &str) -> Arc<TlsOptions> {
    options_of(name, &TlsOptionsConfig::default(), &SharedState::default())
}

fn auth(kind: &str, ca: Option<&Ca>) -> TlsOptionsConfig {
    let client_auth = ClientAuthConfig {
        ca_files: ca.iter().map(|ca| ca.pem().as_str().into()).collect(),
        client_auth_type: kind.to_owned(),
    };
    TlsOptionsConfig { client_auth, ..Default::default() }
}

/// Routes where everybody gets these options.
impl TlsRoutes {
    pub(super) fn build(
        hosts: impl IntoIterator<Item = (String, OptionsRef)>,
        default: &OptionsRef,
        store: &Arc<CertificateStore>,
    ) -> Self {
        let mut builder = TlsRoutesBuilder::new(default, store, 0);
        for (host, options) in hosts {
            builder.claim(&[host.into()], &options);
        }
        builder.finish()
    }
}

fn routes(config: &TlsOptionsConfig, pairs: &[&Pair]) -> TlsRoutes {
    let options = options_of("default", config, &SharedState::default());
    TlsRoutes::build([], &Ok(options), &store(pairs))
}

struct Client {
    config: ClientConfig,
}

impl Client {
    fn of(ca: &Ca) -> Self {
        Self::with(ca, None, rustls::ALL_VERSIONS)
    }

    fn with(
        ca: &Ca,
        identity: Option<&Pair>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
            }
        };
        Self { config }
    }

    fn alpn(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols =
            protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }
}

/// What server and client say of one handshake.
struct Met {
    server: Result<(ClientTls, Alpn), AcceptError>,
    client: io::Result<(HandshakeKind, CertificateDer<'static>)>,
}

impl Met {
    fn tls(self) -> ClientTls {
        self.client.unwrap();
        self.server.unwrap().0
    }

    fn kind(self) -> HandshakeKind {
        self.server.unwrap();
        self.client.unwrap().0
    }

    fn refused(self) -> AcceptError {
        assert!(self.client.is_err(), "the client was served");
        self.server.expect_err("refused")
    }

    /// What the client was told, such as `UnrecognizedName`.
    fn alert(self) -> String {
        assert!(self.server.is_err());
        format!("{}", self.client.unwrap_err())
    }
}

const LOCAL: &str = "10.0.0.1";

async fn meet(routes: &TlsRoutes, client: &Client, name: &str) -> Met {
    let (near, far) = tokio::io::duplex(64 * 1024);
    meet_over(routes, client, name, near, far).await
}

/// One handshake, then a byte each way: only then has the client got its tickets, and the
/// server's refusal of a client certificate.
async fn meet_over<S>(routes: &TlsRoutes, client: &Client, name: &str, near: S, far: S) -> Met
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let deadline = Instant::now() + Duration::from_secs(10);
    let local: IpAddr = LOCAL.parse().unwrap();
    let server = async {
        let accepted = accept(near, Bytes::new(), routes, local, deadline, deadline).await;
        let (mut stream, tls, alpn) = accepted?;
        stream.write_all(b"!").await.unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        Ok((tls, alpn))
    };
    let connector = TlsConnector::from(Arc::new(client.config.clone()));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = async {
        let mut stream = connector.connect(name, far).await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        stream.write_all(b"?").await?;
        let connection = stream.get_ref().1;
        let certificate = connection.peer_certificates().unwrap()[0].clone();
        Ok((connection.handshake_kind().unwrap(), certificate))
    };
    let (server, client) = tokio::join!(server, client);
    Met { server, client }
}

fn leaf(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() {
    let ca = Ca::new("ca");
    let (a, star) = (ca.issue("", &["a.test"]), ca.issue("", &["*.b.test"]));
    let routes = routes(&TlsOptionsConfig::default(), &[&a, &star]);
    let client = Client::of(&ca);
    assert_eq!(meet(&routes, &client, "A.test").await.client.unwrap().1, leaf(&a));
    assert_eq!(meet(&routes, &client, "x.b.test").await.client.unwrap().1, leaf(&star));
    let tls = meet(&routes, &client, "A.test").await.tls();
    assert_eq!((&*tls.server_name, &*tls.options), ("a.test", "default"));
    assert!(tls.certificates.is_empty());
}

#[tokio::test]
async fn an_unknown_name_gets_the_default_certificate() {
    let ca = Ca::new("ca");
    let default = ca.issue("", &["unknown.test"]);
    let section = TlsStoreConfig {
        default_certificate: Some(CertificatePairConfig {
            cert_file: default.cert.as_str().into(),
            key_file: default.key.as_str().into(),
        }),
        ..Default::default()
    };
    let state = SharedState::default();
    let store = CertificateStore::build([], Some(&section), &Disk, &state, None).unwrap().store;
    let routes = TlsRoutes::build([], &Ok(options("default")), &store);
    let met = meet(&routes, &Client::of(&ca), "unknown.test").await;
    assert_eq!(met.client.unwrap().1, leaf(&default));
}

#[tokio::test]
async fn without_a_name_the_address_chooses() {
    let ca = Ca::new("ca");
    let (host, address) = (ca.issue("", &["a.test"]), ca.issue("", &[LOCAL]));
    let routes = routes(&TlsOptionsConfig::default(), &[&host, &address]);
    // rustls sends no server name for an address.
    let met = meet(&routes, &Client::of(&ca), LOCAL).await;
    assert_eq!(met.client.as_ref().unwrap().1, leaf(&address));
    assert_eq!(&*met.tls().server_name, "");
}

#[tokio::test]
async fn sni_strict_refuses_unknown_and_missing_names() {
    let ca = Ca::new("ca");
    let a = ca.issue("", &["a.test"]);
    let config = TlsOptionsConfig { sni_strict: true, ..Default::default() };
    let routes = routes(&config, &[&a]);
    let client = Client::of(&ca);
    assert_eq!(&*meet(&routes, &client, "a.test").await.tls().server_name, "a.test");
    for name in ["b.test", LOCAL] {
        let met = meet(&routes, &client, name).await;
        assert!(matches!(met.server, Err(AcceptError::UnrecognizedName)));
        assert!(met.alert().contains("UnrecognisedName"), "{name}");
    }
}

#[tokio::test]
async fn versions_and_suites_are_reported_and_kept() {
    let ca = Ca::new("ca");
    let a = ca.issue("", &["a.test"]);
    let old = Client::with(&ca, None, &[&rustls::version::TLS12]);
    let new = Client::with(&ca, None, &[&rustls::version::TLS13]);
    let both = routes(&TlsOptionsConfig::default(), &[&a]);
    let tls = meet(&both, &old, "a.test").await.tls();
    assert_eq!(tls.version, "1.2");
    assert!(tls.cipher.starts_with("TLS_ECDHE_ECDSA_WITH_AES_"), "{}", tls.cipher);
    let tls = meet(&both, &new, "a.test").await.tls();
    assert_eq!((tls.version, &tls.cipher[..8]), ("1.3", "TLS_AES_"));

    let only = |min: &str, max: &str| TlsOptionsConfig {
        min_version: min.to_owned(),
        max_version: max.to_owned(),
        ..Default::default()
    };
    let only_new = routes(&only("VersionTLS13", ""), &[&a]);
    assert_eq!(meet(&only_new, &old, "a.test").await.refused().reason(), "nothing_in_common");
    let only_old = routes(&only("", "VersionTLS12"), &[&a]);
    assert_eq!(meet(&only_old, &new, "a.test").await.refused().reason(), "nothing_in_common");
    assert_eq!(meet(&only_old, &old, "a.test").await.tls().version, "1.2");
}

#[tokio::test]
async fn protocols_are_agreed_on_or_refused() {
    let ca = Ca::new("ca");
    let a = ca.issue("", &["a.test"]);
    let both = routes(&TlsOptionsConfig::default(), &[&a]);
    for (offered, expected) in
        [(&["http/1.1", "h2"][..], Alpn::H2), (&["http/1.1"], Alpn::Http1), (&[], Alpn::Http1)]
    {
        let met = meet(&both, &Client::of(&ca).alpn(offered), "a.test").await;
        assert_eq!(met.server.unwrap().1, expected);
    }
    for offered in ["acme-tls/1", "spdy/3"] {
        let met = meet(&both, &Client::of(&ca).alpn(&[offered]), "a.test").await;
        assert!(matches!(met.server, Err(AcceptError::NoApplicationProtocol)));
        assert!(met.alert().contains("NoApplicationProtocol"));
    }
}

#[tokio::test]
async fn required_certificates_are_verified() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let a = ca.issue("", &["a.test"]);
    let (good, bad) = (ca.issue("alice", &["alice"]), other.issue("mallory", &["mallory"]));
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let with = |pair| Client::with(&ca, pair, versions);
        for kind in ["", "RequireAndVerifyClientCert"] {
            let required = routes(&auth(kind, Some(&ca)), &[&a]);
            let tls = meet(&required, &with(Some(&good)), "a.test").await.tls();
            assert_eq!(tls.certificates, [leaf(&good)]);
            let none = meet(&required, &with(None), "a.test").await.refused();
            assert_eq!(none.reason(), "no_client_certificate");
            let bad = meet(&required, &with(Some(&bad)), "a.test").await.refused();
            assert!(matches!(bad.reason(), "client_certificate" | "no_client_certificate"));
        }
    }
}

#[tokio::test]
async fn given_certificates_are_verified() {
    let (ca, other) = (Ca::new("ca"), Ca::new("ca"));
    let a = ca.issue("", &["a.test"]);
    let (good, bad) = (ca.issue("alice", &["alice"]), other.issue("mallory", &["mallory"]));
    let given = routes(&auth("VerifyClientCertIfGiven", Some(&ca)), &[&a]);
    let with = |pair| Client::with(&ca, pair, rustls::ALL_VERSIONS);
    assert_eq!(meet(&given, &with(Some(&good)), "a.test").await.tls().certificates.len(), 1);
    assert!(meet(&given, &with(None), "a.test").await.tls().certificates.is_empty());
    // Both authorities bear one name, so that the client does show its certificate.
    let bad = meet(&given, &with(Some(&bad)), "a.test").await.refused();
    assert_eq!(bad.reason(), "client_certificate");
}

#[tokio::test]
async fn any_certificate_will_do_where_none_is_verified() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let a = ca.issue("", &["a.test"]);
    let unknown = other.issue("mallory", &["mallory"]);
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let with = |pair| Client::with(&ca, pair, versions);
        let any = routes(&auth("RequireAnyClientCert", None), &[&a]);
        let tls = meet(&any, &with(Some(&unknown)), "a.test").await.tls();
        assert_eq!(tls.certificates, [leaf(&unknown)]);
        let none = meet(&any, &with(None), "a.test").await.refused();
        assert_eq!(none.reason(), "no_client_certificate");
        let request = routes(&auth("RequestClientCert", None), &[&a]);
        assert!(meet(&request, &with(None), "a.test").await.tls().certificates.is_empty());
        let tls = meet(&request, &with(Some(&unknown)), "a.test").await.tls();
        assert_eq!(tls.certificates.len(), 1);
    }
}

#[tokio::test]
async fn a_client_that_does_not_hold_its_key_is_refused() {
    let ca = Ca::new("ca");
    let a = ca.issue("", &["a.test"]);
    let any = routes(&auth("RequireAnyClientCert", None), &[&a]);
    let (shown, held) = (ca.issue("alice", &["alice"]), ca.issue("mallory", &["mallory"]));
    let key = provider()
        .key_provider
        .load_private_key(PrivateKeyDer::from_pem_slice(held.key.as_bytes()).unwrap())
        .unwrap();
    let stolen = rustls::sign::CertifiedKey::new(vec![leaf(&shown)], key);
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let mut client = Client::with(&ca, None, versions);
        client.config.client_auth_cert_resolver =
            Arc::new(rustls::sign::SingleCertAndKey::from(stolen.clone()));
        let refused = meet(&any, &client, "a.test").await.refused();
        assert_eq!(refused.reason(), "client_certificate");
    }
}

#[test]
fn authorities_that_cannot_be_read_make_the_options_invalid() {
    let state = SharedState::default();
    let with = |kind: &str, file: &str| TlsOptionsConfig {
        client_auth: ClientAuthConfig {
            ca_files: vec![file.into()],
            client_auth_type: kind.to_owned(),
        },
        ..Default::default()
    };
    for kind in ["", "NoClientCert", "RequestClientCert", "RequireAndVerifyClientCert"] {
        let error = try_options("o", &with(kind, "gone.pem"), &state).unwrap_err();
        assert_eq!(error.option, "clientAuth.caFiles[0]");
    }
    let empty = "-----BEGIN NOTHING-----\n-----END NOTHING-----\n";
    assert!(try_options("o", &with("", empty), &state).is_err());
    for kind in ["VerifyClientCertIfGiven", "RequireAndVerifyClientCert", "RequireSomething"] {
        let error = try_options("o", &auth(kind, None), &state).unwrap_err();
        assert_eq!(error.option, "clientAuth.clientAuthType");
    }
}

/// T-27, V-41
#[tokio::test]
async fn sessions_resume_over_a_reload_and_never_under_other_options() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let (a, b) = (ca.issue("", &["a.test"]), ca.issue("", &["b.test"]));
    let alice = ca.issue("alice", &["alice"]);
    let state = SharedState::default();
    let table = |name: &str, config: &TlsOptionsConfig, pairs: &[&Pair]| {
        TlsRoutes::build([], &Ok(options_of(name, config, &state)), &store(pairs))
    };
    let mtls = auth("", Some(&ca));
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let client = Client::with(&ca, Some(&alice), versions);
        let first = table("mtls", &mtls, &[&a]);
        assert_ne!(meet(&first, &client, "a.test").await.kind(), HandshakeKind::Resumed);
        let met = meet(&first, &client, "a.test").await;
        let (server, client_side) = (met.server.unwrap().0, met.client.unwrap());
        assert_eq!(client_side.0, HandshakeKind::Resumed);
        assert_eq!(server.certificates, [leaf(&alice)], "the certificate comes along");

        let reloaded = table("mtls", &mtls, &[&a, &b]);
        assert_eq!(meet(&reloaded, &client, "a.test").await.kind(), HandshakeKind::Resumed);

        let renamed = table("mtls2", &mtls, &[&a]);
        assert_ne!(meet(&renamed, &client, "a.test").await.kind(), HandshakeKind::Resumed);
        // Other authorities under the same name: the old session must not get in.
        let other_ca = table("mtls", &auth("", Some(&other)), &[&a]);
        assert!(meet(&other_ca, &client, "a.test").await.server.is_err());
    }
}

/// T-27, V-41
#[tokio::test]
async fn an_open_session_is_no_way_around_a_demand_for_certificates() {
    let ca = Ca::new("ca");
    let a = ca.issue("", &["a.test"]);
    let state = SharedState::default();
    let open = options_of("open", &TlsOptionsConfig::default(), &state);
    let mtls = options_of("mtls", &auth("", Some(&ca)), &state);
    let store = store(&[&a]);
    let (open, mtls) =
        (TlsRoutes::build([], &Ok(open), &store), TlsRoutes::build([], &Ok(mtls), &store));
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let client = Client::with(&ca, None, versions);
        meet(&open, &client, "a.test").await.kind();
        assert_eq!(meet(&open, &client, "a.test").await.kind(), HandshakeKind::Resumed);
        let refused = meet(&mtls, &client, "a.test").await.refused();
        assert_eq!(refused.reason(), "no_client_certificate");
    }
}

#[tokio::test]
async fn a_resumed_client_is_verified_again() {
    let ca = Ca::new("ca");
    let a = ca.issue("", &["a.test"]);
    let alice = ca.issue("alice", &["alice"]);
    let state = SharedState::default();
    let options = options_of("mtls", &auth("", Some(&ca)), &state);
    let store = store(&[&a]);
    let before = TlsRoutes::build([], &Ok(Arc::clone(&options)), &store);
    // As if the certificate had stopped being good in between.
    let other = options_of("other", &auth("", Some(&Ca::new("other"))), &state);
    let after = TlsRoutes::build([], &Ok(options.rechecking_like(&other)), &store);
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let client = Client::with(&ca, Some(&alice), versions);
        meet(&before, &client, "a.test").await.kind();
        assert_eq!(meet(&before, &client, "a.test").await.kind(), HandshakeKind::Resumed);
        let server = meet(&after, &client, "a.test").await.server;
        assert_eq!(server.err().unwrap().reason(), "client_certificate");
    }
}

#[tokio::test]
async fn without_tickets_nothing_is_resumed() {
    let ca = Ca::new("ca");
    let a = ca.issue("", &["a.test"]);
    let config = TlsOptionsConfig { disable_session_tickets: true, ..Default::default() };
    let routes = routes(&config, &[&a]);
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let client = Client::with(&ca, None, versions);
        meet(&routes, &client, "a.test").await.kind();
        assert_ne!(meet(&routes, &client, "a.test").await.kind(), HandshakeKind::Resumed);
    }
}

/// G-22: they end after half a day, as tickets do.
#[tokio::test]
async fn sessions_without_tickets_resume_by_their_number() {
    let ca = Ca::new("ca");
    let a = ca.issue("", &["a.test"]);
    let routes = routes(&TlsOptionsConfig::default(), &[&a]);
    let mut client = Client::with(&ca, None, &[&rustls::version::TLS12]);
    client.config.resumption = Resumption::in_memory_sessions(8)
        .tls12_resumption(rustls::client::Tls12Resumption::SessionIdOnly);
    meet(&routes, &client, "a.test").await.kind();
    assert_eq!(meet(&routes, &client, "a.test").await.kind(), HandshakeKind::Resumed);
    tokio::time::pause();
    tokio::time::advance(Duration::from_hours(12)).await;
    assert_eq!(meet(&routes, &client, "a.test").await.kind(), HandshakeKind::Full);
}

#[tokio::test]
async fn broken_options_end_the_connection_without_tls() {
    let ca = Ca::new("ca");
    let a = ca.issue("", &["a.test", "b.test"]);
    let broken = BrokenOptions { name: "gone@file".into(), reason: "no such options".into() };
    let hosts = [("a.test".to_owned(), Err(broken))];
    let routes = TlsRoutes::build(hosts, &Ok(options("default")), &store(&[&a]));
    let client = Client::of(&ca);
    let refused = meet(&routes, &client, "a.test").await.refused();
    assert_eq!(refused.to_string(), "TLS options `gone@file` are in error: no such options");
    assert_eq!(&*meet(&routes, &client, "b.test").await.tls().options, "default");
}

#[tokio::test]
async fn options_follow_the_server_name() {
    let ca = Ca::new("ca");
    let cert = ca.issue("", &["*.corp.test", "free.test"]);
    let state = SharedState::default();
    let mtls = options_of("mtls@file", &auth("", Some(&ca)), &state);
    let hosts = [("*.corp.test".to_owned(), Ok(mtls))];
    let routes = TlsRoutes::build(hosts, &Ok(options("default")), &store(&[&cert]));
    let client = Client::of(&ca);
    let refused = meet(&routes, &client, "X.corp.test").await.refused();
    assert_eq!(refused.reason(), "no_client_certificate");
    let tls = meet(&routes, &client, "free.test").await.tls();
    assert_ne!(&tls.options, routes.options_name_for("x.corp.test"));
    assert_eq!(&tls.options, routes.options_name_for("free.test"));
}

#[tokio::test]
async fn a_hello_may_come_in_single_bytes() {
    let ca = Ca::new("ca");
    let a = ca.issue("", &["a.test"]);
    let routes = routes(&TlsOptionsConfig::default(), &[&a]);
    let client = Client::of(&ca);
    let (near, far) = tokio::io::duplex(64 * 1024);
    let met = meet_over(&routes, &client, "a.test", Dribble(near), Dribble(far)).await;
    assert_eq!(&*met.tls().server_name, "a.test");
}

/// Moves one byte at a time, both ways.
struct Dribble(DuplexStream);

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        std::task::ready!(Pin::new(&mut self.0).poll_read(cx, &mut one))?;
        buf.put_slice(one.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &buf[..buf.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The ClientHello that `client` would send.
fn hello_bytes(client: &Client, name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection =
        rustls::ClientConnection::new(Arc::new(client.config.clone()), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// V-36
#[tokio::test]
async fn a_hello_may_be_split_over_records() {
    let ca = Ca::new("ca");
    let client = Client::of(&ca).alpn(&["h2"]);
    let whole = hello_bytes(&client, "a.test");
    for size in [1, 2, 3, 7, 100, 1000] {
        let mut split = Vec::new();
        for piece in whole[5..].chunks(size) {
            split.extend([22, 3, 1]);
            split.extend(u16::try_from(piece.len()).unwrap().to_be_bytes());
            split.extend(piece);
        }
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(&split[10..]).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let prefix = Bytes::copy_from_slice(&split[..10]);
        let hello = read_hello(&mut near, prefix, deadline).await.unwrap();
        assert_eq!(hello.server_name(), Some("a.test"));
        assert!(hello.offers(b"h2") && !hello.offers(b"h3"));
        assert_eq!(hello.into_raw(), split, "records of {size}");
    }
}

#[tokio::test]
async fn bytes_read_before_belong_to_the_handshake() {
    let ca = Ca::new("ca");
    let a = ca.issue("", &["a.test"]);
    let routes = routes(&TlsOptionsConfig::default(), &[&a]);
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    let connector = TlsConnector::from(Arc::new(Client::of(&ca).config));
    let client = connector.connect(ServerName::try_from("a.test").unwrap(), far);
    let deadline = Instant::now() + Duration::from_secs(10);
    let server = async {
        let mut first = [0; 100];
        near.read_exact(&mut first).await.unwrap();
        let prefix = Bytes::copy_from_slice(&first);
        accept(near, prefix, &routes, LOCAL.parse().unwrap(), deadline, deadline).await.unwrap()
    };
    let (client, (_, tls, _)) = tokio::join!(client, server);
    client.unwrap();
    assert_eq!(&*tls.server_name, "a.test");
}

#[tokio::test]
async fn silence_garbage_and_floods_end_the_connection() {
    let read = async |bytes: &[u8], patience: u64| {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(bytes).await.unwrap();
        let deadline = Instant::now() + Duration::from_millis(patience);
        let error = read_hello(&mut near, Bytes::new(), deadline).await.unwrap_err();
        drop(near);
        let mut told = Vec::new();
        far.read_to_end(&mut told).await.unwrap();
        (error.reason(), told)
    };
    assert_eq!(read(b"", 20).await.0, "hello_timeout");
    assert_eq!(read(&[22, 3, 1, 0, 200, 1], 20).await.0, "hello_timeout");
    let (reason, told) = read(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 10_000).await;
    assert_eq!((reason, told[0]), ("not_tls", 21));
    // A handshake message that claims 60000 bytes, in full records.
    let mut flood = Vec::new();
    for piece in 0..20 {
        flood.extend([22, 3, 1, 4, 0]);
        flood.extend([0; 1024]);
        if piece == 0 {
            flood[5..9].copy_from_slice(&[1, 0, 0xea, 0x60]);
        }
    }
    let (reason, told) = read(&flood, 10_000).await;
    assert_eq!((reason, &told[..]), ("hello_too_large", &[21, 3, 3, 0, 2, 2, 50][..]));

    let (mut near, far) = tokio::io::duplex(64);
    drop(far);
    let deadline = Instant::now() + Duration::from_secs(10);
    let gone = read_hello(&mut near, Bytes::new(), deadline).await.unwrap_err();
    assert_eq!(gone.reason(), "closed");
}

#[tokio::test]
async fn a_handshake_has_a_deadline_of_its_own() {
    let ca = Ca::new("ca");
    let routes = routes(&TlsOptionsConfig::default(), &[]);
    let hello = hello_bytes(&Client::of(&ca), "a.test");
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    far.write_all(&hello).await.unwrap();
    let now = Instant::now();
    // The hello is there already, so its own deadline may even be over.
    let (soon, later) = (now, now + Duration::from_millis(50));
    let local = LOCAL.parse().unwrap();
    let error = accept(near, Bytes::new(), &routes, local, soon, later).await.err().unwrap();
    assert_eq!(error.reason(), "handshake_timeout");
    assert!(Instant::now() >= later);
}

#[test]
fn options_with_the_same_settings_are_taken_over() {
    let (state, config) = (SharedState::default(), TlsOptionsConfig::default());
    let first = options_of("o", &config, &state);
    assert!(Arc::ptr_eq(&first, &options_of("o", &config, &state)));
    let strict = TlsOptionsConfig { sni_strict: true, ..config };
    assert!(!Arc::ptr_eq(&first, &options_of("o", &strict, &state)));
    let (one, other) = (store(&[]), store(&[]));
    let profile = first.profile(&one);
    assert!(Arc::ptr_eq(&profile, &first.profile(&one)));
    assert!(!Arc::ptr_eq(&profile, &first.profile(&other)));
}
