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
    pub host: Arc<str>,
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
    any: Option<Asked>,
    default: Target,
    conflicts: Vec<OptionsConflict>,
}

type Hosts = HashMap<Arc<str>, Asked, RandomState>;

/// What routers ask for a host with.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// With the options of this target.
    Target(usize),
    /// With those of this conflict, and so it gets the default ones, whatever a wildcard says.
    Conflict(usize),
}

#[derive(Debug)]
enum Target {
    Profile(Arc<TlsProfile>),
    Broken(BrokenOptions),
}

/// Collects the hosts of one entry point.
pub struct TlsRoutesBuilder<'a> {
    store: &'a Arc<CertificateStore>,
    routes: TlsRoutes,
    /// Targets by the name of their options.
    by_name: HashMap<Arc<str>, usize, RandomState>,
}

impl<'a> TlsRoutesBuilder<'a> {
    /// Begins with what everybody gets for whom no router asks, and room for `hosts`.
    pub fn new(default: &OptionsRef, store: &'a Arc<CertificateStore>, hosts: usize) -> Self {
        let routes = TlsRoutes {
            targets: Vec::new(),
            exact: Hosts::with_capacity_and_hasher(hosts, RandomState::default()),
            wildcard: Hosts::default(),
            any: None,
            default: target(default, store),
            conflicts: Vec::new(),
        };
        Self { store, routes, by_name: HashMap::default() }
    }

    /// A router asks for `hosts` with `options`. They are as rules name them: in lower case,
    /// without a dot at the end, perhaps with `*.` in front.
    pub fn claim(&mut self, hosts: &[Arc<str>], options: &OptionsRef) {
        let index = self.target(options);
        let TlsRoutes { targets, exact, wildcard, any, conflicts, .. } = &mut self.routes;
        for host in hosts {
            let asked = match host.strip_prefix("*.") {
                Some(rest) => wildcard.entry_ref(rest).or_insert(Asked::Target(index)),
                None if &**host == "*" => any.get_or_insert(Asked::Target(index)),
                None => exact.entry(Arc::clone(host)).or_insert(Asked::Target(index)),
            };
            let name = |index: usize| targets.get(index).map(Target::name);
            match *asked {
                Asked::Target(before) if before != index => {
                    let mut options: Vec<_> =
                        [before, index].into_iter().filter_map(name).cloned().collect();
                    options.sort_unstable();
                    *asked = Asked::Conflict(conflicts.len());
                    conflicts.push(OptionsConflict { host: Arc::clone(host), options });
                }
                Asked::Target(_) => {}
                Asked::Conflict(number) => {
                    if let (Some(conflict), Some(name)) = (conflicts.get_mut(number), name(index))
                        && let Err(place) = conflict.options.binary_search(name)
                    {
                        conflict.options.insert(place, Arc::clone(name));
                    }
                }
            }
        }
    }

    /// The routes.
    pub fn finish(self) -> TlsRoutes {
        self.routes
    }

    fn target(&mut self, options: &OptionsRef) -> usize {
        let name = match options {
            Ok(options) => options.name(),
            Err(broken) => &broken.name,
        };
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = self.routes.targets.len();
        self.routes.targets.push(target(options, self.store));
        self.by_name.insert(Arc::clone(name), index);
        index
    }
}

impl TlsRoutes {
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

    /// The contradiction about `host`, as a rule names it, if there is one. Connections for such
    /// a host get the default options.
    pub fn conflict(&self, host: &str) -> Option<&OptionsConflict> {
        if !self.has_conflicts() {
            return None;
        }
        let asked = match host.strip_prefix("*.") {
            Some(rest) => self.wildcard.get(rest).copied(),
            None if host == "*" => self.any,
            None => self.exact.get(host).copied(),
        };
        match asked? {
            Asked::Target(_) => None,
            Asked::Conflict(number) => self.conflicts.get(number),
        }
    }

    /// How many exact hosts there are.
    pub fn exact_hosts(&self) -> usize {
        self.exact.len()
    }

    /// Whether routers contradict each other about any host.
    pub fn has_conflicts(&self) -> bool {
        !self.conflicts.is_empty()
    }

    fn target(&self, host: &str) -> &Target {
        let host = canonical(host);
        let wildcard = || {
            // As for rules: `*.` is any host of one label, and no host at all has no label.
            let parent = host.split_once('.').map_or("", |(_, parent)| parent);
            self.wildcard.get(parent).filter(|_| !host.is_empty()).copied()
        };
        let asked = self.exact.get(&*host).copied().or_else(wildcard).or(self.any);
        match asked {
            Some(Asked::Target(index)) => self.targets.get(index).unwrap_or(&self.default),
            Some(Asked::Conflict(_)) | None => &self.default,
        }
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
            ("corp.test".to_owned(), Ok(Arc::clone(&c))),
            ("*.".to_owned(), Ok(Arc::clone(&c))),
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
            ("localhost", "c@file"),
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
            ("x.test".to_owned(), Ok(Arc::clone(&b))),
            ("x.test".to_owned(), Ok(Arc::clone(&default))),
            ("x.test".to_owned(), Ok(b)),
            ("*.test".to_owned(), Ok(Arc::clone(&a))),
            ("*.test".to_owned(), Ok(a)),
        ];
        let routes = TlsRoutes::build(hosts, &Ok(default), &store(&[]));
        let options = vec!["a@file".into(), "b@file".into(), "default".into()];
        let conflict = OptionsConflict { host: "x.test".into(), options };
        assert_eq!(routes.conflict("x.test"), Some(&conflict));
        assert_eq!(routes.conflict("*.test"), None);
        assert_eq!(routes.conflict("y.test"), None);
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
