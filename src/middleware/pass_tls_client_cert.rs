//! `passTLSClientCert`: tells the backend which certificate the client has shown.
//!
//! What stands in the two headers comes from the handshake of this connection, or from a peer that
//! may set forwarded headers, and never from anybody else.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::auth::{remove_aliases, set_identity};
use super::{Build, BuildContext};
use crate::exchange::forwarded::{
    X_FORWARDED_TLS_CLIENT_CERT as CERT, X_FORWARDED_TLS_CLIENT_CERT_INFO as CERT_INFO,
};
use crate::exchange::{ClientTls, Context, Middleware, Next, Request, ResponseFuture};
use crate::values::{BuildError, Profile, is_default};

/// Options of `passTLSClientCert`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PassTlsClientCertConfig {
    /// The whole chain in `X-Forwarded-Tls-Client-Cert`: PEM without its first and last lines and
    /// line breaks, joined by commas. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub pem: bool,
    /// Parts of it in `X-Forwarded-Tls-Client-Cert-Info`. Unset: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<InfoConfig>,
}

/// `info`: what of each certificate is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InfoConfig {
    /// `NA`, in seconds since 1970. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub not_after: bool,
    /// `NB`, in seconds since 1970. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub not_before: bool,
    /// `SAN`: host names, mail addresses, IP addresses and URIs. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub sans: bool,
    /// `SerialNumber`, decimal. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub serial_number: bool,
    /// `Subject`. Unset: not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<SubjectConfig>,
    /// `Issuer`. Unset: not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<IssuerConfig>,
}

/// `info.subject`: which attributes of the name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubjectConfig {
    /// `C`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub country: bool,
    /// `ST`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub province: bool,
    /// `L`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub locality: bool,
    /// `O`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub organization: bool,
    /// `OU`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub organizational_unit: bool,
    /// `CN`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub common_name: bool,
    /// `SN`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub serial_number: bool,
    /// `DC`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub domain_component: bool,
}

/// `info.issuer`: which attributes of the name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IssuerConfig {
    /// `C`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub country: bool,
    /// `ST`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub province: bool,
    /// `L`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub locality: bool,
    /// `O`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub organization: bool,
    /// `CN`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub common_name: bool,
    /// `SN`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub serial_number: bool,
    /// `DC`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub domain_component: bool,
}

impl Build for PassTlsClientCertConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        if !self.pem && self.info.is_none() {
            cx.warnings.push(BuildError::new("nothing is told: neither `pem` nor `info` is set"));
        }
        let info = self.info.as_ref().map(|info| Info {
            subject: info.subject.as_ref().map(|it| {
                [
                    it.domain_component,
                    it.country,
                    it.province,
                    it.locality,
                    it.organization,
                    it.organizational_unit,
                    it.serial_number,
                    it.common_name,
                ]
            }),
            issuer: info.issuer.as_ref().map(|it| {
                [
                    it.domain_component,
                    it.country,
                    it.province,
                    it.locality,
                    it.organization,
                    false,
                    it.serial_number,
                    it.common_name,
                ]
            }),
            serial_number: info.serial_number,
            not_before: info.not_before,
            not_after: info.not_after,
            sans: info.sans,
            escaped: match cx.profile {
                Profile::Exact => &[],
                Profile::Safe => &['"'],
                Profile::Hardened => &['"', ','],
            },
        });
        let strict = cx.profile == Profile::Hardened;
        let makers = MAKERS.fetch_add(2, Ordering::Relaxed);
        Ok(Arc::new(PassTlsClientCert { pem: self.pem, info, strict, makers }))
    }
}

static MAKERS: AtomicU64 = AtomicU64::new(0);

struct PassTlsClientCert {
    pem: bool,
    info: Option<Info>,
    /// Believe no peer's headers about certificates.
    strict: bool,
    /// Whose values are whose among those that a connection remembers: this number, and the next.
    makers: u64,
}

impl Middleware for PassTlsClientCert {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        mut request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let tls = cx.connection.tls.as_ref().filter(|tls| !tls.certificates.is_empty());
        let headers = request.headers_mut();
        if self.pem {
            self.tell(headers, &CERT, tls, self.makers, pem);
        }
        if let Some(info) = &self.info {
            self.tell(headers, &CERT_INFO, tls, self.makers + 1, |shown| info.of_all(shown));
        }
        next.run(cx, request)
    }
}

