//! Provider `internal`: the routers, middlewares and transports that static configuration implies.

use std::sync::Arc;

use crate::config::dynamic_config::{DynamicConfig, Object};
use crate::config::entry_points::EntryPointConfig;
use crate::config::static_config::StaticConfig;
use crate::config::tree::Node;
use crate::middleware::MiddlewareConfig;
use crate::middleware::redirect_regex::RedirectRegexConfig;
use crate::middleware::redirect_scheme::RedirectSchemeConfig;
use crate::middleware::strip_prefix::StripPrefixConfig;
use crate::router::RouterConfig;
use crate::upstream::ServersTransportConfig;
use crate::values::{Profile, QualifiedName};

/// The hosts of an API that asks nobody who they are: no name that somebody else may let lead here, and so no page of
/// theirs that reads it (DNS rebinding). Whoever wants a name writes a router with `api@internal`.
const BY_ADDRESS: &str = r"HostRegexp(`^(localhost|[0-9.]+|\[?[0-9a-f.]*:[0-9a-f:.]*\]?)$`)";

/// The configuration of provider `internal`. `written` is the tree of the static configuration.
pub(super) fn configuration(config: &StaticConfig, written: Option<&Node>) -> DynamicConfig {
    let mut internal = Internal(DynamicConfig::default());
    internal.transport(config, written);
    internal.ping(config);
    internal.metrics(config);
    internal.api(config);
    for (name, entry_point) in &config.entry_points {
        internal.redirection(name, entry_point, config);
    }
    internal.0
}

struct Internal(DynamicConfig);

impl Internal {
    fn router(&mut self, name: &str, router: RouterConfig) {
        self.0.routers.insert(QualifiedName::new(name, "internal"), Object::implied(router));
    }

    fn middleware(&mut self, name: &str, middleware: MiddlewareConfig) {
        let name = QualifiedName::new(name, "internal");
        self.0.middlewares.insert(name, Object::implied(middleware));
    }

    /// The section `serversTransport` has the names of options in common with what it becomes.
    fn transport(&mut self, config: &StaticConfig, written: Option<&Node>) {
        let transport = Object {
            config: ServersTransportConfig::from(&config.servers_transport),
            node: written.and_then(|root| root.get("serversTransport")).cloned(),
            errors: Vec::new(),
        };
        let name = QualifiedName::new("default", "internal");
        self.0.servers_transports.insert(name, Arc::new(transport));
    }

    fn ping(&mut self, config: &StaticConfig) {
        let Some(ping) = config.ping.as_ref().filter(|ping| !ping.manual_routing) else { return };
        for (name, rule, priority) in [
            ("ping", "PathPrefix(`/ping`)", i64::MAX),
            ("live", "Path(`/live`)", i64::MAX),
            ("ready", "Path(`/ready`)", i64::MAX),
        ] {
            let service = format!("{name}@internal");
            self.router(name, at(&ping.entry_point, rule, &service, priority));
        }
    }

    fn metrics(&mut self, config: &StaticConfig) {
        let prometheus = config.metrics.as_ref().and_then(|metrics| metrics.prometheus.as_ref());
        let Some(prometheus) = prometheus.filter(|prometheus| !prometheus.manual_routing) else {
            return;
        };
        let rule = "PathPrefix(`/metrics`)";
        let router = at(&prometheus.entry_point, rule, "prometheus@internal", i64::MAX);
        self.router("prometheus", router);
    }

    fn api(&mut self, config: &StaticConfig) {
        let Some(api) = config.api.as_ref().filter(|api| api.insecure) else { return };
        let by_address = |rule: &str| match config.core.profile {
            Profile::Hardened => format!("{BY_ADDRESS} && {rule}"),
            Profile::Exact | Profile::Safe => rule.to_owned(),
        };
        let rule = by_address("PathPrefix(`/api`)");
        self.router("api", at("traefik", &rule, "api@internal", i64::MAX - 1));
        if !api.dashboard {
            return;
        }
        let rule = by_address("PathPrefix(`/`)");
        let mut router = at("traefik", &rule, "dashboard@internal", i64::MAX - 2);
        router.middlewares = vec![
            "dashboard_redirect@internal".to_owned(),
            "dashboard_stripprefix@internal".to_owned(),
        ];
        self.router("dashboard", router);
        let redirect = RedirectRegexConfig {
            regex: r"^(http:\/\/(\[[\w:.]+\]|[\w\._-]+)(:\d+)?)\/$".to_owned(),
            replacement: "${1}/dashboard/".to_owned(),
            permanent: true,
        };
        self.middleware(
            "dashboard_redirect",
            MiddlewareConfig { redirect_regex: Some(redirect), ..MiddlewareConfig::default() },
        );
        let strip = StripPrefixConfig {
            prefixes: vec!["/dashboard/".to_owned(), "/dashboard".to_owned()],
            ..StripPrefixConfig::default()
        };
        self.middleware(
            "dashboard_stripprefix",
            MiddlewareConfig { strip_prefix: Some(strip), ..MiddlewareConfig::default() },
        );
    }

