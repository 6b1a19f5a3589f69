//! Who may call: tokens as digests, certificates by their names, and users of this machine.
//!
//! A token is compared as its digest and with every known one, in a time that tells nothing. No
//! token is kept as text.

use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::call::{Place, Role, Via, Who};
use super::config::{AdminConfig, ClientCertificateConfig, TokenConfig};
use super::{complain, tls};
use crate::values::{BuildError, Files, Secret};

/// A shorter token could be guessed.
const SHORTEST_TOKEN: usize = 16;
/// What no client sends by accident.
const LONGEST_TOKEN: usize = 4096;

/// Everything that is read of files, and is read again on request.
pub(super) struct Keys {
    tokens: Vec<Token>,
    certificates: Vec<ClientCertificateConfig>,
    /// Users that are let in over a socket of the file system; empty when tokens are demanded.
    users: Vec<u32>,
    /// TLS, when it is configured.
    pub(super) tls: Option<Arc<ServerConfig>>,
}

struct Token {
    name: String,
    role: Role,
    digest: [u8; 32],
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stranger {
    /// He has shown nothing.
    Nobody,
    /// What he has shown is wrong.
    Impostor,
}

impl Keys {
    /// Reads everything, or says what is wrong.
    pub(super) fn read(config: &AdminConfig, files: &dyn Files) -> anyhow::Result<Self> {
        let tokens = config.tokens.iter().map(|token| Token::read(token, files));
        Ok(Self {
            tokens: tokens.collect::<Result<_, _>>()?,
            tls: tls::read(config, files).map_err(|error| named(&error))?,
            ..Self::without_files(config)
        })
    }

    /// Everything that is wrong with the files of tokens and certificates, by option.
    pub(super) fn check(config: &AdminConfig, files: &dyn Files) -> Vec<BuildError> {
        let tokens = config.tokens.iter().enumerate().filter_map(|(index, token)| {
            let error = Token::read(token, files).err()?;
            let by_file = token.token_hash.expose().is_empty();
            let option = if by_file { "tokenFile" } else { "tokenHash" };
            Some(BuildError::at(format!("tokens[{index}].{option}"), format!("{error:#}")))
        });
        tokens.chain(tls::check(config, files)).collect()
    }

    /// Reads everything again. A token that cannot be read is not valid any more.
    pub(super) fn read_again(config: &AdminConfig, files: &dyn Files, last: &Self) -> Self {
        let token = |token| Token::read(token, files).inspect_err(complain).ok();
        let tls = tls::read(config, files).map_err(|error| named(&error)).inspect_err(complain);
        Self {
            tokens: config.tokens.iter().filter_map(token).collect(),
            tls: tls.unwrap_or_else(|_| last.tls.clone()),
            ..Self::without_files(config)
        }
    }

    fn without_files(config: &AdminConfig) -> Self {
        let own = rustix::process::geteuid().as_raw();
        Self {
            tokens: Vec::new(),
            certificates: config.client_certificates.clone(),
            users: if config.tokens.is_empty() { vec![0, own] } else { Vec::new() },
            tls: None,
        }
    }

    /// Who has sent a request with these headers, from there, having shown this certificate.
    /// Whoever sends a token is judged by it alone.
    pub(super) fn who(
        &self,
        headers: &HeaderMap,
        from: Place,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Result<Who, Stranger> {
        if headers.contains_key(AUTHORIZATION) {
            return self.by_token(headers);
        }
        if let Some(certificate) = certificate {
            return self.by_certificate(certificate).ok_or(Stranger::Impostor);
        }
        match from {
            Place::User(user) if self.users.contains(&user) => {
                Ok(Who { name: format!("uid {user}"), via: Via::User, role: Role::Write })
            }
            Place::User(_) if self.tokens.is_empty() => Err(Stranger::Impostor),
            _ => Err(Stranger::Nobody),
        }
    }

    fn by_token(&self, headers: &HeaderMap) -> Result<Who, Stranger> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Stranger::Impostor);
        };
        let token = value.as_bytes().split_at_checked(7).filter(|(scheme, token)| {
            scheme.eq_ignore_ascii_case(b"Bearer ") && token.len() <= LONGEST_TOKEN
        });
        let (_, token) = token.ok_or(Stranger::Impostor)?;
        let digest: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
        let mut found = None;
        for token in &self.tokens {
            if verify_slices_are_equal(&digest, &token.digest).is_ok() {
                found = Some(token);
            }
        }
        let token = found.ok_or(Stranger::Impostor)?;
        Ok(Who { name: token.name.clone(), via: Via::Token, role: token.role })
    }

    fn by_certificate(&self, certificate: &CertificateDer<'_>) -> Option<Who> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let known = self.certificates.iter().find(|known| fits(&parsed, known))?;
        Some(Who { name: known.name.clone(), via: Via::Certificate, role: known.role })
    }
}

