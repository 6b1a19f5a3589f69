//! TLS of the admin API: one certificate, HTTP/1.1, no resumption, so that every connection shows
//! its certificate anew.

use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::config::{AdminConfig, AdminTlsConfig};
use crate::values::{FileOrContent, Files, pem_error};

/// Reads `tls`; `None` when there is none.
pub(super) fn read(
    config: &AdminConfig,
    files: &dyn Files,
) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = if tls.client_ca_files.is_empty() {
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(roots(tls, files)?);
        let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
        if !config.tokens.is_empty() && !config.client_certificates.is_empty() {
            verifier = verifier.allow_unauthenticated();
        }
        builder.with_client_cert_verifier(verifier.build().context("admin.tls.clientCAFiles")?)
    };
    let chain = certificates(&tls.cert_file, files, "admin.tls.certFile")?;
    let key = content(&tls.key_file, files, "admin.tls.keyFile")?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| {
        anyhow!("admin.tls.keyFile: there is no private key inside: {}", pem_error(&error))
    })?;
    let mut server = builder
        .with_single_cert(chain, key)
        .context("admin.tls: certificate and key do not belong together")?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Some(Arc::new(server)))
}

fn roots(tls: &AdminTlsConfig, files: &dyn Files) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for (index, file) in tls.client_ca_files.iter().enumerate() {
        let option = format!("admin.tls.clientCAFiles[{index}]");
        for certificate in certificates(file, files, &option)? {
            roots.add(certificate).with_context(|| option.clone())?;
        }
    }
    Ok(roots)
}

fn certificates(
    file: &FileOrContent,
    files: &dyn Files,
    option: &str,
) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let bytes = content(file, files, option)?;
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| anyhow!("{option}: invalid PEM: {}", pem_error(&error)))?;
    if certificates.is_empty() {
        bail!("{option}: there is no certificate inside");
    }
    Ok(certificates)
}

fn content(file: &FileOrContent, files: &dyn Files, option: &str) -> anyhow::Result<Arc<[u8]>> {
    file.read(files).with_context(|| format!("{option}: {file:?} cannot be read"))
}
