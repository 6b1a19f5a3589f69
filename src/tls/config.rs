//! The `tls` section of dynamic configuration, with Traefik's keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::values::{FileOrContent, Unsupported, is_default};

/// `tls`: certificates, options and stores.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsConfig {
    /// Certificates, in the order in which they are written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateConfig>,
    /// Options by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, TlsOptionsConfig>,
    /// Stores by name; only `default` has a meaning.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stores: BTreeMap<String, TlsStoreConfig>,
}

/// One entry of `tls.certificates`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CertificateConfig {
    /// The certificate and its chain, as a path or as PEM.
    #[serde(skip_serializing_if = "FileOrContent::is_empty")]
    pub cert_file: FileOrContent,
    /// The private key, as a path or as PEM.
    #[serde(skip_serializing_if = "FileOrContent::is_empty")]
    pub key_file: FileOrContent,
    /// Stores that the certificate belongs to. Default: `default`; others are never asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<String>,
}

/// A certificate and its key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CertificatePairConfig {
    /// The certificate and its chain, as a path or as PEM.
    #[serde(skip_serializing_if = "FileOrContent::is_empty")]
    pub cert_file: FileOrContent,
    /// The private key, as a path or as PEM.
    #[serde(skip_serializing_if = "FileOrContent::is_empty")]
    pub key_file: FileOrContent,
}

/// One entry of `tls.stores`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsStoreConfig {
    /// What is served when no certificate fits. Unset: a self-signed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_certificate: Option<CertificatePairConfig>,
    /// `defaultGeneratedCert`, not served yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_generated_cert: Option<Unsupported>,
}

/// One entry of `tls.options`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsOptionsConfig {
    /// `VersionTLS12` (default) or `VersionTLS13`; older ones mean `VersionTLS12`.
    #[serde(skip_serializing_if = "is_default")]
    pub min_version: String,
    /// Default: `VersionTLS13`.
    #[serde(skip_serializing_if = "is_default")]
    pub max_version: String,
    /// IANA names of TLS 1.2 suites. Default: all that are safe. TLS 1.3 has its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<String>,
    /// Groups for the key exchange. Default: X25519MLKEM768, X25519, P-256, P-384.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub curve_preferences: Vec<String>,
    /// Which certificate a client must show.
    #[serde(skip_serializing_if = "is_default")]
    pub client_auth: ClientAuthConfig,
    /// Refuse a client whose server name no certificate fits. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub sni_strict: bool,
    /// Protocols, most wanted first. Default: `h2`, `http/1.1`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alpn_protocols: Vec<String>,
    /// Let no client resume a session. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub disable_session_tickets: bool,
    /// Accepted for Traefik's sake, without an effect (as in Traefik).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefer_server_cipher_suites: Option<bool>,
}

/// `clientAuth` of TLS options.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientAuthConfig {
    /// Authorities of client certificates, as paths or as PEM.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ca_files: Vec<FileOrContent>,
    /// `NoClientCert` (default without `caFiles`), `RequestClientCert`, `RequireAnyClientCert`,
    /// `VerifyClientCertIfGiven` or `RequireAndVerifyClientCert` (default with `caFiles`).
    #[serde(skip_serializing_if = "is_default")]
    pub client_auth_type: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traefiks_keys_are_read_and_keys_are_not_shown() {
        let text = r#"{
            "certificates": [{"certFile": "a.pem", "keyFile": "-----BEGIN PRIVATE KEY-----"}],
            "options": {"mtls": {"minVersion": "VersionTLS13", "sniStrict": true,
                "preferServerCipherSuites": true,
                "clientAuth": {"caFiles": ["ca.pem"], "clientAuthType": "RequestClientCert"}}},
            "stores": {"default": {"defaultCertificate": {"certFile": "d", "keyFile": "k"}}}
        }"#;
        let config: TlsConfig = serde_json::from_str(text).unwrap();
        let mtls = &config.options["mtls"];
        assert_eq!(mtls.client_auth.client_auth_type, "RequestClientCert");
        assert_eq!(mtls.prefer_server_cipher_suites, Some(true));
        let shown = serde_json::to_value(&config).unwrap();
        assert_eq!(shown["certificates"][0]["keyFile"], "xxxx");
        assert_eq!(shown["options"]["mtls"]["clientAuth"]["caFiles"][0], "ca.pem");
        assert_eq!(shown["options"]["mtls"].get("cipherSuites"), None);
    }
}
