//! One certificate with its key: parsed, checked to belong together, and described.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Serialize;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::X509Name;

use crate::values::{BuildError, hex, pem_error};

/// A certificate that fits its key.
#[derive(Debug)]
pub struct LoadedCertificate {
    /// For rustls.
    pub key: Arc<CertifiedKey>,
    /// CN, DNS names and IP addresses, lower-case, sorted, each once.
    pub identifiers: Vec<Box<str>>,
    /// The identifiers joined by commas: Traefik's order among certificates.
    pub list: Box<str>,
    /// What the API and the metrics show.
    pub info: CertificateInfo,
}

/// What is shown of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateInfo {
    /// SHA-256 of the certificate, hexadecimal.
    pub cert_fingerprint: String,
    /// SHA-256 of the public key (`SubjectPublicKeyInfo`), hexadecimal.
    pub public_key_fingerprint: String,
    /// DNS names and IP addresses, sorted.
    pub sans: Vec<String>,
    /// Last second of its life, Unix time.
    pub not_after: i64,
    /// First second of its life, Unix time.
    pub not_before: i64,
    /// Serial number, decimal.
    pub serial_number: String,
    /// `CN` of the subject.
    pub common_name: String,
    /// First `O` of the issuer.
    pub issuer_org: String,
    /// `CN` of the issuer.
    #[serde(rename = "issuerCN")]
    pub issuer_cn: String,
    /// First `C` of the issuer.
    pub issuer_country: String,
    /// First `O` of the subject.
    pub organization: String,
    /// First `C` of the subject.
    pub country: String,
    /// `v3`.
    pub version: String,
    /// `RSA`, `ECDSA` or `Unknown`.
    pub key_type: &'static str,
    /// Bits of the key; 0 for an unknown type.
    pub key_size: usize,
    /// As Go names it: `SHA256-RSA`, `ECDSA-SHA256`, `Ed25519`.
    pub signature_algorithm: String,
}

impl LoadedCertificate {
    /// Parses a chain and a key, both PEM. An error says what is wrong with the pair.
    pub fn from_pem(
        certificate: &[u8],
        key: &[u8],
        provider: &CryptoProvider,
    ) -> Result<Self, BuildError> {
        let chain =
            CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().map_err(
                |error| BuildError::at("certFile", format!("invalid PEM: {}", pem_error(&error))),
            )?;
        if chain.is_empty() {
            return Err(BuildError::at("certFile", "no certificate inside"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            BuildError::at("keyFile", format!("no private key inside: {}", pem_error(&error)))
        })?;
        Self::from_der(chain, key, provider)
    }

    /// As `from_pem`, from DER, leaf first.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Self, BuildError> {
        let (names, info) = {
            let leaf = chain.first().ok_or_else(|| BuildError::new("no certificate inside"))?;
            let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
                .map_err(|error| BuildError::at("certFile", error.to_string()))?;
            describe(leaf, &parsed)
        };
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                BuildError::at("keyFile", "the key does not belong to the certificate")
            }
            error => BuildError::at("keyFile", error.to_string()),
        })?;
        let mut identifiers = names;
        identifiers.sort_unstable();
        identifiers.dedup();
        let list = identifiers.join(",").into_boxed_str();
        let identifiers = identifiers.into_iter().map(String::into_boxed_str).collect();
        Ok(Self { key: Arc::new(key), identifiers, list, info })
    }

    /// A new self-signed certificate like Traefik's, valid for a year. P-256: every handshake
    /// that falls back on it is paid by us.
    pub fn generate(provider: &CryptoProvider) -> Result<Self, BuildError> {
        let failed = |error: rcgen::Error| BuildError::new(error.to_string());
        let mut random = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| BuildError::new("no randomness"))?;
        let domain = hex(&random);
        let (first, second) = domain.split_at(32);
        let mut params =
            rcgen::CertificateParams::new(vec![format!("{first}.{second}.traefik.default")])
                .map_err(failed)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "TRAEFIK DEFAULT CERT");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        let now = SystemTime::now();
        params.not_before = now.into();
        params.not_after = (now + Duration::from_hours(365 * 24)).into();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Self::from_der(vec![certificate.der().clone()], key.into(), provider)
    }

    /// Which of two certificates for one name is served: the greater one. By Traefik's list,
    /// then the longer life, then the fingerprint: the order in which they were read has no say.
    pub(super) fn rank(&self) -> (&str, i64, &str) {
        (&self.list, self.info.not_after, &self.info.cert_fingerprint)
    }
}

/// Identifiers of a certificate, lower-case and unordered, and what is shown of it.
fn describe(der: &[u8], certificate: &X509Certificate<'_>) -> (Vec<String>, CertificateInfo) {
    let (key_type, key_size) = match certificate.public_key().parsed() {
        // The size of a point is whole bytes, that of P-521 is not.
        Ok(PublicKey::EC(point)) => ("ECDSA", point.key_size().min(521)),
        Ok(PublicKey::RSA(key)) => ("RSA", key.key_size()),
        _ => ("Unknown", 0),
    };
    let mut sans = sans(certificate);
    sans.sort_unstable();
    let subject = common_name(certificate.subject());
    let names = std::iter::once(&subject).chain(&sans).filter(|name| !name.is_empty());
    let names = names.map(|name| name.to_lowercase()).collect();
    let info = CertificateInfo {
        cert_fingerprint: hex(&Sha256::digest(der)),
        public_key_fingerprint: hex(&Sha256::digest(certificate.public_key().raw)),
        not_after: certificate.validity().not_after.timestamp(),
        not_before: certificate.validity().not_before.timestamp(),
        serial_number: certificate.tbs_certificate.serial.to_string(),
        issuer_org: first(certificate.issuer().iter_organization()),
        issuer_cn: common_name(certificate.issuer()),
        issuer_country: first(certificate.issuer().iter_country()),
        organization: first(certificate.subject().iter_organization()),
        country: first(certificate.subject().iter_country()),
        version: format!("v{}", certificate.version().0 + 1),
        signature_algorithm: signature_algorithm(certificate),
        sans,
        common_name: subject,
        key_type,
        key_size,
    };
    (names, info)
}

