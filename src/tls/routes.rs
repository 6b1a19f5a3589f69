//! Which TLS options a host gets at one entry point.
//!
//! One function answers for the server name and for the `Host` of a request, so the two cannot
//! be understood differently. Exact names come first, then `*.` and the rest, then `*`, then the
//! default options. A host with two kinds of options gets the default ones, and is listed as a
//! conflict; options in error refuse the connection instead of weakening it.

use std::borrow::Cow;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::certificates::CertificateStore;
use super::options::{TlsOptions, TlsProfile};

/// TLS options that could not be built, or do not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenOptions {
    /// Name of the options.
    pub name: Arc<str>,
    /// What is wrong, as a sentence.
    pub reason: Arc<str>,
}

/// TLS options as a router refers to them.
pub type OptionsRef = Result<Arc<TlsOptions>, BrokenOptions>;

/// One host for which routers ask for different options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionsConflict {
    /// The host, canonical.
    pub host: Box<str>,
    /// Names of the options, sorted.
    pub options: Vec<Arc<str>>,
}

/// What a server name gets.
#[derive(Debug, Clone, Copy)]
pub enum Selected<'a> {
    /// A handshake.
    Config(&'a Arc<TlsProfile>),
    /// The end of the connection.
    Refuse(&'a BrokenOptions),
}

/// See the module.
#[derive(Debug)]
pub struct TlsRoutes {
    targets: Vec<Target>,
    exact: Hosts,
    /// By what follows `*.`.
    wildcard: Hosts,
    any: Option<usize>,
    default: Target,
    conflicts: Vec<OptionsConflict>,
}

/// `None`: a conflict, and so the default options, whatever a wildcard would say.
type Hosts = HashMap<Box<str>, Option<usize>, RandomState>;

#[derive(Debug)]
enum Target {
    Profile(Arc<TlsProfile>),
    Broken(BrokenOptions),
}

impl TlsRoutes {
    /// The routes of an entry point: the hosts of its TLS routers with their options, what
    /// everybody else gets, and the certificates.
    pub fn build(
        hosts: impl IntoIterator<Item = (String, OptionsRef)>,
        default: &OptionsRef,
        store: &Arc<CertificateStore>,
    ) -> Self {
        let mut builder = Builder::new(store);
        for (host, options) in hosts {
            let index = builder.target(&options);
            builder.host(&host, index);
        }
        let default = target(default, store);
        let Builder { targets, hosts, .. } = builder;
        let mut conflicts = Vec::new();
        let (mut exact, mut wildcard, mut any) = (Hosts::default(), Hosts::default(), None);
        for (host, asked) in hosts {
            let index = match asked.as_slice() {
                [only] => Some(*only),
                several => {
                    let names = several.iter().filter_map(|index| targets.get(*index));
                    let mut options: Vec<_> =
                        names.map(|target| Arc::clone(target.name())).collect();
                    options.sort_unstable();
                    conflicts.push(OptionsConflict { host: host.clone(), options });
                    None
                }
            };
            match host.strip_prefix("*.") {
                Some(rest) => drop(wildcard.insert(rest.into(), index)),
                None if &*host == "*" => any = index,
                None => drop(exact.insert(host, index)),
            }
        }
        conflicts.sort_unstable_by(|a, b| a.host.cmp(&b.host));
        Self { targets, exact, wildcard, any, default, conflicts }
    }

    /// What a client that asks for `server_name` gets.
    pub fn select(&self, server_name: Option<&str>) -> Selected<'_> {
        match self.target(server_name.unwrap_or_default()) {
            Target::Profile(profile) => Selected::Config(profile),
            Target::Broken(broken) => Selected::Refuse(broken),
        }
    }

    /// Name of the options that a request for `host` should have come with. Compare it with
    /// those of the connection: when they differ, the answer is 421.
    pub fn options_name_for(&self, host: &str) -> &Arc<str> {
        self.target(host).name()
    }

    /// Hosts with contradicting options, by name. Their connections get the default options.
    pub fn conflicts(&self) -> &[OptionsConflict] {
        &self.conflicts
    }

    fn target(&self, host: &str) -> &Target {
        let host = canonical(host);
        let found = self.exact.get(&*host).copied();
        let found = found.or_else(|| {
            let (_, rest) = host.split_once('.')?;
            self.wildcard.get(rest).copied()
        });
        let index = found.unwrap_or(self.any);
        index.and_then(|index| self.targets.get(index)).unwrap_or(&self.default)
    }
}

impl Target {
    fn name(&self) -> &Arc<str> {
        match self {
            Self::Profile(profile) => &profile.options_name,
            Self::Broken(broken) => &broken.name,
        }
    }
}

/// Lower case, without the dot of a fully qualified name.
fn canonical(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn target(options: &OptionsRef, store: &Arc<CertificateStore>) -> Target {
    match options {
        Ok(options) => Target::Profile(options.profile(store)),
        Err(broken) => Target::Broken(broken.clone()),
    }
}

struct Builder<'a> {
    store: &'a Arc<CertificateStore>,
    targets: Vec<Target>,
    by_name: HashMap<Arc<str>, usize, RandomState>,
    /// The targets that each host was asked with, each once.
    hosts: HashMap<Box<str>, SmallVec<[usize; 1]>, RandomState>,
}

