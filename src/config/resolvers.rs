//! `certificatesResolvers`: where certificates come from that nobody gave us. Only read here; asking for
//! certificates is another module's work.

use serde::{Deserialize, Serialize};

use crate::values::{FileOrContent, GoDuration, Secret, is_default};

/// One entry of `certificatesResolvers`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CertificatesResolverConfig {
    /// An ACME authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<AcmeConfig>,
}

/// `acme`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AcmeConfig {
    /// Address of the account's owner.
    #[serde(skip_serializing_if = "is_default")]
    pub email: String,
    /// Addresses that certificates carry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub email_addresses: Vec<String>,
    /// URL of the authority's directory. Default: Let's Encrypt.
    pub ca_server: String,
    /// Name that the directory's certificate must have. Default: `LEGO_CA_SERVER_NAME`, else the URL's host.
    #[serde(skip_serializing_if = "is_default")]
    pub ca_server_name: String,
    /// Authorities that the directory's certificate may come from. Default: `LEGO_CA_CERTIFICATES`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ca_certificates: Vec<FileOrContent>,
    /// Trust the system's authorities besides `caCertificates`.
    #[serde(skip_serializing_if = "is_default")]
    pub ca_system_cert_pool: bool,
    /// File that keeps accounts and certificates. Default: `acme.json`.
    pub storage: String,
    /// `EC256`, `EC384`, `RSA2048`, `RSA4096` (default) or `RSA8192`.
    pub key_type: String,
    /// ACME profile.
    #[serde(skip_serializing_if = "is_default")]
    pub profile: String,
    /// Issuer of the chain that is preferred.
    #[serde(skip_serializing_if = "is_default")]
    pub preferred_chain: String,
    /// Leave the common name out of requests.
    #[serde(skip_serializing_if = "is_default")]
    pub disable_common_name: bool,
    /// How long certificates live, in hours; decides when they are renewed. Default: 2160.
    pub certificates_duration: i64,
    /// How long a certificate may take after its order is complete. Default: 30s.
    pub certificate_timeout: GoDuration,
    /// For one request to the authority. Default: 2m.
    pub client_timeout: GoDuration,
    /// For the head of the authority's answer. Default: 30s.
    pub client_response_header_timeout: GoDuration,
    /// External account binding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eab: Option<EabConfig>,
    /// DNS-01.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_challenge: Option<DnsChallengeConfig>,
    /// HTTP-01.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_challenge: Option<HttpChallengeConfig>,
    /// TLS-ALPN-01.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_challenge: Option<TlsChallengeConfig>,
}

/// Let's Encrypt.
pub const DEFAULT_CA_SERVER: &str = "https://acme-v02.api.letsencrypt.org/directory";

impl Default for AcmeConfig {
    fn default() -> Self {
        Self {
            email: String::new(),
            email_addresses: Vec::new(),
            ca_server: DEFAULT_CA_SERVER.to_owned(),
            ca_server_name: String::new(),
            ca_certificates: Vec::new(),
            ca_system_cert_pool: false,
            storage: "acme.json".to_owned(),
            key_type: "RSA4096".to_owned(),
            profile: String::new(),
            preferred_chain: String::new(),
            disable_common_name: false,
            certificates_duration: 2160,
            certificate_timeout: GoDuration::from_secs(30),
            client_timeout: GoDuration::from_secs(120),
            client_response_header_timeout: GoDuration::from_secs(30),
            eab: None,
            dns_challenge: None,
            http_challenge: None,
            tls_challenge: None,
        }
    }
}

/// `eab`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EabConfig {
    /// Key identifier.
    pub kid: String,
    /// Key, in base64 for URLs.
    pub hmac_encoded: Secret,
}

/// `dnsChallenge`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DnsChallengeConfig {
    /// Who serves the zone. Required.
    pub provider: String,
    /// Resolvers that are asked whether the record is there, as `host:port`. Default: the system's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<String>,
    /// How the record is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation: Option<PropagationConfig>,
    /// Old name of `propagation.delayBeforeChecks`.
    #[serde(skip_serializing_if = "is_default")]
    pub delay_before_check: GoDuration,
    /// Old name of `propagation.disableChecks`.
    #[serde(skip_serializing_if = "is_default")]
    pub disable_propagation_check: bool,
}

impl DnsChallengeConfig {
    /// How the record is waited for, with the old names taken in.
    pub fn propagation(&self) -> PropagationConfig {
        let mut propagation = self.propagation.clone().unwrap_or_default();
        propagation.disable_checks |= self.disable_propagation_check;
        if propagation.delay_before_checks == GoDuration::ZERO {
            propagation.delay_before_checks = self.delay_before_check;
        }
        propagation
    }
}

/// `dnsChallenge.propagation`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PropagationConfig {
    /// Only wait.
    #[serde(skip_serializing_if = "is_default")]
    pub disable_checks: bool,
    /// Do not ask the zone's own servers.
    #[serde(rename = "disableANSChecks", skip_serializing_if = "is_default")]
    pub disable_ans_checks: bool,
    /// Ask every recursive resolver too.
    #[serde(rename = "requireAllRNS", skip_serializing_if = "is_default")]
    pub require_all_rns: bool,
    /// Wait this long before the first check.
    #[serde(skip_serializing_if = "is_default")]
    pub delay_before_checks: GoDuration,
}

/// `httpChallenge`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpChallengeConfig {
    /// Entry point that the authority reaches at port 80. Required.
    pub entry_point: String,
    /// Wait this long before the authority is told to look.
    #[serde(skip_serializing_if = "is_default")]
    pub delay: GoDuration,
}

/// `tlsChallenge`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsChallengeConfig {
    /// Wait this long before the authority is told to look.
    #[serde(skip_serializing_if = "is_default")]
    pub delay: GoDuration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_of_propagation_still_count() {
        let challenge = DnsChallengeConfig {
            delay_before_check: GoDuration::from_secs(7),
            disable_propagation_check: true,
            ..DnsChallengeConfig::default()
        };
        let propagation = challenge.propagation();
        assert!(propagation.disable_checks);
        assert_eq!(propagation.delay_before_checks, GoDuration::from_secs(7));
    }

    #[test]
    fn keys_of_accounts_are_not_shown() {
        let eab = EabConfig { kid: "me".to_owned(), hmac_encoded: "a2V5".to_owned().into() };
        let acme = AcmeConfig { eab: Some(eab), ..AcmeConfig::default() };
        let text = serde_json::to_string(&acme).unwrap();
        assert!(text.contains("xxxx") && !text.contains("a2V5"), "{text}");
        assert!(text.contains("\"clientTimeout\":\"2m0s\""), "{text}");
    }
}
