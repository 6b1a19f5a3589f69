//! `admin`, a section of the static configuration that is Doorward's own, and what it must fulfil.
//!
//! Where it can be reached from other machines there is TLS, and where anybody can connect there is
//! a credential: anything else is an error, not a warning.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use http::uri::Authority;
use serde::{Deserialize, Serialize};

use super::call::Role;
use crate::values::{BuildError, FileOrContent, Secret, is_default};

/// `admin`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AdminConfig {
    /// IP address and port to listen at. This, or `socket`. Beyond the loopback address it demands
    /// `tls`, and everywhere `tokens` or `clientCertificates`.
    #[serde(skip_serializing_if = "is_default")]
    pub address: String,
    /// Absolute path of a Unix socket, which gets the mode 0600. Without `tokens`, root and the
    /// user that Doorward runs as may write.
    #[serde(skip_serializing_if = "is_default")]
    pub socket: PathBuf,
    /// TLS for `address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<AdminTlsConfig>,
    /// Who is let in by `Authorization: Bearer`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenConfig>,
    /// Who is let in by a certificate. Demands `tls.clientCAFiles`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client_certificates: Vec<ClientCertificateConfig>,
    /// Values of `Host` that are answered: `name` or `name:port`. Default: the host of `address`,
    /// `localhost`, `127.0.0.1` and `[::1]`, with any port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Values of `Origin` that are answered. Default: none, so no page in a browser gets in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// File that gets a line of JSON for every change, besides the log. What cannot be written
    /// there is not done. Default: no file.
    #[serde(skip_serializing_if = "is_default")]
    pub audit_log: PathBuf,
}

/// `admin.tls`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AdminTlsConfig {
    /// The certificate, with those that lead to its authority (file or PEM). Required.
    pub cert_file: FileOrContent,
    /// Its key (file or PEM). Required.
    pub key_file: FileOrContent,
    /// Authorities of the clients (files or PEM). With them a certificate is demanded, except of a
    /// client that has a token, if there are both `tokens` and `clientCertificates`.
    #[serde(rename = "clientCAFiles", skip_serializing_if = "Vec::is_empty")]
    pub client_ca_files: Vec<FileOrContent>,
}

/// One of `admin.tokens`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TokenConfig {
    /// Name for the audit log. Required.
    pub name: String,
    /// What it may do: `read` or `write`. Default: `read`.
    pub role: Role,
    /// File that holds the token, at least 16 characters. It is read at start and on SIGHUP. This,
    /// or `tokenHash`.
    #[serde(skip_serializing_if = "is_default")]
    pub token_file: PathBuf,
    /// SHA-256 of the token in hexadecimal.
    #[serde(skip_serializing_if = "is_default")]
    pub token_hash: Secret,
}

/// One of `admin.clientCertificates`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientCertificateConfig {
    /// Name for the audit log. Required.
    pub name: String,
    /// What it may do: `read` or `write`. Default: `read`.
    pub role: Role,
    /// The only common name of its subject. This, or `san`.
    #[serde(skip_serializing_if = "is_default")]
    pub common_name: String,
    /// One of its alternative names: of a host, a URI or an e-mail address.
    #[serde(skip_serializing_if = "is_default")]
    pub san: String,
}

/// Longest path that a Unix socket can have.
const LONGEST_SOCKET: usize = 107;

impl AdminConfig {
    /// Everything that is wrong with it, by option.
    pub fn check(&self) -> Vec<BuildError> {
        let mut found = Vec::new();
        match (self.address.is_empty(), self.socket.as_os_str().is_empty()) {
            (true, true) => found.push(BuildError::new("`address` or `socket` is required")),
            (false, false) => {
                let message = "`address` and `socket` exclude each other";
                found.push(BuildError::at("socket", message));
            }
            (false, true) => self.check_address(&mut found),
            (true, false) => self.check_socket(&mut found),
        }
        self.check_tls(&mut found);
        self.check_credentials(&mut found);
        for (index, host) in self.hosts.iter().enumerate() {
            if host.parse::<Authority>().is_err() || host.contains('@') {
                let message = format!("`{host}` is no host: write `name` or `name:port`");
                found.push(BuildError::at(format!("hosts[{index}]"), message));
            }
        }
        for (index, origin) in self.origins.iter().enumerate() {
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            if host.is_empty() || host.contains('/') {
                let message = format!("`{origin}` is no origin: write `https://name` as browsers");
                found.push(BuildError::at(format!("origins[{index}]"), message));
            }
        }
        found
    }

