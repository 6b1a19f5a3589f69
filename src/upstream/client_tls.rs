//! TLS towards servers: who is believed, what we show, and which versions and ciphers are used.
//!
//! Whatever is verified is verified here and in one place. Fails closed: an option that cannot be
//! honoured and that protects something is an error, never a weaker check.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, SupportedProtocolVersion, version,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::transport::{ClientCertificateConfig, ServersTransportConfig};
use crate::values::{BuildError, FileOrContent, Files, pem_error};

/// The TLS part of a transport, without a choice of protocols.
pub(super) struct ClientTls {
    pub(super) config: ClientConfig,
    pub(super) server_name: Option<ServerName<'static>>,
    pub(super) verifies_native: bool,
}

/// Builds the TLS part of a transport.
pub(super) fn build(
    config: &ServersTransportConfig,
    files: &dyn Files,
    warnings: &mut Vec<BuildError>,
) -> Result<ClientTls, BuildError> {
    let mut provider = aws_lc_rs::default_provider();
    if !config.cipher_suites.is_empty() {
        restrict_suites(&mut provider, &config.cipher_suites, warnings)?;
    }
    let provider = Arc::new(provider);
    let server_name = match config.server_name.as_str() {
        "" => None,
        name => Some(ServerName::try_from(name.to_owned()).map_err(|_| {
            BuildError::at("serverName", format!("`{name}` is neither a host name nor an address"))
        })?),
    };
    let trust = if config.insecure_skip_verify {
        Trust::Anyone
    } else if config.root_cas.is_empty() {
        Trust::Native
    } else {
        Trust::Roots(verifier(read_roots(&config.root_cas, files, warnings)?, &provider)?)
    };
    let verifies_native = matches!(trust, Trust::Native);
    let verifier = Verifier {
        trust,
        uri: (!config.peer_cert_uri.is_empty()).then(|| config.peer_cert_uri.as_str().into()),
        algorithms: provider.signature_verification_algorithms,
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(config, warnings)?)
        .map_err(|error| BuildError::new(format!("these TLS options do not fit: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let identities = read_identities(&config.certificates, files, &provider, warnings);
    let config = if identities.is_empty() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_resolver(Arc::new(Identities(identities)))
    };
    Ok(ClientTls { config, server_name, verifies_native })
}

/// Reads the system's authorities unless that has been done.
pub(super) fn load_native_roots() {
    let _ = native_verifier();
}

fn native_verifier() -> Option<&'static Arc<WebPkiServerVerifier>> {
    static NATIVE: OnceLock<Option<Arc<WebPkiServerVerifier>>> = OnceLock::new();
    let native = NATIVE.get_or_init(|| {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "an authority of the system cannot be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(loaded.certs);
        let built = verifier(roots, &Arc::new(aws_lc_rs::default_provider()));
        if built.is_err() {
            tracing::error!("the system has no certificate authorities: no server is believed");
        }
        built.ok()
    });
    native.as_ref()
}

fn verifier(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, BuildError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| BuildError::at("rootCAs", format!("`rootCAs` cannot be used: {error}")))
}

fn read_roots(
    entries: &[FileOrContent],
    files: &dyn Files,
    warnings: &mut Vec<BuildError>,
) -> Result<RootCertStore, BuildError> {
    let mut roots = RootCertStore::empty();
    let mut left_out = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let before = roots.len();
        let why = match entry.read(files) {
            Err(error) => Some(error.to_string()),
            Ok(pem) => {
                let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
                roots.add_parsable_certificates(certificates);
                (roots.len() == before).then(|| "it holds no certificate".to_owned())
            }
        };
        if let Some(why) = why {
            left_out.push((index, format!("{entry:?}"), why));
        }
    }
    if roots.is_empty() {
        // Falling back to the system's would believe servers that were not meant.
        let reasons: Vec<_> =
            left_out.into_iter().map(|(_, entry, why)| format!("{entry}: {why}")).collect();
        let message =
            format!("none of the authorities in `rootCAs` can be read: {}", reasons.join("; "));
        return Err(BuildError::at("rootCAs", message));
    }
    warnings.extend(left_out.into_iter().map(|(index, entry, why)| {
        BuildError::at(format!("rootCAs[{index}]"), format!("{entry} is left out: {why}"))
    }));
    Ok(roots)
}

