//! TLS of the admin API: one certificate, HTTP/1.1, no resumption, so that every connection shows
//! its certificate anew.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::config::{AdminConfig, AdminTlsConfig};
use crate::values::{BuildError, FileOrContent, Files, pem_error};

/// Everything that is wrong with the files of `tls`, by option.
pub(super) fn check(config: &AdminConfig, files: &dyn Files) -> Vec<BuildError> {
    let Some(tls) = &config.tls else { return Vec::new() };
    let mut found = Vec::new();
    found.extend(certificates(&tls.cert_file, files, "tls.certFile").err());
    found.extend(private_key(tls, files).err());
    for index in 0..tls.client_ca_files.len() {
        found.extend(authority(tls, index, files).err());
    }
    if found.is_empty() {
        found.extend(read(config, files).err());
    }
    found
}

/// Reads `tls`; `None` when there is none.
pub(super) fn read(
    config: &AdminConfig,
    files: &dyn Files,
) -> Result<Option<Arc<ServerConfig>>, BuildError> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| BuildError::at("tls", error.to_string()))?;
    let builder = if tls.client_ca_files.is_empty() {
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(roots(tls, files)?);
        let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
        if !config.tokens.is_empty() && !config.client_certificates.is_empty() {
            verifier = verifier.allow_unauthenticated();
        }
        let verifier = verifier.build();
        builder.with_client_cert_verifier(
            verifier.map_err(|error| BuildError::at("tls.clientCAFiles", error.to_string()))?,
        )
    };
    let chain = certificates(&tls.cert_file, files, "tls.certFile")?;
    let key = private_key(tls, files)?;
    let mut server = builder.with_single_cert(chain, key).map_err(|error| {
        let message = format!("certificate and key do not belong together: {error}");
        BuildError::at("tls", message)
    })?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Some(Arc::new(server)))
}

fn private_key(
    tls: &AdminTlsConfig,
    files: &dyn Files,
) -> Result<PrivateKeyDer<'static>, BuildError> {
    let key = content(&tls.key_file, files, "tls.keyFile")?;
    PrivateKeyDer::from_pem_slice(&key).map_err(|error| {
        let message = format!("there is no private key inside: {}", pem_error(&error));
        BuildError::at("tls.keyFile", message)
    })
}

fn roots(tls: &AdminTlsConfig, files: &dyn Files) -> Result<RootCertStore, BuildError> {
    let mut roots = RootCertStore::empty();
    for index in 0..tls.client_ca_files.len() {
        roots.roots.extend(authority(tls, index, files)?.roots);
    }
    Ok(roots)
}

/// The certificates of one of `clientCAFiles`.
fn authority(
    tls: &AdminTlsConfig,
    index: usize,
    files: &dyn Files,
) -> Result<RootCertStore, BuildError> {
    let option = format!("tls.clientCAFiles[{index}]");
    let mut roots = RootCertStore::empty();
    let file = tls.client_ca_files.get(index).cloned().unwrap_or_default();
    for certificate in certificates(&file, files, &option)? {
        let added = roots.add(certificate);
        added.map_err(|error| BuildError::at(&*option, error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(
    file: &FileOrContent,
    files: &dyn Files,
    option: &str,
) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    let bytes = content(file, files, option)?;
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| BuildError::at(option, format!("invalid PEM: {}", pem_error(&error))))?;
    if certificates.is_empty() {
        return Err(BuildError::at(option, "there is no certificate inside"));
    }
    Ok(certificates)
}

fn content(file: &FileOrContent, files: &dyn Files, option: &str) -> Result<Arc<[u8]>, BuildError> {
    file.read(files)
        .map_err(|error| BuildError::at(option, format!("{file:?} cannot be read: {error}")))
}