impl PassTlsClientCert {
    fn tell(
        &self,
        headers: &mut HeaderMap,
        name: &HeaderName,
        tls: Option<&ClientTls>,
        maker: u64,
        make: impl FnOnce(&[CertificateDer<'_>]) -> String,
    ) {
        let Some(tls) = tls else {
            if self.strict {
                remove_aliases(headers, name);
            }
            return;
        };
        let value = tls.made.by(maker, || HeaderValue::try_from(make(&tls.certificates)).ok());
        match value {
            Some(value) => set_identity(headers, name, &value),
            // Both alphabets are ASCII, so this cannot be; a forged value would stand there else.
            None => remove_aliases(headers, name),
        }
    }
}

/// The certificates in the base64 of PEM.
fn pem(chain: &[CertificateDer<'_>]) -> String {
    let mut out = String::new();
    for (index, certificate) in chain.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        STANDARD.encode_string(certificate, &mut out);
    }
    out
}

/// Attributes of a name in the order in which they are told: label, object identifier (DER), and
/// whether only the last of several counts, as in Go's `pkix.Name`.
const ATTRIBUTES: [(&str, &[u8], bool); 8] = [
    ("DC", &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], false),
    ("C", &[0x55, 0x04, 0x06], false),
    ("ST", &[0x55, 0x04, 0x08], false),
    ("L", &[0x55, 0x04, 0x07], false),
    ("O", &[0x55, 0x04, 0x0a], false),
    ("OU", &[0x55, 0x04, 0x0b], false),
    ("SN", &[0x55, 0x04, 0x05], true),
    ("CN", &[0x55, 0x04, 0x03], true),
];

/// What is told of certificates.
struct Info {
    subject: Option<[bool; 8]>,
    issuer: Option<[bool; 8]>,
    serial_number: bool,
    not_before: bool,
    not_after: bool,
    sans: bool,
    /// Characters of values that could end a value: written as `%22` and `%2C`.
    escaped: &'static [char],
}

impl Info {
    fn of_all(&self, chain: &[CertificateDer<'_>]) -> String {
        let all: Vec<String> = chain.iter().map(|certificate| self.of(certificate)).collect();
        query_escape(&all.join(","))
    }

    /// One certificate; empty when it cannot be read.
    fn of(&self, certificate: &CertificateDer<'_>) -> String {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return String::new();
        };
        let mut fields = Vec::with_capacity(6);
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                fields.push(format!("{name}=\"{value}\""));
            }
        };
        if let Some(wanted) = self.subject {
            add("Subject", &self.name(certificate.subject(), wanted));
        }
        if let Some(wanted) = self.issuer {
            add("Issuer", &self.name(certificate.issuer(), wanted));
        }
        if self.serial_number {
            add("SerialNumber", &certificate.serial.to_string());
        }
        let validity = certificate.validity();
        for (wanted, name, time) in [
            (self.not_before, "NB", validity.not_before),
            (self.not_after, "NA", validity.not_after),
        ] {
            if wanted {
                // As an unsigned number, also before 1970, like Traefik.
                add(name, &time.timestamp().cast_unsigned().to_string());
            }
        }
        if self.sans {
            add("SAN", &self.alternative_names(&certificate));
        }
        fields.join(";")
    }

    fn name(&self, name: &X509Name<'_>, wanted: [bool; 8]) -> String {
        let mut out = String::new();
        for ((label, identifier, last), _) in
            ATTRIBUTES.iter().zip(wanted).filter(|(_, wanted)| *wanted)
        {
            let found = name
                .iter_attributes()
                .filter(|attribute| attribute.attr_type().as_bytes() == *identifier)
                .filter_map(|attribute| {
                    let value = attribute.attr_value();
                    string(value.tag().0, value.data)
                });
            let found: Vec<String> =
                if *last { found.last().into_iter().collect() } else { found.collect() };
            for value in found.iter().filter(|value| !value.is_empty() || *label == "DC") {
                let comma = if out.is_empty() { "" } else { "," };
                let _ = write!(out, "{comma}{label}={}", self.escape(value));
            }
        }
        out
    }

    fn alternative_names(&self, certificate: &X509Certificate<'_>) -> String {
        let Ok(Some(names)) = certificate.subject_alternative_name() else {
            return String::new();
        };
        let names = &names.value.general_names;
        let kinds: [fn(&GeneralName<'_>) -> Option<String>; 4] = [
            |name| if let GeneralName::DNSName(it) = name { Some((*it).to_owned()) } else { None },
            |name| {
                if let GeneralName::RFC822Name(it) = name { Some((*it).to_owned()) } else { None }
            },
            |name| if let GeneralName::IPAddress(it) = name { address(it) } else { None },
            |name| if let GeneralName::URI(it) = name { Some((*it).to_owned()) } else { None },
        ];
        let sorted = kinds.iter().flat_map(|kind| names.iter().filter_map(kind));
        sorted.map(|name| self.escape(&name)).collect::<Vec<_>>().join(",")
    }

    fn escape(&self, value: &str) -> String {
        let mut out = String::with_capacity(value.len());
        for character in value.chars() {
            if self.escaped.contains(&character) {
                let _ = write!(out, "%{:02X}", u32::from(character));
            } else {
                out.push(character);
            }
        }
        out
    }
}