fn read_identities(
    entries: &[ClientCertificateConfig],
    files: &dyn Files,
    provider: &CryptoProvider,
    warnings: &mut Vec<BuildError>,
) -> Vec<Arc<CertifiedKey>> {
    let read = |entry: &ClientCertificateConfig| -> Result<CertifiedKey, String> {
        if entry.key_file.is_empty() {
            return Err("`keyFile` is required".to_owned());
        }
        let chain = entry.cert_file.read(files).map_err(|error| error.to_string())?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("`certFile`: {}", pem_error(&error)))?;
        let key = entry.key_file.read(files).map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|error| format!("`keyFile`: {}", pem_error(&error)))?;
        if chain.is_empty() {
            return Err("it holds no certificate".to_owned());
        }
        CertifiedKey::from_der(chain, key, provider).map_err(|error| error.to_string())
    };
    let mut identities = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        match read(entry) {
            Ok(identity) => identities.push(Arc::new(identity)),
            Err(why) => warnings.push(BuildError::at(
                format!("certificates[{index}]"),
                format!("{:?} is not shown to servers: {why}", entry.cert_file),
            )),
        }
    }
    identities
}

/// `VersionTLS10` to `VersionTLS13` as 0 to 3.
fn version_rank(option: &str, text: &str) -> Result<u8, BuildError> {
    match text {
        "VersionTLS10" => Ok(0),
        "VersionTLS11" => Ok(1),
        "VersionTLS12" => Ok(2),
        "VersionTLS13" => Ok(3),
        _ => Err(BuildError::at(
            option,
            format!("`{text}` is no TLS version: VersionTLS12 or VersionTLS13"),
        )),
    }
}

fn versions(
    config: &ServersTransportConfig,
    warnings: &mut Vec<BuildError>,
) -> Result<Vec<&'static SupportedProtocolVersion>, BuildError> {
    let rank = |option: &str, text: &str, default: u8| match text {
        "" => Ok(default),
        text => version_rank(option, text),
    };
    let mut min = rank("minVersion", &config.min_version, 2)?;
    let max = rank("maxVersion", &config.max_version, 3)?;
    if min < 2 {
        warnings.push(BuildError::at("minVersion", "raised to VersionTLS12"));
        min = 2;
    }
    if max < 2 {
        return Err(BuildError::at("maxVersion", "TLS before 1.2 is not supported"));
    }
    match (min, max) {
        (2, 2) => Ok(vec![&version::TLS12]),
        (2, _) => Ok(vec![&version::TLS12, &version::TLS13]),
        (_, 2) => Err(BuildError::at("minVersion", "`minVersion` is above `maxVersion`")),
        _ => Ok(vec![&version::TLS13]),
    }
}

/// Cipher suites that Traefik knows and that have no forward secrecy or no authenticated encryption.
const WEAK_SUITES: [&str; 11] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_FALLBACK_SCSV",
];

fn suite(name: &str) -> Option<CipherSuite> {
    Some(match name {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        }
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        }
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"
        | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        }
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        }
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        _ => return None,
    })
}

/// Leaves the named suites of TLS 1.2. Those of TLS 1.3 are not configurable, as in Go.
fn restrict_suites(
    provider: &mut CryptoProvider,
    names: &[String],
    warnings: &mut Vec<BuildError>,
) -> Result<(), BuildError> {
    let mut wanted = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let is_tls13 = matches!(
            name.as_str(),
            "TLS_AES_128_GCM_SHA256" | "TLS_AES_256_GCM_SHA384" | "TLS_CHACHA20_POLY1305_SHA256"
        );
        let option = || format!("cipherSuites[{index}]");
        if let Some(suite) = suite(name) {
            wanted.push(suite);
        } else if WEAK_SUITES.contains(&name.as_str())
            || name.starts_with("TLS_ECDHE_") && name.contains("_CBC_")
        {
            let message = format!("`{name}` is not supported because it is weak: left out");
            warnings.push(BuildError::at(option(), message));
        } else if !is_tls13 {
            return Err(BuildError::at(option(), format!("`{name}` is no cipher suite")));
        }
    }
    provider
        .cipher_suites
        .retain(|suite| suite.version() == &version::TLS13 || wanted.contains(&suite.suite()));
    Ok(())
}

#[derive(Debug)]
enum Trust {
    /// `insecureSkipVerify`.
    Anyone,
    /// The system's authorities.
    Native,
    /// `rootCAs`.
    Roots(Arc<WebPkiServerVerifier>),
}

