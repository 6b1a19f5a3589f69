//! Options of `rateLimit.redis`, and how they are read.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use crate::values::{BuildError, FileOrContent, Files, GoDuration, Secret, is_default, pem_error};

/// `redis`: buckets that every router with the middleware, and every proxy, shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RedisConfig {
    /// `host:port` of the server, or of several nodes of a cluster. Default: `localhost:6379`.
    pub endpoints: Vec<String>,
    /// Speak TLS. Default: clear text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTlsConfig>,
    /// Name to log in with. Default: none, which is Redis' user `default`.
    #[serde(skip_serializing_if = "is_default")]
    pub username: String,
    /// Password to log in with. Default: none.
    #[serde(skip_serializing_if = "is_default")]
    pub password: Secret,
    /// Number of the database; a cluster has but one. Default: 0.
    #[serde(skip_serializing_if = "is_default")]
    pub db: i64,
    /// Read, and without effect: a connection carries any number of requests at once.
    #[serde(skip_serializing_if = "is_default")]
    pub pool_size: i64,
    /// Read, and without effect: a connection that was opened stays.
    #[serde(skip_serializing_if = "is_default")]
    pub min_idle_conns: i64,
    /// How many connections there may be to a server. Default: 0, one per worker.
    #[serde(skip_serializing_if = "is_default")]
    pub max_active_conns: i64,
    /// How long a request waits for Redis, for all it takes together. Default: 3s; 0: no limit.
    pub read_timeout: GoDuration,
    /// How long a server may leave what was sent to it unacknowledged. Default: 3s; 0: no limit.
    pub write_timeout: GoDuration,
    /// How long it may take to connect and to log in. Default, also for 0: 5s.
    pub dial_timeout: GoDuration,
}

/// `redis.tls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RedisTlsConfig {
    /// Authorities that are believed, as a file or as PEM. Default: the system's.
    #[serde(skip_serializing_if = "FileOrContent::is_empty")]
    pub ca: FileOrContent,
    /// Our certificate, as a file or as PEM. Default: none.
    #[serde(skip_serializing_if = "FileOrContent::is_empty")]
    pub cert: FileOrContent,
    /// The key of our certificate, as a file or as PEM.
    #[serde(skip_serializing_if = "FileOrContent::is_empty")]
    pub key: FileOrContent,
    /// Believe any certificate. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub insecure_skip_verify: bool,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            endpoints: vec!["localhost:6379".into()],
            tls: None,
            username: String::new(),
            password: Secret::default(),
            db: 0,
            pool_size: 0,
            min_idle_conns: 0,
            max_active_conns: 0,
            read_timeout: GoDuration::from_secs(3),
            write_timeout: GoDuration::from_secs(3),
            dial_timeout: GoDuration::from_secs(5),
        }
    }
}

/// A place where Redis may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

/// What the files of `tls` hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) ca: Option<Vec<u8>>,
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
    pub(super) insecure: bool,
}

impl RedisConfig {
    /// Tells of what is written without an effect, or means something else than it says.
    pub(super) fn warn(&self, warnings: &mut Vec<BuildError>) {
        for (option, value, why) in [
            ("poolSize", self.pool_size, "a connection carries any number of requests at once"),
            ("minIdleConns", self.min_idle_conns, "a connection that was opened stays"),
        ] {
            if value != 0 {
                let message = format!("`redis.{option}` has no effect: {why}");
                warnings.push(BuildError::at(format!("redis.{option}"), message));
            }
        }
        if self.max_active_conns < 0 {
            let message = format!(
                "`redis.maxActiveConns` is {}, which means 0: one connection per worker",
                self.max_active_conns
            );
            warnings.push(BuildError::at("redis.maxActiveConns", message));
        }
        for (option, time, means) in [
            ("readTimeout", self.read_timeout, "there is no limit"),
            ("writeTimeout", self.write_timeout, "there is no limit"),
            ("dialTimeout", self.dial_timeout, "it is 5s"),
        ] {
            if time.is_negative() {
                let message = format!("`redis.{option}` is {time}, which means 0: {means}");
                warnings.push(BuildError::at(format!("redis.{option}"), message));
            }
        }
    }

    /// Where Redis is; never empty.
    pub(super) fn places(&self) -> Result<Vec<Endpoint>, BuildError> {
        if self.db < 0 {
            return Err(BuildError::at("redis.db", "`db` is the number of a database, 0 or above"));
        }
        let default = Self::default().endpoints;
        let texts = if self.endpoints.is_empty() { &default } else { &self.endpoints };
        let place = |(index, text): (usize, &String)| {
            endpoint(text).ok_or_else(|| {
                let message = format!("{text:?} is no address of Redis: write `host:port`");
                BuildError::at(format!("redis.endpoints[{index}]"), message)
            })
        };
        texts.iter().enumerate().map(place).collect()
    }
}