    /// Where to listen; `None` for a socket, or if it makes no sense.
    pub(super) fn socket_address(&self) -> Option<SocketAddr> {
        if let Some(port) = self.address.strip_prefix("localhost:") {
            return Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?)));
        }
        self.address.parse().ok()
    }

    fn check_address(&self, found: &mut Vec<BuildError>) {
        let Some(address) = self.socket_address() else {
            let message = format!(
                "`{}` is no IP address with a port: write for example `127.0.0.1:8081`",
                self.address
            );
            found.push(BuildError::at("address", message));
            return;
        };
        if !address.ip().to_canonical().is_loopback() && self.tls.is_none() {
            let message =
                format!("`{address}` can be reached from other machines: `admin.tls` is required");
            found.push(BuildError::at("address", message));
        }
        if self.tokens.is_empty() && self.client_certificates.is_empty() {
            let message = "anybody could connect: `tokens` or `clientCertificates` is required";
            found.push(BuildError::at("address", message));
        }
    }

    fn check_socket(&self, found: &mut Vec<BuildError>) {
        if !self.socket.is_absolute() || self.socket.as_os_str().len() > LONGEST_SOCKET {
            let message =
                format!("`admin.socket` is an absolute path of at most {LONGEST_SOCKET} bytes");
            found.push(BuildError::at("socket", message));
        }
        if self.tls.is_some() {
            found.push(BuildError::at("tls", "a socket of the file system has no TLS"));
        }
    }

    fn check_tls(&self, found: &mut Vec<BuildError>) {
        let authorities = self.tls.as_ref().is_some_and(|tls| !tls.client_ca_files.is_empty());
        if let Some(tls) = &self.tls {
            for (option, value) in
                [("tls.certFile", &tls.cert_file), ("tls.keyFile", &tls.key_file)]
            {
                if value.is_empty() {
                    found.push(BuildError::at(option, format!("`admin.{option}` is required")));
                }
            }
        }
        if !self.client_certificates.is_empty() && !authorities {
            let message = "`clientCertificates` demands `tls.clientCAFiles`";
            found.push(BuildError::at("clientCertificates", message));
        }
    }

    fn check_credentials(&self, found: &mut Vec<BuildError>) {
        let mut names = BTreeSet::new();
        let mut name = |option: String, name: &str, found: &mut Vec<BuildError>| {
            if name.is_empty() {
                found.push(BuildError::at(option, "`name` is required"));
            } else if !names.insert(name.to_owned()) {
                found.push(BuildError::at(option, format!("`{name}` is the name of two")));
            }
        };
        for (index, token) in self.tokens.iter().enumerate() {
            let place = format!("tokens[{index}]");
            name(format!("{place}.name"), &token.name, found);
            let hash = token.token_hash.expose();
            if is_empty(&token.token_file) == hash.is_empty() {
                found.push(BuildError::at(&*place, "write either `tokenFile` or `tokenHash`"));
            } else if !hash.is_empty() && !is_sha256(hash) {
                let message = "`tokenHash` is a SHA-256 in 64 hexadecimal digits";
                found.push(BuildError::at(format!("{place}.tokenHash"), message));
            }
        }
        for (index, certificate) in self.client_certificates.iter().enumerate() {
            let place = format!("clientCertificates[{index}]");
            name(format!("{place}.name"), &certificate.name, found);
            if certificate.common_name.is_empty() == certificate.san.is_empty() {
                found.push(BuildError::at(place, "write either `commonName` or `san`"));
            }
        }
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(json: &str) -> Vec<String> {
        let config: AdminConfig = serde_json::from_str(json).unwrap();
        config.check().into_iter().map(|error| error.option).collect()
    }

    const TOKEN: &str = r#""tokens": [{"name": "a", "role": "write", "tokenFile": "/t"}]"#;
    const TLS: &str = r#""tls": {"certFile": "c", "keyFile": "k", "clientCAFiles": ["a"]}"#;

    #[test]
    fn what_stands_by_itself() {
        for json in [
            format!(r#"{{"address": "127.0.0.1:8081", {TOKEN}}}"#),
            format!(r#"{{"address": "localhost:8081", {TOKEN}}}"#),
            format!(r#"{{"address": "[::1]:0", {TOKEN}}}"#),
            format!(r#"{{"address": "0.0.0.0:1", {TOKEN}, {TLS}}}"#),
            format!(
                r#"{{"address": "10.0.0.1:1", {TLS},
                     "clientCertificates": [{{"name": "a", "san": "spiffe://a"}}]}}"#
            ),
            r#"{"socket": "/run/a.sock"}"#.to_owned(),
            format!(r#"{{"socket": "/run/a.sock", {TOKEN}}}"#),
        ] {
            assert_eq!(wrong(&json), [""; 0], "{json}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let hash = "0123456789abcdef".repeat(4);
        for (json, options) in [
            ("{}".to_owned(), &[""][..]),
            (format!(r#"{{"address": "127.0.0.1:1", "socket": "/a", {TOKEN}}}"#), &["socket"]),
            (format!(r#"{{"address": "8081", {TOKEN}}}"#), &["address"]),
            (r#"{"address": "127.0.0.1:1"}"#.to_owned(), &["address"]),
            (format!(r#"{{"address": "10.0.0.1:1", {TOKEN}}}"#), &["address"]),
            (r#"{"address": "0.0.0.0:1"}"#.to_owned(), &["address", "address"]),
            (r#"{"socket": "a.sock"}"#.to_owned(), &["socket"]),
            (format!(r#"{{"socket": "/{}"}}"#, "x".repeat(107)), &["socket"]),
            (format!(r#"{{"socket": "/a", {TLS}}}"#), &["tls"]),
            (
                format!(r#"{{"address": "127.0.0.1:1", "tls": {{}}, {TOKEN}}}"#),
                &["tls.certFile", "tls.keyFile"],
            ),
            (
                r#"{"address": "127.0.0.1:1", "clientCertificates": [{"commonName": "a"}]}"#
                    .to_owned(),
                &["clientCertificates", "clientCertificates[0].name"],
            ),
            (
                format!(
                    r#"{{"socket": "/a", "tokens": [{{"name": "a"}}, {{"name": "a", "tokenHash": "{hash}"}},
                         {{"tokenHash": "xx"}}]}}"#
                ),
                &["tokens[0]", "tokens[1].name", "tokens[2].name", "tokens[2].tokenHash"],
            ),
            (
                r#"{"socket": "/a", "hosts": ["a:1", "u@a", "a/b"], "origins": ["https://a", "a", "https://a/"]}"#
                    .to_owned(),
                &["hosts[1]", "hosts[2]", "origins[1]", "origins[2]"],
            ),
        ] {
            assert_eq!(wrong(&json), options, "{json}");
        }
    }

    #[test]
    fn hashes_are_not_shown() {
        let json = r#"{"tokens": [{"name": "a", "tokenHash": "beef"}]}"#;
        let config: AdminConfig = serde_json::from_str(json).unwrap();
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("beef"), "{shown}");
    }
}
