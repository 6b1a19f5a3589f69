//! The certificates of one configuration, found by server name in constant time.
//!
//! A name is looked up as it is, then as `*.` and its rest (one label only), then the default
//! certificate serves. Among certificates with the same name the greater identifier list wins
//! (Traefik's order), then the longer life, then the fingerprint, so every reload chooses alike.

use std::collections::HashMap as StdMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use super::certificate::{CertificateInfo, LoadedCertificate};
use super::config::{CertificateConfig, TlsStoreConfig};
use crate::state::SharedState;
use crate::values::{BuildError, FileOrContent, Files};

type Index = HashMap<Box<str>, Arc<LoadedCertificate>, RandomState>;
type Source = (Box<Path>, Box<Path>);
type Generated = Result<Arc<LoadedCertificate>, BuildError>;

/// See the module.
pub struct CertificateStore {
    /// Names without a star.
    exact: Index,
    /// Names with one, by what follows `*.`.
    wildcard: Index,
    default: Arc<LoadedCertificate>,
    /// What was loaded, in configuration order, the configured default last.
    entries: Vec<Entry>,
    /// Keeps the self-signed certificate for the next store, although this one may not serve it.
    generated: Option<Arc<Generated>>,
}

struct Entry {
    /// The files that it came from, if both were files.
    source: Option<Source>,
    digest: [u8; 32],
    loaded: Arc<LoadedCertificate>,
}

/// What became of a certificate that could not be used as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Left out.
    Skipped,
    /// The pair that these files held before stays in use.
    KeptPrevious,
    /// The self-signed certificate stands in for the default certificate.
    Generated,
    /// Taken, and never chosen: it belongs to another store than `default`.
    NeverChosen,
}

/// A certificate that could not be used as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateProblem {
    /// Index among the certificates given; `None`: the default store.
    pub index: Option<usize>,
    /// What happened instead.
    pub consequence: Consequence,
    /// What is wrong.
    pub error: BuildError,
}

/// What building a store returns.
pub struct StoreBuild {
    /// The store; the previous one, when nothing changed.
    pub store: Arc<CertificateStore>,
    /// What could not be used as it is written.
    pub problems: Vec<CertificateProblem>,
}

impl CertificateStore {
    /// Loads `certificates` and the default of the store `default`.
    ///
    /// What `previous` loaded from the same bytes is not parsed again, and a pair of files that
    /// does not load now keeps what it was in `previous`. Fails only if not even a self-signed
    /// certificate can be made.
    pub fn build<'a>(
        certificates: impl IntoIterator<Item = &'a CertificateConfig>,
        default: Option<&TlsStoreConfig>,
        files: &dyn Files,
        state: &SharedState,
        previous: Option<&Arc<Self>>,
    ) -> Result<StoreBuild, BuildError> {
        let mut loader = Loader::new(files, previous);
        for (index, certificate) in certificates.into_iter().enumerate() {
            let stores = &certificate.stores;
            if !stores.is_empty() && !stores.iter().any(|store| store == "default") {
                let message = "only the store `default` is ever consulted";
                loader.problems.push(CertificateProblem {
                    index: Some(index),
                    consequence: Consequence::NeverChosen,
                    error: BuildError::at("stores", message),
                });
                loader.look(index, certificate);
                continue;
            }
            loader.load(Some(index), &certificate.cert_file, &certificate.key_file);
        }
        let listed = loader.entries.len();
        let default = default.and_then(|store| loader.default(store));
        let Loader { entries, problems, provider, .. } = loader;

        let mut generated = previous.and_then(|store| store.generated.clone());
        let default = if let Some(default) = default {
            default
        } else {
            let made = state.carry_over("tls.generated_certificate", || {
                LoadedCertificate::generate(&provider).map(Arc::new)
            });
            let default = Arc::clone(made.as_ref().as_ref().map_err(Clone::clone)?);
            generated = Some(made);
            default
        };
        if let Some(previous) = previous
            && Arc::ptr_eq(&previous.default, &default)
            && previous.entries.len() == entries.len()
            && previous.entries.iter().zip(&entries).all(|(old, new)| old.same(new))
        {
            return Ok(StoreBuild { store: Arc::clone(previous), problems });
        }
        let (mut exact, mut wildcard) = (Index::default(), Index::default());
        for entry in entries.iter().take(listed) {
            for identifier in &entry.loaded.identifiers {
                match identifier.strip_prefix("*.") {
                    Some(rest) => keep_greater(&mut wildcard, rest, &entry.loaded),
                    None => keep_greater(&mut exact, identifier, &entry.loaded),
                }
            }
        }
        let store = Arc::new(Self { exact, wildcard, default, entries, generated });
        Ok(StoreBuild { store, problems })
    }

    /// The certificate for a server name in lower case, unless only the default one would do.
    pub fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let found = self.exact.get(name).or_else(|| {
            let (_, rest) = name.split_once('.')?;
            self.wildcard.get(rest)
        });
        found.map(|loaded| &loaded.key)
    }

    /// The certificate for a client that dialled `ip` and named no server.
    pub fn find_ip(&self, ip: IpAddr) -> Option<&Arc<CertifiedKey>> {
        self.exact.get(ip.to_canonical().to_string().as_str()).map(|loaded| &loaded.key)
    }

    /// What is served when nothing fits.
    pub fn default_key(&self) -> &Arc<CertifiedKey> {
        &self.default.key
    }

    /// What the API and the metrics show: each certificate once, without the self-signed one.
    pub fn infos(&self) -> impl Iterator<Item = &CertificateInfo> {
        let mut seen = std::collections::HashSet::new();
        let infos = self.entries.iter().map(|entry| &entry.loaded.info);
        infos.filter(move |info| seen.insert(info.cert_fingerprint.as_str()))
    }
}