impl RedisTlsConfig {
    /// Reads the files.
    pub(super) fn read(&self, files: &dyn Files) -> Result<Tls, BuildError> {
        let read = |option: &str, source: &FileOrContent| {
            if source.is_empty() {
                return Ok(None);
            }
            source.read(files).map(|pem| Some(pem.to_vec())).map_err(|error| {
                BuildError::at(format!("redis.tls.{option}"), format!("cannot be read: {error}"))
            })
        };
        let identity = match (read("cert", &self.cert)?, read("key", &self.key)?) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                certificates("redis.tls.cert", &cert)?;
                PrivateKeyDer::from_pem_slice(&key).map_err(|error| {
                    let message = format!("no private key inside: {}", pem_error(&error));
                    BuildError::at("redis.tls.key", message)
                })?;
                Some((cert, key))
            }
            _ => {
                return Err(BuildError::at("redis.tls", "both TLS cert and key must be defined"));
            }
        };
        let ca = read("ca", &self.ca)?;
        if let Some(pem) = &ca {
            certificates("redis.tls.ca", pem)?;
        }
        Ok(Tls { ca, identity, insecure: self.insecure_skip_verify })
    }
}

/// Checked here, because the errors of the client of Redis would quote the PEM.
fn certificates(option: &str, pem: &[u8]) -> Result<(), BuildError> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        certificate.map_err(|error| BuildError::at(option, pem_error(&error)))?;
        count += 1;
    }
    if count == 0 {
        return Err(BuildError::at(option, "it holds no certificate"));
    }
    Ok(())
}

fn endpoint(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|&port| port > 0)?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(ip) => ip,
        None if host.contains([':', '/', '@']) => return None,
        // As Go: `:6379` is this machine.
        None if host.is_empty() => "localhost",
        None => host,
    };
    Some(Endpoint { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::testing::FakeFiles;

    #[test]
    fn the_defaults_are_traefiks() {
        let config: RedisConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(config, RedisConfig::default());
        let places = config.places().unwrap();
        assert_eq!(places, [Endpoint { host: "localhost".into(), port: 6379 }]);
        let none = RedisConfig { endpoints: Vec::new(), ..config };
        assert_eq!(none.places().unwrap(), places);
        let shown = serde_json::to_value(RedisConfig {
            password: Secret::from("hush".to_owned()),
            ..RedisConfig::default()
        });
        assert_eq!(
            shown.unwrap(),
            serde_json::json!({
                "endpoints": ["localhost:6379"], "password": "xxxx",
                "readTimeout": "3s", "writeTimeout": "3s", "dialTimeout": "5s"
            })
        );
    }

    #[test]
    fn endpoints_have_a_host_and_a_port() {
        for (text, want) in [
            ("redis:6379", Some(("redis", 6379))),
            ("10.0.0.1:1", Some(("10.0.0.1", 1))),
            ("[::1]:6379", Some(("::1", 6379))),
            (":6379", Some(("localhost", 6379))),
            ("redis", None),
            ("redis:", None),
            ("redis:0", None),
            ("::1:6379", None),
            ("redis://redis:6379", None),
            ("redis:65536", None),
        ] {
            let want = want.map(|(host, port)| Endpoint { host: host.to_owned(), port });
            assert_eq!(endpoint(text), want, "{text}");
        }
        let config =
            RedisConfig { endpoints: vec!["a:1".into(), "b".into()], ..RedisConfig::default() };
        assert_eq!(config.places().unwrap_err().option, "redis.endpoints[1]");
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let line = key.replace('\n', " ");
        let files = [("/ca", pem), ("/key", key), ("/line", &line), ("/empty", "")];
        let files = files.map(|(name, text)| (name.into(), text.into()));
        let files = FakeFiles(files.into());
        let tls = |ca: &str, cert: &str, key: &str| {
            RedisTlsConfig {
                ca: ca.into(),
                cert: cert.into(),
                key: key.into(),
                ..Default::default()
            }
            .read(&files)
        };
        assert_eq!(
            tls("/ca", "", "").unwrap(),
            Tls { ca: Some(pem.into()), identity: None, insecure: false }
        );
        assert!(tls("", "/ca", "/key").unwrap().identity.is_some());
        for (ca, cert, key) in [("/line", "", ""), ("", "/line", "/key"), ("", "/ca", "/line")] {
            let error = tls(ca, cert, key).unwrap_err();
            assert!(error.message.contains("line breaks lost"), "{error:?}");
        }
        assert_eq!(tls("", "/ca", "").unwrap_err().option, "redis.tls");
        assert_eq!(tls("/none", "", "").unwrap_err().option, "redis.tls.ca");
        assert_eq!(tls("/empty", "", "").unwrap_err().option, "redis.tls.ca");
    }
}
