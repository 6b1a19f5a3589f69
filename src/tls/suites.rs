//! Traefik's names of versions, cipher suites and groups, and what rustls makes of them.
//!
//! A name that Go knows and rustls lacks is dropped with a warning, never silently widened; a
//! name that nobody knows makes the options invalid.

use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, DEFAULT_CIPHER_SUITES, kx_group};
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use super::config::TlsOptionsConfig;
use crate::values::{BuildError, Profile};

/// What TLS options say about versions, suites and groups, ready for rustls.
pub(super) struct Parameters {
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    pub(super) suites: Vec<SupportedCipherSuite>,
    pub(super) groups: Vec<&'static dyn SupportedKxGroup>,
}

impl Parameters {
    /// Reads the names in `config`.
    pub(super) fn read(
        config: &TlsOptionsConfig,
        profile: Profile,
        warnings: &mut Vec<BuildError>,
    ) -> Result<Self, BuildError> {
        let min = version("minVersion", &config.min_version, profile, warnings)?;
        let max = version("maxVersion", &config.max_version, profile, warnings)?;
        let (min, max) = (min.unwrap_or(Version::Tls12), max.unwrap_or(Version::Tls13));
        let mut versions = match (min, max) {
            (Version::Tls12, Version::Tls12) => vec![&TLS12],
            (Version::Tls12, Version::Tls13) => vec![&TLS13, &TLS12],
            (Version::Tls13, Version::Tls13) => vec![&TLS13],
            (Version::Tls13, Version::Tls12) => {
                return Err(BuildError::at("minVersion", "minVersion is above maxVersion"));
            }
        };
        let suites = suites(config, &mut versions, warnings)?;
        let groups = groups(config, warnings)?;
        if config.prefer_server_cipher_suites == Some(true) {
            let message = "`preferServerCipherSuites` is deprecated and has no effect, as in \
                           Traefik: please remove it";
            warnings.push(BuildError::at("preferServerCipherSuites", message));
        }
        Ok(Self { versions, suites, groups })
    }
}

#[derive(Clone, Copy)]
enum Version {
    Tls12,
    Tls13,
}

fn version(
    option: &str,
    text: &str,
    profile: Profile,
    warnings: &mut Vec<BuildError>,
) -> Result<Option<Version>, BuildError> {
    match text {
        "" => Ok(None),
        "VersionTLS12" => Ok(Some(Version::Tls12)),
        "VersionTLS13" => Ok(Some(Version::Tls13)),
        "VersionTLS10" | "VersionTLS11" => {
            let message = format!("`{text}` is not served any more: VersionTLS12 is used");
            warnings.push(BuildError::at(option, message));
            Ok(Some(Version::Tls12))
        }
        // Traefik takes no notice of a typo here, and the default applies.
        _ if profile == Profile::Exact => {
            let message = format!("unknown version `{text}`: the default is used");
            warnings.push(BuildError::at(option, message));
            Ok(None)
        }
        _ => {
            let message = format!("unknown version `{text}`: write VersionTLS12 or VersionTLS13");
            Err(BuildError::at(option, message))
        }
    }
}

/// The suites of TLS 1.3, which the option does not touch, and those of TLS 1.2 that it names.
fn suites(
    config: &TlsOptionsConfig,
    versions: &mut Vec<&'static SupportedProtocolVersion>,
    warnings: &mut Vec<BuildError>,
) -> Result<Vec<SupportedCipherSuite>, BuildError> {
    if config.cipher_suites.is_empty() {
        return Ok(DEFAULT_CIPHER_SUITES.to_vec());
    }
    let mut wanted = Vec::new();
    let mut lacking = false;
    for (index, name) in config.cipher_suites.iter().enumerate() {
        let option = format!("cipherSuites[{index}]");
        match suite(name) {
            Known::Served(suite) => wanted.push(suite.suite()),
            Known::Implied => {}
            Known::Lacking => {
                lacking = true;
                let message = format!("cipher suite `{name}` is not served");
                warnings.push(BuildError::at(option, message));
            }
            Known::Nowhere => {
                return Err(BuildError::at(option, format!("unknown cipher suite `{name}`")));
            }
        }
    }
    let old_needed = versions.contains(&&TLS12);
    if old_needed && wanted.is_empty() {
        if lacking || !versions.contains(&&TLS13) {
            let message = "none of the cipher suites for TLS 1.2 is served";
            return Err(BuildError::at("cipherSuites", message));
        }
        let message = "no cipher suite for TLS 1.2 is named: only TLS 1.3 is served";
        warnings.push(BuildError::at("cipherSuites", message));
        versions.retain(|version| **version != TLS12);
    }
    let chosen =
        |suite: &SupportedCipherSuite| suite.tls13().is_some() || wanted.contains(&suite.suite());
    Ok(ALL_CIPHER_SUITES.iter().copied().filter(chosen).collect())
}