/// The text of an ASN.1 string; `None` for what is no string of a name in Go.
fn string(tag: u32, data: &[u8]) -> Option<String> {
    match tag {
        // UTF8String, NumericString, PrintableString, IA5String
        12 | 18 | 19 | 22 => Some(String::from_utf8_lossy(data).into_owned()),
        // T61String, which is read as Latin-1.
        20 => Some(data.iter().map(|&byte| char::from(byte)).collect()),
        // BMPString
        30 => {
            let units = data.as_chunks::<2>().0.iter().map(|&pair| u16::from_be_bytes(pair));
            Some(char::decode_utf16(units).map(|unit| unit.unwrap_or('\u{fffd}')).collect())
        }
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let ip = match bytes.len() {
        4 => IpAddr::from(*bytes.first_chunk::<4>()?),
        16 => IpAddr::from(*bytes.first_chunk::<16>()?),
        _ => return None,
    };
    Some(ip.to_canonical().to_string())
}

/// Go's `url.QueryEscape`.
fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            _ if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => {
                out.push(char::from(byte));
            }
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rcgen::string::{BmpString, Ia5String, TeletexString};
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType, date_time_ymd};

    use super::*;
    use crate::middleware::testing::{Bench, Setting, build, context, get, with};

    fn ia5(text: &str) -> Ia5String {
        text.try_into().unwrap()
    }

    /// A certificate with this name, and everything else that can be told.
    fn certificate(name: &[(DnType, DnValue)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in name {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.serial_number = Some(vec![0x01, 0, 0, 0, 0, 0, 0, 0, 0x0a].into());
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2030, 1, 1);
        params.subject_alt_names = vec![
            SanType::URI(ia5("spiffe://odoo/pod")),
            SanType::IpAddress("::ffff:10.0.0.1".parse().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
            SanType::Rfc822Name(ia5("it@klinik.test")),
            SanType::DnsName(ia5("pod.test")),
        ];
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    fn full_name() -> Vec<(DnType, DnValue)> {
        vec![
            (DnType::CommonName, utf8("Dr. Müller & Söhne")),
            (DnType::CustomDnType(vec![2, 5, 4, 5]), utf8("4711")),
            (DnType::OrganizationalUnitName, utf8("IT")),
            (
                DnType::OrganizationName,
                DnValue::BmpString(BmpString::try_from("Klinik, gGmbH").unwrap()),
            ),
            (
                DnType::LocalityName,
                DnValue::TeletexString(TeletexString::try_from("Koeln").unwrap()),
            ),
            (DnType::StateOrProvinceName, utf8("NRW")),
            (DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap())),
            (
                DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 25]),
                DnValue::Ia5String(ia5("klinik")),
            ),
        ]
    }

    fn bench(json: &str, profile: Profile, chain: &[CertificateDer<'static>]) -> Bench {
        let config: PassTlsClientCertConfig = serde_json::from_str(json).unwrap();
        let setting = Setting { profile, ..Setting::default() };
        let mut cx = context("192.0.2.1");
        Arc::get_mut(&mut cx.connection).unwrap().tls =
            Some(ClientTls { certificates: chain.to_vec(), ..ClientTls::default() });
        Bench::new(vec![setting.build(&config).unwrap().0]).with_context(cx)
    }

    async fn told(bench: &Bench, name: &str) -> Option<String> {
        bench.send(get("/")).await;
        let seen = bench.seen();
        assert!(seen.headers.get_all(name).iter().count() < 2);
        seen.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    /// What a connection remembers is each middleware's own.
    #[tokio::test]
    async fn a_connection_remembers_what_was_made() {
        let chain = [certificate(&full_name())];
        let one = bench(r#"{"info": {"notAfter": true}}"#, Profile::Safe, &chain);
        let other: PassTlsClientCertConfig =
            serde_json::from_str(r#"{"pem": true, "info": {"notBefore": true}}"#).unwrap();
        let other = Bench::new(vec![build(&other).unwrap()]).with_context(one.cx.clone());
        for _ in 0..3 {
            let info = told(&one, CERT_INFO.as_str()).await.unwrap();
            assert!(info.starts_with("NA"), "{info}");
            let info = told(&other, CERT_INFO.as_str()).await.unwrap();
            assert!(info.starts_with("NB"), "{info}");
            assert_eq!(told(&other, CERT.as_str()).await.unwrap(), STANDARD.encode(&chain[0]));
        }
        let made = &one.cx.connection.tls.as_ref().unwrap().made;
        let value = HeaderValue::from_static("x");
        for maker in 1000..1100 {
            assert_eq!(made.by(maker, || Some(value.clone())), Some(value.clone()));
        }
        assert_eq!(made.by(1099, || panic!("it is there")), Some(value));
        assert_eq!(made.by(1000, || None), None, "only so many are remembered");
        // After any number of reloads what is made now is remembered.
        assert!(told(&one, CERT_INFO.as_str()).await.unwrap().starts_with("NA"));
        assert_eq!(made.by(1085, || None), Some(HeaderValue::from_static("x")));
        assert_eq!(made.by(1084, || None), None, "it made room");
    }

    /// The information about certificates before it was escaped.
    async fn info(json: &str, profile: Profile, chain: &[CertificateDer<'static>]) -> String {
        let bench = bench(&format!(r#"{{"info": {json}}}"#), profile, chain);
        let told = told(&bench, "x-forwarded-tls-client-cert-info").await.unwrap();
        let plain = told.replace('+', " ");
        let mut bytes = Vec::new();
        let mut rest = plain.as_bytes();
        while let Some((&first, behind)) = rest.split_first() {
            if first == b'%' {
                let digits = str::from_utf8(&behind[..2]).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &behind[2..];
            } else {
                assert!(first.is_ascii_alphanumeric() || b"-_.~ ".contains(&first), "{told}");
                bytes.push(first);
                rest = behind;
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    const ALL: &str = r#"{"notAfter": true, "notBefore": true, "sans": true, "serialNumber": true,
        "subject": {"country": true, "province": true, "locality": true, "organization": true,
            "organizationalUnit": true, "commonName": true, "serialNumber": true,
            "domainComponent": true},
        "issuer": {"country": true, "province": true, "locality": true, "organization": true,
            "commonName": true, "serialNumber": true, "domainComponent": true}}"#;

    /// RP 7.7
    #[tokio::test]
    async fn the_chain_is_passed_as_pem() {
        let chain = [certificate(&full_name()), certificate(&[])];
        let bench = bench(r#"{"pem": true}"#, Profile::Safe, &chain);
        let want = format!("{},{}", STANDARD.encode(&chain[0]), STANDARD.encode(&chain[1]));
        assert_eq!(told(&bench, "x-forwarded-tls-client-cert").await, Some(want));
        assert_eq!(told(&bench, "x-forwarded-tls-client-cert-info").await, None);
    }

    #[tokio::test]
    async fn information_is_told_in_traefiks_order() {
        let chain = [certificate(&full_name())];
        let common = "DC=klinik,C=DE,ST=NRW,L=Koeln,O=Klinik, gGmbH";
        let rest = "SN=4711,CN=Dr. Müller & Söhne";
        let want = format!(
            "Subject=\"{common},OU=IT,{rest}\";Issuer=\"{common},{rest}\";\
             SerialNumber=\"18446744073709551626\";NB=\"1577836800\";NA=\"1893456000\";\
             SAN=\"pod.test,it@klinik.test,10.0.0.1,2001:db8::1,spiffe://odoo/pod\""
        );
        assert_eq!(info(ALL, Profile::Safe, &chain).await, want);
        for (json, want) in [
            (r#"{"notAfter": true}"#, "NA=\"1893456000\""),
            (r#"{"subject": {"commonName": true}}"#, "Subject=\"CN=Dr. Müller & Söhne\""),
            (
                r#"{"issuer": {"country": true}, "notBefore": true}"#,
                "Issuer=\"C=DE\";NB=\"1577836800\"",
            ),
            (r#"{"subject": {}, "issuer": {}}"#, ""),
        ] {
            assert_eq!(info(json, Profile::Safe, &chain).await, want, "{json}");
        }
    }

    #[tokio::test]
    async fn certificates_are_joined_and_what_is_missing_is_left_out() {
        let chain = [
            certificate(&[(DnType::CommonName, utf8("a"))]),
            certificate(&[(DnType::OrganizationName, utf8("b"))]),
            CertificateDer::from(vec![1, 2, 3]),
        ];
        let json = r#"{"subject": {"commonName": true}}"#;
        assert_eq!(info(json, Profile::Safe, &chain).await, "Subject=\"CN=a\",,");
    }

    /// A name that would end its value and begin another.
    #[tokio::test]
    async fn a_name_cannot_add_fields() {
        let chain = [certificate(&[(DnType::CommonName, utf8("x\";SAN=\"admin,OU=root"))])];
        let json = r#"{"subject": {"commonName": true}}"#;
        for (profile, want) in [
            (Profile::Exact, "Subject=\"CN=x\";SAN=\"admin,OU=root\""),
            (Profile::Safe, "Subject=\"CN=x%22;SAN=%22admin,OU=root\""),
            (Profile::Hardened, "Subject=\"CN=x%22;SAN=%22admin%2COU=root\""),
        ] {
            assert_eq!(info(json, profile, &chain).await, want);
        }
    }

    #[tokio::test]
    async fn what_a_client_writes_never_stands_beside_its_certificate() {
        let chain = [certificate(&full_name())];
        let json = r#"{"pem": true, "info": {"subject": {"commonName": true}}}"#;
        let forged = || {
            let names = ["x-forwarded-tls-client-cert", "x-forwarded-tls-client-cert-info"];
            names.iter().fold(get("/"), |request, name| {
                let request = with(request, name, "forged");
                with(with(request, name, "again"), &name.replace('-', "_"), "forged")
            })
        };
        let with_certificate = bench(json, Profile::Exact, &chain);
        with_certificate.send(forged()).await;
        let seen = with_certificate.seen();
        assert!(seen.headers.values().all(|value| value != "forged" && value != "again"));
        // Only a peer that may set them comes here with those headers, such as another proxy.
        for (profile, kept) in [(Profile::Safe, true), (Profile::Hardened, false)] {
            let without = bench(json, profile, &[]);
            without.send(forged()).await;
            let headers = without.seen().headers;
            assert_eq!(headers.values().any(|value| value == "forged"), kept, "{profile:?}");
        }
    }

    #[tokio::test]
    async fn clear_text_tells_nothing() {
        let config: PassTlsClientCertConfig =
            serde_json::from_str(r#"{"pem": true, "info": {"sans": true}}"#).unwrap();
        let bench = Bench::new(vec![build(&config).unwrap()]);
        bench.send(get("/")).await;
        assert_eq!(bench.seen().headers.len(), 1);
    }

    #[test]
    fn keys_are_traefiks() {
        let text = format!(r#"{{"pem":true,"info":{ALL}}}"#);
        let config: PassTlsClientCertConfig = serde_json::from_str(&text).unwrap();
        let shown = serde_json::to_value(&config).unwrap();
        let written: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(shown, written);
        let nothing = PassTlsClientCertConfig::default();
        assert_eq!(Setting::default().build(&nothing).unwrap().1.len(), 1);
    }

    #[test]
    fn escaping_follows_go() {
        assert_eq!(query_escape("a b\"=,;/-_.~é"), "a+b%22%3D%2C%3B%2F-_.~%C3%A9");
    }
}
