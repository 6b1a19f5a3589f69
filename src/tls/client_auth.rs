//! Client certificates: who must show one, and what is checked of it.
//!
//! Fails closed: authorities that cannot be read make the options invalid, they never turn the
//! demand off. Whatever the type, a client proves that it holds the key of what it shows.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};

use super::config::ClientAuthConfig;
use crate::values::{BuildError, Files, pem_error};

/// What `clientAuth` means.
pub(super) struct ClientAuth {
    /// `None`: clients are not asked.
    pub(super) verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Whether certificates are checked against authorities.
    pub(super) checked: bool,
    /// Digest of the authorities' bytes: a changed file makes other options.
    pub(super) authorities: [u8; 32],
}

impl ClientAuth {
    /// Reads `config`.
    pub(super) fn read(
        config: &ClientAuthConfig,
        files: &dyn Files,
        provider: &Arc<CryptoProvider>,
        warnings: &mut Vec<BuildError>,
    ) -> Result<Self, BuildError> {
        let (roots, authorities) = roots(config, files, warnings)?;
        let kind = match config.client_auth_type.as_str() {
            "" if roots.is_empty() => "NoClientCert",
            "" => "RequireAndVerifyClientCert",
            written => written,
        };
        let (verifier, checked) = match kind {
            "NoClientCert" => (None, false),
            "RequestClientCert" | "RequireAnyClientCert" => {
                let any: Arc<dyn ClientCertVerifier> = Arc::new(AnyCertificate {
                    mandatory: kind == "RequireAnyClientCert",
                    hints: roots.subjects(),
                    algorithms: provider.signature_verification_algorithms,
                });
                (Some(any), false)
            }
            "VerifyClientCertIfGiven" | "RequireAndVerifyClientCert" => {
                if roots.is_empty() {
                    let message = format!("`{kind}` needs `caFiles`");
                    return Err(BuildError::at("clientAuth.clientAuthType", message));
                }
                let mut builder = WebPkiClientVerifier::builder_with_provider(
                    Arc::new(roots),
                    Arc::clone(provider),
                );
                if kind == "VerifyClientCertIfGiven" {
                    builder = builder.allow_unauthenticated();
                }
                let verifier = builder
                    .build()
                    .map_err(|error| BuildError::at("clientAuth", error.to_string()))?;
                (Some(verifier), true)
            }
            unknown => {
                let message = format!("unknown client auth type `{unknown}`");
                return Err(BuildError::at("clientAuth.clientAuthType", message));
            }
        };
        Ok(Self { verifier, checked, authorities })
    }
}

fn roots(
    config: &ClientAuthConfig,
    files: &dyn Files,
    warnings: &mut Vec<BuildError>,
) -> Result<(RootCertStore, [u8; 32]), BuildError> {
    let mut roots = RootCertStore::empty();
    let mut digest = Sha256::new();
    for (index, file) in config.ca_files.iter().enumerate() {
        let option = format!("clientAuth.caFiles[{index}]");
        let bytes = file
            .read(files)
            .map_err(|error| BuildError::at(&*option, format!("{file:?}: {error}")))?;
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(&bytes);
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let added = match certificate {
                Ok(certificate) => roots.add(certificate).map_err(|error| error.to_string()),
                Err(error) => Err(pem_error(&error).to_owned()),
            };
            if let Err(error) = added {
                let message = format!("{file:?}: a certificate was left out: {error}");
                warnings.push(BuildError::at(&*option, message));
            }
        }
        if roots.len() == before {
            return Err(BuildError::at(option, format!("{file:?}: no certificate inside")));
        }
    }
    Ok((roots, digest.finalize().into()))
}

/// Takes every certificate, as long as the client holds its key.
struct AnyCertificate {
    mandatory: bool,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for AnyCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyCertificate").field("mandatory", &self.mandatory).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