impl std::fmt::Debug for CertificateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateStore").field("len", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Entry {
    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.loaded, &other.loaded) && self.source == other.source
    }
}

fn keep_greater(index: &mut Index, name: &str, loaded: &Arc<LoadedCertificate>) {
    index
        .entry_ref(name)
        .and_modify(|kept| {
            if loaded.rank() > kept.rank() {
                *kept = Arc::clone(loaded);
            }
        })
        .or_insert_with(|| Arc::clone(loaded));
}

/// Loads pairs, each different one once.
struct Loader<'a> {
    files: &'a dyn Files,
    provider: CryptoProvider,
    known: StdMap<[u8; 32], Arc<LoadedCertificate>>,
    last_good: StdMap<&'a Source, &'a Entry>,
    entries: Vec<Entry>,
    problems: Vec<CertificateProblem>,
}

impl<'a> Loader<'a> {
    fn new(files: &'a dyn Files, previous: Option<&'a Arc<CertificateStore>>) -> Self {
        let before = previous.map_or(&[][..], |store| &store.entries);
        let known = before.iter().map(|entry| (entry.digest, Arc::clone(&entry.loaded)));
        let last_good = before.iter().filter_map(|entry| Some((entry.source.as_ref()?, entry)));
        Self {
            files,
            provider: aws_lc_rs::default_provider(),
            known: known.collect(),
            last_good: last_good.collect(),
            entries: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Loads one pair into `entries`, or says why not.
    fn load(
        &mut self,
        index: Option<usize>,
        certificate: &FileOrContent,
        key: &FileOrContent,
    ) -> Option<Arc<LoadedCertificate>> {
        let source: Option<Source> = (!certificate.is_content() && !key.is_content())
            .then(|| (certificate.path().into(), key.path().into()));
        let (digest, loaded) = match self.read(certificate, key) {
            Ok(pair) => pair,
            Err(error) => {
                let kept = source.as_ref().and_then(|source| self.last_good.get(source).copied());
                let consequence = match (kept, index) {
                    (Some(_), _) => Consequence::KeptPrevious,
                    (None, Some(_)) => Consequence::Skipped,
                    (None, None) => Consequence::Generated,
                };
                self.problems.push(CertificateProblem { index, consequence, error });
                let kept = kept?;
                (kept.digest, Arc::clone(&kept.loaded))
            }
        };
        self.entries.push(Entry { source, digest, loaded: Arc::clone(&loaded) });
        Some(loaded)
    }

    /// Says what of a pair that nobody asks for cannot even be read.
    fn look(&mut self, index: usize, pair: &CertificateConfig) {
        for (option, from) in [("certFile", &pair.cert_file), ("keyFile", &pair.key_file)] {
            if let Err(error) = read(self.files, option, from) {
                let consequence = Consequence::Skipped;
                self.problems.push(CertificateProblem { index: Some(index), consequence, error });
            }
        }
    }

    fn read(
        &mut self,
        certificate: &FileOrContent,
        key: &FileOrContent,
    ) -> Result<([u8; 32], Arc<LoadedCertificate>), BuildError> {
        let certificate_bytes = read(self.files, "certFile", certificate)?;
        let key_bytes = read(self.files, "keyFile", key)?;
        let mut digest = Sha256::new();
        digest.update((certificate_bytes.len() as u64).to_be_bytes());
        digest.update(&certificate_bytes);
        digest.update(&key_bytes);
        let digest = digest.finalize().into();
        if let Some(loaded) = self.known.get(&digest) {
            return Ok((digest, Arc::clone(loaded)));
        }
        let loaded = LoadedCertificate::from_pem(&certificate_bytes, &key_bytes, &self.provider)?;
        let loaded = Arc::new(loaded);
        self.known.insert(digest, Arc::clone(&loaded));
        Ok((digest, loaded))
    }

    fn default(&mut self, store: &TlsStoreConfig) -> Option<Arc<LoadedCertificate>> {
        if let Some(pair) = &store.default_certificate {
            return self.load(None, &pair.cert_file, &pair.key_file).or_else(|| {
                // The problem was found by `load`; here it only gets its place in the store.
                let problem = self.problems.last_mut()?;
                problem.error.option = format!("defaultCertificate.{}", problem.error.option);
                None
            });
        }
        if store.default_generated_cert.is_some() {
            self.problems.push(CertificateProblem {
                index: None,
                consequence: Consequence::Generated,
                error: BuildError::unsupported("defaultGeneratedCert"),
            });
        }
        None
    }
}

fn read(files: &dyn Files, option: &str, from: &FileOrContent) -> Result<Arc<[u8]>, BuildError> {
    if from.is_empty() {
        return Err(BuildError::at(option, format!("{option} is required")));
    }
    from.read(files).map_err(|error| BuildError::at(option, format!("{from:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::CertificatePairConfig;
    use crate::tls::tests::{Ca, MemoryFiles, Pair, config_of};

    fn build(certificates: &[CertificateConfig], files: &dyn Files) -> StoreBuild {
        CertificateStore::build(certificates, None, files, &SharedState::default(), None).unwrap()
    }

    fn inline(pairs: &[&Pair]) -> Vec<CertificateConfig> {
        pairs.iter().map(|pair| config_of(pair)).collect()
    }

    fn der(pair: &Pair) -> Vec<u8> {
        use rustls_pki_types::pem::PemObject as _;
        rustls_pki_types::CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap().to_vec()
    }

    fn serves(found: Option<&Arc<CertifiedKey>>, pair: &Pair) -> bool {
        found.is_some_and(|key| key.cert[0].to_vec() == der(pair))
    }

    #[test]
    fn exact_names_win_and_a_star_is_one_label() {
        let ca = Ca::new("ca");
        let exact = ca.issue("x.a.test", &["x.a.test"]);
        let star = ca.issue("", &["*.a.test"]);
        let store = build(&inline(&[&star, &exact]), &MemoryFiles::default()).store;
        assert!(serves(store.find("x.a.test"), &exact));
        assert!(serves(store.find("x.a.test."), &exact));
        assert!(serves(store.find("y.a.test"), &star));
        for none in ["a.test", "x.y.a.test", "test", "", ".", "b.test", "*.b.test"] {
            assert!(store.find(none).is_none(), "{none}");
        }
    }

    /// T-74
    #[test]
    fn a_shared_name_is_decided_by_list_then_life_then_fingerprint() {
        let ca = Ca::new("ca");
        let low = ca.issue("", &["a.test", "b.test"]);
        let high = ca.issue("", &["b.test", "c.test"]);
        let (young, old) = (ca.issue_for("", &["c.test"], 300), ca.issue_for("", &["c.test"], 30));
        for order in [[&low, &high, &young, &old], [&old, &young, &high, &low]] {
            let store = build(&inline(&order), &MemoryFiles::default()).store;
            assert!(serves(store.find("b.test"), &high));
            assert!(serves(store.find("a.test"), &low));
            assert!(serves(store.find("c.test"), &young));
            assert_eq!(store.infos().count(), 4);
        }
    }

    #[test]
    fn the_address_serves_clients_without_a_name() {
        let ca = Ca::new("ca");
        let pair = ca.issue("", &["10.0.0.1"]);
        let store = build(&inline(&[&pair]), &MemoryFiles::default()).store;
        assert!(serves(store.find_ip("10.0.0.1".parse().unwrap()), &pair));
        assert!(serves(store.find_ip("::ffff:10.0.0.1".parse().unwrap()), &pair));
        assert!(store.find_ip("10.0.0.2".parse().unwrap()).is_none());
    }

    #[test]
    fn a_pair_that_does_not_match_keeps_the_last_good_one() {
        let ca = Ca::new("ca");
        let files = MemoryFiles::default();
        let (old, new) = (ca.issue("", &["a.test"]), ca.issue("", &["a.test"]));
        files.put("a.pem", &old.cert);
        files.put("a.key", &old.key);
        let config = [CertificateConfig {
            cert_file: "a.pem".into(),
            key_file: "a.key".into(),
            ..Default::default()
        }];
        let state = SharedState::default();
        let again = |previous: &Arc<CertificateStore>| {
            CertificateStore::build(&config, None, &files, &state, Some(previous)).unwrap()
        };
        let first = CertificateStore::build(&config, None, &files, &state, None).unwrap();
        assert!(first.problems.is_empty());
        assert!(Arc::ptr_eq(&again(&first.store).store, &first.store), "nothing changed");

        files.put("a.pem", &new.cert);
        let half = again(&first.store);
        assert_eq!(half.problems[0].consequence, Consequence::KeptPrevious);
        assert_eq!(half.problems[0].index, Some(0));
        assert!(serves(half.store.find("a.test"), &old));
        files.remove("a.pem");
        let gone = again(&half.store);
        assert_eq!(gone.problems[0].consequence, Consequence::KeptPrevious);
        assert!(serves(gone.store.find("a.test"), &old));

        files.put("a.pem", &new.cert);
        files.put("a.key", &new.key);
        let whole = again(&gone.store);
        assert!(whole.problems.is_empty());
        assert!(serves(whole.store.find("a.test"), &new));
    }

    #[test]
    fn a_broken_certificate_is_skipped_and_the_others_serve() {
        let ca = Ca::new("ca");
        let (a, b) = (ca.issue("", &["a.test"]), ca.issue("", &["b.test"]));
        let mut config = inline(&[&a, &b]);
        config[0].key_file = b.key.as_str().into();
        let built = build(&config, &MemoryFiles::default());
        assert_eq!(built.problems[0].consequence, Consequence::Skipped);
        assert!(built.store.find("a.test").is_none());
        assert!(serves(built.store.find("b.test"), &b));
    }

    #[test]
    fn other_stores_are_never_asked() {
        let ca = Ca::new("ca");
        let mut config = inline(&[&ca.issue("", &["a.test"])]);
        config[0].stores = vec!["other".to_owned()];
        let built = build(&config, &MemoryFiles::default());
        assert_eq!(built.problems[0].consequence, Consequence::NeverChosen);
        assert_eq!(built.problems.len(), 1);
        assert!(built.store.find("a.test").is_none());

        config[0].key_file = "gone.key".into();
        let built = build(&config, &MemoryFiles::default());
        let said = built.problems.iter().map(|one| (one.consequence, &*one.error.option));
        let wanted = [(Consequence::NeverChosen, "stores"), (Consequence::Skipped, "keyFile")];
        assert!(said.eq(wanted), "{:?}", built.problems);
    }

    #[test]
    fn the_self_signed_certificate_stays_the_same_and_stands_in() {
        let (ca, state) = (Ca::new("ca"), SharedState::default());
        let files = MemoryFiles::default();
        let pair = ca.issue("", &["default.test"]);
        let good = CertificatePairConfig {
            cert_file: pair.cert.as_str().into(),
            key_file: pair.key.as_str().into(),
        };
        let missing =
            CertificatePairConfig { cert_file: "gone.pem".into(), key_file: "gone.key".into() };
        let with = |pair: &CertificatePairConfig| TlsStoreConfig {
            default_certificate: Some(pair.clone()),
            ..Default::default()
        };
        let none = CertificateStore::build([], None, &files, &state, None).unwrap();
        let generated = none.store.default_key().cert[0].clone();
        assert_eq!(none.store.infos().count(), 0);

        let build = |store: &TlsStoreConfig, previous: &Arc<CertificateStore>| {
            CertificateStore::build([], Some(store), &files, &state, Some(previous)).unwrap()
        };
        let own = build(&with(&good), &none.store);
        assert!(serves(Some(own.store.default_key()), &pair));
        assert!(own.store.find("default.test").is_none(), "the default is no candidate");
        assert_eq!(own.store.infos().count(), 1);
        drop(none);

        let broken = build(&with(&missing), &own.store);
        assert_eq!(broken.problems[0].consequence, Consequence::Generated);
        assert_eq!(broken.problems[0].error.option, "defaultCertificate.certFile");
        assert_eq!(broken.store.default_key().cert[0], generated);
    }

    #[test]
    fn a_thousand_certificates_are_parsed_once() {
        let (ca, files) = (Ca::new("ca"), MemoryFiles::default());
        let pairs: Vec<Pair> = (0..1000).map(|n| ca.issue("", &[&format!("h{n}.test")])).collect();
        let mut config: Vec<_> = pairs.iter().map(config_of).collect();
        config.push(config[0].clone());
        let first = build(&config, &files);
        assert!(first.problems.is_empty());
        assert!(serves(first.store.find("h999.test"), &pairs[999]));
        assert_eq!(first.store.infos().count(), 1000, "the same pair twice is one certificate");

        let (state, previous) = (SharedState::default(), Some(&first.store));
        let next = CertificateStore::build(&config[1..], None, &files, &state, previous);
        let next = next.unwrap().store;
        assert!(!Arc::ptr_eq(&next, &first.store));
        for n in 0..1000 {
            let name = format!("h{n}.test");
            let found = (first.store.find(&name).unwrap(), next.find(&name).unwrap());
            assert!(Arc::ptr_eq(found.0, found.1), "{name} was parsed again");
        }
    }
}