fn groups(
    config: &TlsOptionsConfig,
    warnings: &mut Vec<BuildError>,
) -> Result<Vec<&'static dyn SupportedKxGroup>, BuildError> {
    if config.curve_preferences.is_empty() {
        return Ok(vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ]);
    }
    let mut groups: Vec<&'static dyn SupportedKxGroup> = Vec::new();
    for (index, name) in config.curve_preferences.iter().enumerate() {
        let option = format!("curvePreferences[{index}]");
        match group(name) {
            Known::Served(group) => {
                if !groups.iter().any(|known| known.name() == group.name()) {
                    groups.push(group);
                }
            }
            Known::Implied => {}
            Known::Lacking => {
                warnings.push(BuildError::at(option, format!("curve `{name}` is not served")));
            }
            Known::Nowhere => {
                return Err(BuildError::at(option, format!("unknown curve `{name}`")));
            }
        }
    }
    if groups.is_empty() {
        return Err(BuildError::at("curvePreferences", "none of the curves is served"));
    }
    Ok(groups)
}

enum Known<T> {
    /// rustls has it.
    Served(T),
    /// Valid and without an effect: suites of TLS 1.3 cannot be chosen.
    Implied,
    /// Traefik has it, rustls does not.
    Lacking,
    /// A typo.
    Nowhere,
}

fn suite(name: &str) -> Known<SupportedCipherSuite> {
    use rustls::crypto::aws_lc_rs::cipher_suite as suites;
    Known::Served(match name {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => {
            suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        }
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => {
            suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        }
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"
        | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_AES_128_GCM_SHA256"
        | "TLS_AES_256_GCM_SHA384"
        | "TLS_CHACHA20_POLY1305_SHA256"
        | "TLS_FALLBACK_SCSV" => return Known::Implied,
        "TLS_RSA_WITH_RC4_128_SHA"
        | "TLS_RSA_WITH_3DES_EDE_CBC_SHA"
        | "TLS_RSA_WITH_AES_128_CBC_SHA"
        | "TLS_RSA_WITH_AES_256_CBC_SHA"
        | "TLS_RSA_WITH_AES_128_CBC_SHA256"
        | "TLS_RSA_WITH_AES_128_GCM_SHA256"
        | "TLS_RSA_WITH_AES_256_GCM_SHA384"
        | "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA"
        | "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"
        | "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"
        | "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"
        | "TLS_ECDHE_RSA_WITH_RC4_128_SHA"
        | "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA"
        | "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"
        | "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"
        | "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256" => return Known::Lacking,
        _ => return Known::Nowhere,
    })
}