fn named(error: &BuildError) -> anyhow::Error {
    anyhow!("admin.{}: {}", error.option, error.message)
}

impl Token {
    fn read(config: &TokenConfig, files: &dyn Files) -> anyhow::Result<Self> {
        let TokenConfig { name, role, token_file, token_hash } = config;
        let digest = if token_hash.expose().is_empty() {
            let bytes = files.read(token_file).with_context(|| {
                format!("the token `{name}` cannot be read: {}", token_file.display())
            })?;
            let token = bytes.trim_ascii();
            if token.len() < SHORTEST_TOKEN || token.len() > LONGEST_TOKEN {
                bail!(
                    "the token `{name}` in {} has not {SHORTEST_TOKEN} to {LONGEST_TOKEN} characters",
                    token_file.display()
                );
            }
            if !token.iter().all(u8::is_ascii_graphic) {
                bail!(
                    "the token `{name}` in {} has spaces or other characters that no header carries",
                    token_file.display()
                );
            }
            Sha256::digest(token).into()
        } else {
            unhex(token_hash).with_context(|| format!("`tokenHash` of the token `{name}`"))?
        };
        Ok(Self { name: name.clone(), role: *role, digest })
    }
}

fn unhex(text: &Secret) -> anyhow::Result<[u8; 32]> {
    let mut digest = [0; 32];
    let pairs = text.expose().as_bytes().chunks_exact(2);
    if pairs.len() != digest.len() {
        bail!("a SHA-256 has 64 hexadecimal digits");
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair)?, 16)?;
    }
    Ok(digest)
}

