//! TLS options made ready: one rustls configuration for each, whatever the number of hosts.
//!
//! Sessions belong to the options that made them. Ticket keys and the session cache live inside
//! `TlsOptions`, which a reload takes over only when name, settings and the bytes of the
//! authorities are the same; so a session can never be resumed under other demands.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificates::CertificateStore;
use super::client_auth::ClientAuth;
use super::config::TlsOptionsConfig;
use super::sessions::Sessions;
use super::suites::Parameters;
use crate::state::SharedState;
use crate::values::{BuildError, Files, Profile};

/// Sessions of TLS 1.2 clients that know no tickets. Some 250 bytes each.
const CACHED_SESSIONS: usize = 1024;

/// Tickets for each full TLS 1.3 handshake: browsers open two connections at once.
const TICKETS: usize = 2;

/// See the module.
pub struct TlsOptions {
    name: Arc<str>,
    sni_strict: bool,
    /// Nobody gets in without a certificate.
    demands_certificate: bool,
    /// Checks the certificate again when a session is resumed.
    recheck: Option<Arc<dyn ClientCertVerifier>>,
    template: ServerConfig,
    latest: Mutex<Weak<TlsProfile>>,
}

impl TlsOptions {
    /// Builds the options, or takes over those that `state` holds for the very same settings.
    pub fn build(
        name: &Arc<str>,
        config: &TlsOptionsConfig,
        files: &dyn Files,
        state: &SharedState,
        profile: Profile,
        warnings: &mut Vec<BuildError>,
    ) -> Result<Arc<Self>, BuildError> {
        let parameters = Parameters::read(config, profile, warnings)?;
        let provider = Arc::new(CryptoProvider {
            cipher_suites: parameters.suites,
            kx_groups: parameters.groups,
            ..aws_lc_rs::default_provider()
        });
        let auth = ClientAuth::read(&config.client_auth, files, &provider, warnings)?;
        let alpn = alpn(config)?;
        let key = format!("tls.options {name}\n{config:?}\n{:?}", auth.authorities);

        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&parameters.versions)
            .map_err(|error| BuildError::new(error.to_string()))?;
        let builder = match &auth.verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut template = builder.with_cert_resolver(Arc::new(Nothing));
        template.alpn_protocols = alpn;
        template.max_early_data_size = 0;
        if config.disable_session_tickets {
            template.session_storage = Arc::new(NoServerSessionStorage {});
            template.send_tls13_tickets = 0;
        } else {
            template.session_storage = Sessions::new(CACHED_SESSIONS);
            template.send_tls13_tickets = TICKETS;
            template.ticketer =
                Ticketer::new().map_err(|error| BuildError::new(error.to_string()))?;
        }
        Ok(state.carry_over(&key, || Self {
            name: Arc::clone(name),
            sni_strict: config.sni_strict,
            demands_certificate: auth
                .verifier
                .as_ref()
                .is_some_and(|verifier| verifier.client_auth_mandatory()),
            recheck: auth.verifier.filter(|_| auth.checked),
            template,
            latest: Mutex::new(Weak::new()),
        }))
    }

    /// Name of the options.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether a client without a certificate is refused.
    pub fn demands_certificate(&self) -> bool {
        self.demands_certificate
    }

    /// These options with the certificates of `store`; the same object as long as both stay.
    pub fn profile(self: &Arc<Self>, store: &Arc<CertificateStore>) -> Arc<TlsProfile> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(profile) = latest.upgrade()
            && Arc::ptr_eq(&profile.store, store)
        {
            return profile;
        }
        let mut config = self.template.clone();
        config.cert_resolver = Arc::new(ByServerName(Arc::clone(store)));
        let profile = Arc::new(TlsProfile {
            options_name: Arc::clone(&self.name),
            config: Arc::new(config),
            options: Arc::clone(self),
            store: Arc::clone(store),
        });
        *latest = Arc::downgrade(&profile);
        profile
    }

    /// These options and their sessions, with what `other` demands of a resumed one.
    #[cfg(test)]
    pub(super) fn rechecking_like(&self, other: &Self) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::clone(&self.name),
            sni_strict: self.sni_strict,
            demands_certificate: other.demands_certificate,
            recheck: other.recheck.clone(),
            template: self.template.clone(),
            latest: Mutex::new(Weak::new()),
        })
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions").field("name", &self.name).finish_non_exhaustive()
    }
}

/// TLS options together with a store of certificates: what a handshake needs.
pub struct TlsProfile {
    /// Name of the options.
    pub options_name: Arc<str>,
    /// For rustls. Chooses the certificate by server name.
    pub config: Arc<ServerConfig>,
    options: Arc<TlsOptions>,
    store: Arc<CertificateStore>,
}

impl TlsProfile {
    /// The configuration for one connection, or `None` when `sniStrict` forbids it.
    ///
    /// A client without a server name gets the certificate for the address that it dialled,
    /// which a resolver cannot see; only then is the configuration copied.
    pub fn for_connection(
        &self,
        server_name: Option<&str>,
        local_ip: IpAddr,
    ) -> Option<Arc<ServerConfig>> {
        let strict = self.options.sni_strict;
        if let Some(name) = server_name {
            let known = !strict || self.store.find(name).is_some();
            return known.then(|| Arc::clone(&self.config));
        }
        match self.store.find_ip(local_ip) {
            Some(key) => {
                let mut config = (*self.config).clone();
                config.cert_resolver = Arc::new(Fixed(Arc::clone(key)));
                Some(Arc::new(config))
            }
            None => (!strict).then(|| Arc::clone(&self.config)),
        }
    }

    /// Whether a client without a certificate is refused.
    pub fn demands_certificate(&self) -> bool {
        self.options.demands_certificate()
    }

    /// What checks the certificate of a client whose session was resumed.
    pub(super) fn recheck(&self) -> Option<&Arc<dyn ClientCertVerifier>> {
        self.options.recheck.as_ref()
    }
}

impl fmt::Debug for TlsProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsProfile").field("options", &self.options_name).finish_non_exhaustive()
    }
}

fn alpn(config: &TlsOptionsConfig) -> Result<Vec<Vec<u8>>, BuildError> {
    if config.alpn_protocols.is_empty() {
        return Ok(vec![b"h2".to_vec(), b"http/1.1".to_vec()]);
    }
    // `acme-tls/1` is Traefik's own third default; a client that got it would get no answer.
    let wanted = config.alpn_protocols.iter().filter(|protocol| *protocol != "acme-tls/1");
    let protocols: Vec<Vec<u8>> = wanted.map(|protocol| protocol.as_bytes().to_vec()).collect();
    if protocols.is_empty() {
        return Err(BuildError::at("alpnProtocols", "none of the protocols is served"));
    }
    if protocols.iter().any(|protocol| protocol.is_empty() || protocol.len() > 255) {
        return Err(BuildError::at("alpnProtocols", "a protocol has 1 to 255 bytes"));
    }
    Ok(protocols)
}

/// Stands in the template, which serves nobody.
#[derive(Debug)]
struct Nothing;

impl ResolvesServerCert for Nothing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[derive(Debug)]
struct ByServerName(Arc<CertificateStore>);

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().and_then(|name| self.0.find(name));
        Some(Arc::clone(found.unwrap_or_else(|| self.0.default_key())))
    }
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