fn group(name: &str) -> Known<&'static dyn SupportedKxGroup> {
    Known::Served(match name {
        "X25519" | "x25519" => kx_group::X25519,
        "CurveP256" | "secp256r1" => kx_group::SECP256R1,
        "CurveP384" | "secp384r1" => kx_group::SECP384R1,
        "X25519MLKEM768" | "x25519mlkem768" => kx_group::X25519MLKEM768,
        "SecP256r1MLKEM768" | "secp256r1mlkem768" => kx_group::SECP256R1MLKEM768,
        "CurveP521" | "secp521r1" | "SecP384r1MLKEM1024" | "secp384r1mlkem1024" => {
            return Known::Lacking;
        }
        _ => return Known::Nowhere,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::NamedGroup;

    fn read(
        config: &TlsOptionsConfig,
        profile: Profile,
    ) -> (Result<Parameters, BuildError>, Vec<BuildError>) {
        let mut warnings = Vec::new();
        let read = Parameters::read(config, profile, &mut warnings);
        (read, warnings)
    }

    fn with_suites(names: &[&str]) -> TlsOptionsConfig {
        let cipher_suites = names.iter().map(|&name| name.to_owned()).collect();
        TlsOptionsConfig { cipher_suites, ..Default::default() }
    }

    #[test]
    fn the_default_is_tls_12_and_13_with_the_post_quantum_group_first() {
        let (read, warnings) = read(&TlsOptionsConfig::default(), Profile::Safe);
        let read = read.unwrap();
        assert_eq!(read.versions, [&TLS13, &TLS12]);
        assert_eq!(read.groups[0].name(), NamedGroup::X25519MLKEM768);
        assert!(warnings.is_empty());
    }

    #[test]
    fn old_versions_are_raised_with_a_warning() {
        let config =
            TlsOptionsConfig { min_version: "VersionTLS10".to_owned(), ..Default::default() };
        let (read, warnings) = read(&config, Profile::Safe);
        assert_eq!(read.unwrap().versions, [&TLS13, &TLS12]);
        assert_eq!(warnings[0].option, "minVersion");
    }

    #[test]
    fn a_misspelt_version_is_an_error_except_where_traefik_is_copied_exactly() {
        let config = TlsOptionsConfig { min_version: "TLS13".to_owned(), ..Default::default() };
        assert!(read(&config, Profile::Safe).0.is_err());
        assert!(read(&config, Profile::Hardened).0.is_err());
        let (exact, warnings) = read(&config, Profile::Exact);
        assert_eq!(exact.unwrap().versions, [&TLS13, &TLS12]);
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn a_minimum_above_the_maximum_is_an_error() {
        let config = TlsOptionsConfig {
            min_version: "VersionTLS13".to_owned(),
            max_version: "VersionTLS12".to_owned(),
            ..Default::default()
        };
        assert_eq!(read(&config, Profile::Safe).0.err().unwrap().option, "minVersion");
    }

    #[test]
    fn suites_that_rustls_lacks_are_dropped_and_unknown_ones_are_errors() {
        let config =
            with_suites(&["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
        let (parameters, warnings) = read(&config, Profile::Safe);
        let old: Vec<_> = parameters
            .unwrap()
            .suites
            .into_iter()
            .filter(|suite| suite.tls13().is_none())
            .map(|suite| suite.suite())
            .collect();
        assert_eq!(old, [rustls::CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]);
        assert_eq!(warnings[0].option, "cipherSuites[0]");

        let lacking = with_suites(&["TLS_RSA_WITH_AES_128_CBC_SHA"]);
        assert_eq!(read(&lacking, Profile::Safe).0.err().unwrap().option, "cipherSuites");
        let typo = with_suites(&["TLS_ECDHE_RSA"]);
        assert_eq!(read(&typo, Profile::Exact).0.err().unwrap().option, "cipherSuites[0]");
    }

    #[test]
    fn naming_only_suites_of_tls_13_leaves_tls_13() {
        let (read, warnings) = read(&with_suites(&["TLS_AES_128_GCM_SHA256"]), Profile::Safe);
        let read = read.unwrap();
        assert_eq!(read.versions, [&TLS13]);
        assert_eq!(read.suites.len(), 3);
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn curves_keep_their_order_and_unknown_ones_are_errors() {
        let curves = |names: &[&str]| TlsOptionsConfig {
            curve_preferences: names.iter().map(|&name| name.to_owned()).collect(),
            ..Default::default()
        };
        let (ok, warnings) = read(&curves(&["CurveP521", "CurveP384", "x25519"]), Profile::Safe);
        let names: Vec<_> = ok.unwrap().groups.iter().map(|group| group.name()).collect();
        assert_eq!(names, [NamedGroup::secp384r1, NamedGroup::X25519]);
        assert_eq!(warnings[0].option, "curvePreferences[0]");
        assert!(read(&curves(&["secp521r1"]), Profile::Safe).0.is_err());
        assert!(read(&curves(&["P256"]), Profile::Exact).0.is_err());
    }
}
