//! Certificates made for one test, and a client that speaks TLS.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::client::{Client, socket};

/// An authority.
pub(crate) struct Ca {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Ca {
    pub(crate) fn new() -> Self {
        Self::with(None)
    }

    /// An authority for names below `domain` alone.
    pub(crate) fn of(domain: &str) -> Self {
        Self::with(Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName(domain.to_owned())],
            excluded_subtrees: Vec::new(),
        }))
    }

    fn with(names: Option<rcgen::NameConstraints>) -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.name_constraints = names;
        let key = rcgen::KeyPair::generate().unwrap();
        Self { issuer: rcgen::CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(names, |_| {})
    }

    /// A certificate that is over after this time.
    pub(crate) fn issue_for(&self, names: &[&str], life: Duration) -> Pair {
        self.issue_with(names, |params| params.not_after = (SystemTime::now() + life).into())
    }

    fn issue_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut rcgen::CertificateParams),
    ) -> Pair {
        let sans: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(sans).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, names[0]);
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }
}

impl Pair {
    /// Writes both files and returns their paths.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let paths =
            (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key.pem")));
        fs::write(&paths.0, &self.cert).unwrap();
        fs::write(&paths.1, &self.key).unwrap();
        paths
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

/// How a client speaks TLS. By itself it believes every certificate and shows none.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    identity: Option<Pair>,
    protocols: Vec<&'static str>,
}

impl Tls {
    pub(crate) fn anyone() -> Self {
        Self::default()
    }

    pub(crate) fn with_identity(pair: &Pair) -> Self {
        Self { identity: Some(pair.clone()), ..Self::default() }
    }

    pub(crate) fn protocols(mut self, protocols: &[&'static str]) -> Self {
        self.protocols = protocols.to_vec();
        self
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)));
        let mut config = match &self.identity {
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![pair.der()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols =
            self.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// A connection whose handshake is done; `None` in place of a name sends none.
    pub(crate) fn connect(&self, to: SocketAddr, name: Option<&str>) -> io::Result<Secured> {
        let server = match name {
            Some(name) => ServerName::try_from(name.to_owned()).unwrap(),
            None => ServerName::IpAddress(to.ip().into()),
        };
        let mut connection =
            ClientConnection::new(Arc::new(self.config()), server).map_err(io::Error::other)?;
        let mut tcp = socket(to)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        let certificate = connection.peer_certificates().unwrap_or_default()[0].clone();
        let protocol = connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into());
        let keep = tcp.try_clone()?;
        let client = Client::over(Box::new(StreamOwned::new(connection, tcp)), keep);
        Ok(Secured { client, certificate, protocol })
    }
}

/// A connection over TLS, and what the handshake told.
pub(crate) struct Secured {
    pub(crate) client: Client,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) protocol: Option<String>,
}

impl Secured {
    /// Whether a client that believes only `ca` would believe this server to be `name`.
    pub(crate) fn is_believed(&self, ca: &Ca, name: &str) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&self.certificate, &[], &name, &[], UnixTime::now()).is_ok()
    }
}

#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