    /// `http.redirections.entryPoint`: a router that takes everything, and its middleware.
    fn redirection(&mut self, name: &str, entry_point: &EntryPointConfig, config: &StaticConfig) {
        let redirections = entry_point.http.redirections.as_ref();
        let Some(redirect) = redirections.and_then(|all| all.entry_point.as_ref()) else { return };
        let port = match redirect.to.strip_prefix(':') {
            Some(port) => port.to_owned(),
            None => config.entry_points.get(&redirect.to).map(port_of).unwrap_or_default(),
        };
        let router_name = normalized(&format!("{name}-to-{}", redirect.to));
        let middleware_name = format!("redirect-{router_name}");
        let rule = if entry_point.allow_acme_by_pass {
            "HostRegexp(`^.+$`) && !PathPrefix(`/.well-known/acme-challenge/`)"
        } else {
            "HostRegexp(`^.+$`)"
        };
        let mut router = at(name, rule, "noop@internal", redirect.priority);
        router.middlewares = vec![middleware_name.clone()];
        self.router(&router_name, router);
        let scheme = RedirectSchemeConfig {
            scheme: redirect.scheme.clone(),
            port,
            permanent: redirect.permanent,
        };
        self.middleware(
            &middleware_name,
            MiddlewareConfig { redirect_scheme: Some(scheme), ..MiddlewareConfig::default() },
        );
    }
}

fn at(entry_point: &str, rule: &str, service: &str, priority: i64) -> RouterConfig {
    RouterConfig {
        entry_points: vec![entry_point.to_owned()],
        rule: rule.to_owned(),
        service: service.to_owned(),
        priority,
        ..RouterConfig::default()
    }
}

fn port_of(entry_point: &EntryPointConfig) -> String {
    let address = entry_point.address.split('/').next().unwrap_or_default();
    address.rsplit_once(':').map(|(_, port)| port.to_owned()).unwrap_or_default()
}

/// Traefik's `Normalize`: runs of other characters become one `-`.
fn normalized(name: &str) -> String {
    let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

/// The internal configuration, shared.
pub(super) fn shared(config: &StaticConfig, written: Option<&Node>) -> Arc<DynamicConfig> {
    Arc::new(configuration(config, written))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::{Format, Source, decode, parse};

    fn internal(text: &str) -> DynamicConfig {
        let node = parse(&Source::new("f.yml", text, Format::Yaml)).unwrap();
        let mut config: StaticConfig = decode(&node).unwrap();
        config.complete();
        configuration(&config, Some(&node))
    }

    fn router<'c>(config: &'c DynamicConfig, name: &str) -> &'c RouterConfig {
        &config.routers[&QualifiedName::new(name, "internal")].config
    }

    /// RP-3.5.4
    #[test]
    fn routers_of_our_own_come_before_the_users() {
        let config = internal(
            "entryPoints: {web: {address: ':80'}}\nping: {}\napi: {insecure: true}\n\
             metrics: {prometheus: {entryPoint: web}}\n",
        );
        for (name, entry_point, below) in [
            ("ping", "traefik", 0),
            ("prometheus", "web", 0),
            ("api", "traefik", 1),
            ("dashboard", "traefik", 2),
        ] {
            let router = router(&config, name);
            assert_eq!(router.priority, i64::MAX - below, "{name}");
            assert_eq!(router.entry_points, [entry_point], "{name}");
        }
        let manual = internal(
            "ping: {manualRouting: true}\nmetrics: {prometheus: {manualRouting: true}}\napi: {}\n",
        );
        assert!(manual.routers.is_empty());
    }

    /// RP-2.4.4 to RP-2.4.8
    #[test]
    fn a_redirection_is_a_router_and_a_middleware() {
        let of = |more: &str, options: &str| {
            let config = internal(&format!(
                "entryPoints:\n  web-in: {{address: ':80', http: {{redirections: {{entryPoint: \
                 {{{options}}}}}}}{more}}}\n  secure: {{address: '[::]:8443/tcp'}}\n  \
                 usual: {{address: ':443'}}\n"
            ));
            let (name, router) = config.routers.iter().next().unwrap();
            let middleware = QualifiedName::new(&router.config.middlewares[0], "internal");
            let middleware = config.middlewares[&middleware].config.redirect_scheme.clone();
            let scheme = middleware.unwrap();
            let target = (scheme.scheme, scheme.port, scheme.permanent);
            (name.as_str().to_owned(), router.config.clone(), target)
        };
        let (name, router, target) = of("", "to: secure");
        assert_eq!(name, "web-in-to-secure@internal");
        assert_eq!((&*router.rule, &*router.service), ("HostRegexp(`^.+$`)", "noop@internal"));
        assert_eq!(
            (router.priority, &*router.entry_points),
            (i64::MAX - 1, &["web-in".to_owned()][..])
        );
        assert_eq!(target, ("https".to_owned(), "8443".to_owned(), true));
        for (options, name, port) in [
            ("to: usual", "web-in-to-usual@internal", "443"),
            ("to: ':444'", "web-in-to-444@internal", "444"),
        ] {
            let (named, _, target) = of("", options);
            assert_eq!((&*named, &*target.1), (name, port));
        }
        let (_, router, target) = of("", "to: usual, scheme: http, permanent: false, priority: 7");
        assert_eq!((router.priority, &*target.0, target.2), (7, "http", false));
        let (_, router, _) = of(", allowACMEByPass: true", "to: usual");
        assert_eq!(
            router.rule,
            "HostRegexp(`^.+$`) && !PathPrefix(`/.well-known/acme-challenge/`)"
        );
    }
}