/// Verifies servers: chain and name as `Trust` says, and the URI when one is configured.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    uri: Option<Box<str>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = match &self.trust {
            Trust::Anyone => None,
            Trust::Native => Some(native_verifier().ok_or(CertificateError::UnknownIssuer)?),
            Trust::Roots(roots) => Some(roots),
        };
        if let Some(chain) = chain {
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        match &self.uri {
            Some(uri) if !has_uri(end_entity, uri) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a certificate has `uri` among its alternative names.
fn has_uri(certificate: &CertificateDer<'_>, uri: &str) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    names.value.general_names.iter().any(|name| matches!(name, GeneralName::URI(it) if *it == uri))
}

/// Shows the first certificate that the server says it would accept.
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identities {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let accepted = |identity: &&Arc<CertifiedKey>| {
            identity.key.choose_scheme(sigschemes).is_some()
                && (root_hint_subjects.is_empty()
                    || identity.cert.iter().any(|cert| issued_by_one_of(cert, root_hint_subjects)))
        };
        self.0.iter().find(accepted).cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn issued_by_one_of(certificate: &CertificateDer<'_>, issuers: &[&[u8]]) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, certificate)| issuers.contains(&certificate.issuer().as_raw()))
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identities").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::Disk;

    fn outcome(
        config: &ServersTransportConfig,
    ) -> (Result<ClientTls, BuildError>, Vec<BuildError>) {
        let mut warnings = Vec::new();
        let built = build(config, &Disk, &mut warnings);
        (built, warnings)
    }

    fn error_option(config: &ServersTransportConfig) -> String {
        outcome(config).0.err().expect("must not build").option
    }

    #[test]
    fn unreadable_authorities_fail_closed_and_are_told_once() {
        let config = ServersTransportConfig {
            root_cas: vec!["/does/not/exist.pem".into(), "/neither.pem".into()],
            ..ServersTransportConfig::default()
        };
        let (built, warnings) = outcome(&config);
        let error = built.err().expect("must not build");
        assert_eq!(error.option, "rootCAs");
        let both = error.message.contains("exist.pem") && error.message.contains("/neither.pem");
        assert!(both, "{}", error.message);
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn one_readable_authority_is_enough() {
        let ca = rcgen::generate_simple_self_signed(["odoo".to_owned()]).unwrap();
        let config = ServersTransportConfig {
            root_cas: vec!["/does/not/exist.pem".into(), ca.cert.pem().as_str().into()],
            ..ServersTransportConfig::default()
        };
        let (built, warnings) = outcome(&config);
        assert!(built.is_ok());
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].option, "rootCAs[0]");
    }

    #[test]
    fn versions_are_raised_and_compared() {
        let with = |min: &str, max: &str| ServersTransportConfig {
            min_version: min.into(),
            max_version: max.into(),
            ..ServersTransportConfig::default()
        };
        let (built, warnings) = outcome(&with("VersionTLS10", ""));
        assert!(built.is_ok());
        assert_eq!(warnings[0].option, "minVersion");
        assert!(outcome(&with("VersionTLS13", "")).0.is_ok());
        assert_eq!(error_option(&with("VersionTLS13", "VersionTLS12")), "minVersion");
        assert_eq!(error_option(&with("", "VersionTLS11")), "maxVersion");
        assert_eq!(error_option(&with("1.2", "")), "minVersion");
    }

    #[test]
    fn cipher_suites_are_restricted() {
        let with = |names: &[&str], max: &str| ServersTransportConfig {
            cipher_suites: names.iter().map(|&name| name.to_owned()).collect(),
            max_version: max.into(),
            ..ServersTransportConfig::default()
        };
        let (built, _) = outcome(&with(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"], "VersionTLS12"));
        let provider = Arc::clone(built.unwrap().config.crypto_provider());
        let tls12 = provider.cipher_suites.iter().filter(|s| s.version() == &version::TLS12);
        assert_eq!(tls12.count(), 1);
        assert_eq!(error_option(&with(&["TLS_NONSENSE"], "")), "cipherSuites[0]");
        let (built, warnings) = outcome(&with(&["TLS_RSA_WITH_AES_128_CBC_SHA"], "VersionTLS12"));
        assert!(built.is_err(), "no suite is left for TLS 1.2");
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn a_bad_client_certificate_is_left_out() {
        let config = ServersTransportConfig {
            certificates: vec![ClientCertificateConfig::default()],
            ..ServersTransportConfig::default()
        };
        let (built, warnings) = outcome(&config);
        assert!(!built.unwrap().config.client_auth_cert_resolver.has_certs());
        assert_eq!(warnings[0].option, "certificates[0]");
    }
}