impl<'a> Builder<'a> {
    fn new(store: &'a Arc<CertificateStore>) -> Self {
        Self { store, targets: Vec::new(), by_name: HashMap::default(), hosts: HashMap::default() }
    }

    fn target(&mut self, options: &OptionsRef) -> usize {
        let name = match options {
            Ok(options) => options.name(),
            Err(broken) => &broken.name,
        };
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = self.targets.len();
        self.targets.push(target(options, self.store));
        self.by_name.insert(Arc::clone(name), index);
        index
    }

    fn host(&mut self, host: &str, index: usize) {
        let asked = self.hosts.entry_ref(&*canonical(host)).or_default();
        if !asked.contains(&index) {
            asked.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::{options, store};

    fn name<'a>(routes: &'a TlsRoutes, server_name: &str) -> &'a str {
        match routes.select(Some(server_name)) {
            Selected::Config(profile) => &profile.options_name,
            Selected::Refuse(broken) => &broken.name,
        }
    }

    fn broken(name: &str) -> OptionsRef {
        Err(BrokenOptions { name: name.into(), reason: "no such options".into() })
    }

    #[test]
    fn exact_then_wildcard_then_star_then_default() {
        let (a, b, c, default) =
            (options("a@file"), options("b@file"), options("c@file"), options("default"));
        let hosts = [
            ("x.corp.test".to_owned(), Ok(a)),
            ("*.corp.test".to_owned(), Ok(b)),
            ("Corp.test.".to_owned(), Ok(Arc::clone(&c))),
        ];
        let store = store(&[]);
        let routes = TlsRoutes::build(hosts.clone(), &Ok(Arc::clone(&default)), &store);
        for (host, expected) in [
            ("x.corp.test", "a@file"),
            ("X.CORP.test.", "a@file"),
            ("y.corp.test", "b@file"),
            ("a.b.corp.test", "default"),
            ("corp.test", "c@file"),
            ("other.test", "default"),
            ("", "default"),
        ] {
            assert_eq!(name(&routes, host), expected, "{host}");
            assert_eq!(&**routes.options_name_for(host), expected, "{host}");
        }
        let with_star = hosts.into_iter().chain([("*".to_owned(), Ok(c))]);
        let routes = TlsRoutes::build(with_star, &Ok(default), &store);
        assert_eq!(name(&routes, "other.test"), "c@file");
        assert!(matches!(routes.select(None),
            Selected::Config(profile) if &*profile.options_name == "c@file"));
        assert_eq!(name(&routes, "y.corp.test"), "b@file");
    }

    #[test]
    fn a_conflict_gets_the_default_and_hides_no_wildcard() {
        let (a, b, default) = (options("a@file"), options("b@file"), options("default"));
        let hosts = [
            ("x.test".to_owned(), Ok(Arc::clone(&a))),
            ("x.test.".to_owned(), Ok(b)),
            ("*.test".to_owned(), Ok(Arc::clone(&a))),
            ("*.test".to_owned(), Ok(a)),
        ];
        let routes = TlsRoutes::build(hosts, &Ok(default), &store(&[]));
        let names = vec!["a@file".into(), "b@file".into()];
        assert_eq!(routes.conflicts(), [OptionsConflict { host: "x.test".into(), options: names }]);
        assert_eq!(name(&routes, "x.test"), "default");
        assert_eq!(name(&routes, "y.test"), "a@file");
    }

    #[test]
    fn a_conflict_of_an_exact_host_is_not_taken_over_by_a_star() {
        let (a, b, default) = (options("a@file"), options("b@file"), options("default"));
        let hosts = [
            ("x.test".to_owned(), Ok(Arc::clone(&a))),
            ("x.test".to_owned(), Ok(Arc::clone(&b))),
            ("*".to_owned(), Ok(a)),
        ];
        let routes = TlsRoutes::build(hosts, &Ok(default), &store(&[]));
        assert_eq!(name(&routes, "x.test"), "default");
    }

    #[test]
    fn broken_options_refuse_and_keep_their_name() {
        let hosts = [("a.test".to_owned(), broken("gone@file"))];
        let routes = TlsRoutes::build(hosts, &Ok(options("default")), &store(&[]));
        assert!(matches!(routes.select(Some("a.test")), Selected::Refuse(_)));
        assert_eq!(&**routes.options_name_for("a.test"), "gone@file");
        let routes = TlsRoutes::build([], &broken("default"), &store(&[]));
        assert!(matches!(routes.select(None), Selected::Refuse(_)));
    }

    #[test]
    fn ten_thousand_hosts_share_one_configuration() {
        let shared = options("a@file");
        let hosts = (0..10_000).map(|n| (format!("h{n}.test"), Ok(Arc::clone(&shared))));
        let store = store(&[]);
        let default = options("default");
        let routes = TlsRoutes::build(hosts, &Ok(Arc::clone(&default)), &store);
        assert_eq!(routes.targets.len(), 1);
        assert_eq!(name(&routes, "h9999.test"), "a@file");
        let again = TlsRoutes::build([("b.test".to_owned(), Ok(shared))], &Ok(default), &store);
        let (Selected::Config(old), Selected::Config(new)) =
            (routes.select(Some("h1.test")), again.select(Some("b.test")))
        else {
            panic!("refused");
        };
        assert!(Arc::ptr_eq(&old.config, &new.config));
    }
}