fn fits(certificate: &X509Certificate<'_>, wanted: &ClientCertificateConfig) -> bool {
    if !wanted.common_name.is_empty() {
        // Of several, another program may take another one.
        let mut names = certificate.subject().iter_common_name();
        return match (names.next(), names.next()) {
            (Some(name), None) => name.as_str().is_ok_and(|name| name == wanted.common_name),
            _ => false,
        };
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    names.iter().flat_map(|names| &names.value.general_names).any(|name| match name {
        GeneralName::DNSName(name) => name.eq_ignore_ascii_case(&wanted.san),
        GeneralName::URI(name) | GeneralName::RFC822Name(name) => *name == wanted.san,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fmt::Write as _;

    use http::HeaderValue;

    use super::*;
    use crate::middleware::testing::FakeFiles;

    const TOKEN: &str = "correct-horse-battery-staple";

    fn keys(json: &str, file: &str) -> anyhow::Result<Keys> {
        let config: AdminConfig = serde_json::from_str(json).unwrap();
        let files = HashMap::from([("/t".to_owned(), file.to_owned())]);
        Keys::read(&config, &FakeFiles(files))
    }

    fn here() -> Place {
        Place::Address("127.0.0.1:1".parse().unwrap())
    }

    fn bearer(values: &[&str]) -> HeaderMap {
        let value = |text: &&str| (AUTHORIZATION, HeaderValue::from_str(text).unwrap());
        values.iter().map(value).collect()
    }

    #[test]
    fn tokens_are_known_by_their_digest() {
        let hash = Sha256::digest("another-token-of-somebody");
        let hash = hash.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02X}").unwrap();
            text
        });
        let json = format!(
            r#"{{"tokens": [{{"name": "a", "role": "write", "tokenFile": "/t"}},
                            {{"name": "b", "tokenHash": "{hash}"}}]}}"#
        );
        let keys = keys(&json, &format!("{TOKEN}\n")).unwrap();
        let who = |values: &[&str]| {
            keys.who(&bearer(values), here(), None).map(|who| (who.name, who.role))
        };
        let good = format!("Bearer {TOKEN}");
        assert_eq!(who(&[&good]), Ok(("a".to_owned(), Role::Write)));
        assert_eq!(who(&["bearer another-token-of-somebody"]), Ok(("b".to_owned(), Role::Read)));
        assert_eq!(who(&[]), Err(Stranger::Nobody));
        for wrong in [&["Bearer x"][..], &["Basic x"], &[""], &[TOKEN], &[&good, &good]] {
            assert_eq!(who(wrong), Err(Stranger::Impostor), "{wrong:?}");
        }
        let root = keys.who(&HeaderMap::new(), Place::User(0), None);
        assert_eq!(root, Err(Stranger::Nobody));
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_shown() {
        let json = r#"{"tokens": [{"name": "a", "tokenFile": "/t"}]}"#;
        for file in ["", "short", "two words that are long", &"x".repeat(5000)] {
            let error = keys(json, file).err().unwrap();
            let said = format!("{error:#}");
            assert!(said.contains("`a`") && (file.is_empty() || !said.contains(file)), "{said}");
        }
        let missing = r#"{"tokens": [{"name": "a", "tokenFile": "/nowhere"}]}"#;
        assert!(keys(missing, "").is_err());
    }

    #[test]
    fn a_token_whose_file_is_gone_is_revoked() {
        let json = r#"{"tokens": [{"name": "a", "tokenFile": "/t"}]}"#;
        let config: AdminConfig = serde_json::from_str(json).unwrap();
        let keys = keys(json, TOKEN).unwrap();
        let headers = bearer(&[&format!("Bearer {TOKEN}")]);
        assert!(keys.who(&headers, here(), None).is_ok());
        let again = Keys::read_again(&config, &FakeFiles::default(), &keys);
        assert_eq!(again.who(&headers, here(), None), Err(Stranger::Impostor));
    }

    #[test]
    fn without_tokens_a_socket_knows_its_own_user_and_root() {
        let keys = keys("{}", "").unwrap();
        let own = rustix::process::geteuid().as_raw();
        for user in [0, own] {
            let who = keys.who(&HeaderMap::new(), Place::User(user), None).unwrap();
            assert_eq!((who.name, who.role), (format!("uid {user}"), Role::Write));
        }
        let other = keys.who(&HeaderMap::new(), Place::User(own + 1), None);
        assert_eq!(other, Err(Stranger::Impostor));
        assert_eq!(keys.who(&HeaderMap::new(), here(), None), Err(Stranger::Nobody));
    }

    #[test]
    fn certificates_are_known_by_one_of_their_names() {
        let issued = |common_names: &[&str], sans: &[&str]| {
            let sans: Vec<String> = sans.iter().map(|&name| name.to_owned()).collect();
            let mut params = rcgen::CertificateParams::new(sans).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            for name in common_names {
                params.distinguished_name.push(rcgen::DnType::CommonName, *name);
            }
            let key = rcgen::KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().der().clone()
        };
        let json = r#"{"clientCertificates": [
            {"name": "ops", "commonName": "ops.test", "role": "write"},
            {"name": "ci", "san": "ci.test"}]}"#;
        let keys = keys(json, "").unwrap();
        let who = |der: &CertificateDer<'_>| {
            let who = keys.who(&HeaderMap::new(), here(), Some(der));
            who.map(|who| (who.name, who.role))
        };
        assert_eq!(who(&issued(&["ops.test"], &[])), Ok(("ops".to_owned(), Role::Write)));
        assert_eq!(who(&issued(&["x"], &["a.test", "CI.test"])), Ok(("ci".to_owned(), Role::Read)));
        for (names, sans) in [(&["x"][..], &["ops.test"][..]), (&["Ops.test"], &[])] {
            assert_eq!(who(&issued(names, sans)), Err(Stranger::Impostor), "{names:?} {sans:?}");
        }
    }
}