fn sans(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let ip = <[u8; 4]>::try_from(*bytes)
                    .map(IpAddr::from)
                    .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                ip.ok().map(|ip| ip.to_canonical().to_string())
            }
            _ => None,
        })
        .collect()
}

/// The last `CN`, as Go reads it.
fn common_name(name: &X509Name<'_>) -> String {
    let last = name.iter_common_name().last();
    last.and_then(|value| value.as_str().ok()).unwrap_or_default().to_owned()
}

fn first<'a>(
    mut values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> String {
    values.next().and_then(|value| value.as_str().ok()).unwrap_or_default().to_owned()
}

fn signature_algorithm(certificate: &X509Certificate<'_>) -> String {
    let algorithm = &certificate.signature_algorithm;
    let id = algorithm.algorithm.to_id_string();
    let name = match id.as_str() {
        "1.2.840.113549.1.1.5" => "SHA1-RSA",
        "1.2.840.113549.1.1.11" => "SHA256-RSA",
        "1.2.840.113549.1.1.12" => "SHA384-RSA",
        "1.2.840.113549.1.1.13" => "SHA512-RSA",
        "1.2.840.113549.1.1.10" => match SignatureAlgorithm::try_from(algorithm) {
            Ok(SignatureAlgorithm::RSASSA_PSS(params)) => {
                match params.hash_algorithm_oid().to_id_string().as_str() {
                    "2.16.840.1.101.3.4.2.2" => "SHA384-RSAPSS",
                    "2.16.840.1.101.3.4.2.3" => "SHA512-RSAPSS",
                    _ => "SHA256-RSAPSS",
                }
            }
            _ => "SHA256-RSAPSS",
        },
        "1.2.840.10045.4.1" => "ECDSA-SHA1",
        "1.2.840.10045.4.3.2" => "ECDSA-SHA256",
        "1.2.840.10045.4.3.3" => "ECDSA-SHA384",
        "1.2.840.10045.4.3.4" => "ECDSA-SHA512",
        "1.3.101.112" => "Ed25519",
        other => other,
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::{Ca, provider};

    #[test]
    fn the_generated_certificate_looks_like_traefiks() {
        let made = LoadedCertificate::generate(&provider()).unwrap();
        assert_eq!(made.info.common_name, "TRAEFIK DEFAULT CERT");
        let name = &made.info.sans[0];
        let labels: Vec<_> = name.split('.').collect();
        assert_eq!((labels[0].len(), labels[1].len()), (32, 32));
        assert_eq!(labels[2..], ["traefik", "default"]);
        assert_eq!(made.info.not_after - made.info.not_before, 365 * 24 * 3600);
        assert_eq!((made.info.key_type, made.info.key_size), ("ECDSA", 256));
        assert_eq!(made.info.signature_algorithm, "ECDSA-SHA256");
        assert_eq!(made.info.version, "v3");
    }

    #[test]
    fn identifiers_are_lower_case_sorted_and_unique() {
        let ca = Ca::new("ca");
        let pair = ca.issue("B.test", &["b.test", "A.test", "*.z.test", "10.0.0.1"]);
        let loaded =
            LoadedCertificate::from_pem(pair.cert.as_bytes(), pair.key.as_bytes(), &provider())
                .unwrap();
        assert_eq!(&*loaded.list, "*.z.test,10.0.0.1,a.test,b.test");
        assert_eq!(loaded.info.sans, ["*.z.test", "10.0.0.1", "A.test", "b.test"]);
        assert_eq!(loaded.info.issuer_cn, "ca");
        assert_eq!(loaded.info.cert_fingerprint.len(), 64);
        assert!(loaded.info.serial_number.bytes().all(|byte| byte.is_ascii_digit()));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ca = Ca::new("ca");
        let (a, b) = (ca.issue("a.test", &["a.test"]), ca.issue("b.test", &["b.test"]));
        let error = LoadedCertificate::from_pem(a.cert.as_bytes(), b.key.as_bytes(), &provider())
            .unwrap_err();
        assert_eq!(error.option, "keyFile");
        assert!(error.message.contains("does not belong"));
    }

    #[test]
    fn half_written_files_are_refused() {
        let ca = Ca::new("ca");
        let pair = ca.issue("a.test", &["a.test"]);
        let half = &pair.cert.as_bytes()[..pair.cert.len() / 2];
        let load = |cert: &[u8], key: &[u8]| LoadedCertificate::from_pem(cert, key, &provider());
        assert!(load(half, pair.key.as_bytes()).is_err());
        assert!(load(b"", pair.key.as_bytes()).is_err());
        assert!(load(pair.cert.as_bytes(), b"").is_err());
    }
}
