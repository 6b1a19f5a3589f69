//! What `check` adds to names that lead nowhere: the name that was probably meant. Compiling does not look for it,
//! because every reload would pay for it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::diagnostics::{Diagnostic, did_you_mean};
use crate::config::dynamic_config::{DynamicConfig, Object, Section};
use crate::service::ServiceConfig;
use crate::values::QualifiedName;

/// Where names stand that lead nowhere, with what was probably meant.
#[derive(Default)]
pub(super) struct Hints(HashMap<(Arc<str>, usize), String>);

impl Hints {
    /// Looks at everything in `config` that names another object.
    pub(super) fn of(config: &DynamicConfig) -> Self {
        let mut hints = Self::default();
        for (name, object) in &config.routers {
            let router = &object.config;
            for (index, middleware) in router.middlewares.iter().enumerate() {
                let option = format!("middlewares[{index}]");
                hints.look(name, object, &option, middleware, &config.middlewares);
            }
            hints.look(name, object, "service", &router.service, &config.services);
            for (index, parent) in router.parent_refs.iter().enumerate() {
                hints.look(name, object, &format!("parentRefs[{index}]"), parent, &config.routers);
            }
            if let Some(tls) = router.tls.as_ref().filter(|tls| tls.options != "default") {
                hints.look(name, object, "tls.options", &tls.options, &config.tls_options);
            }
        }
        for (name, object) in &config.middlewares {
            for member in object.config.chain.iter().flat_map(|chain| &chain.middlewares) {
                hints.look(name, object, "chain.middlewares", member, &config.middlewares);
            }
            if let Some(errors) = &object.config.errors {
                hints.look(name, object, "errors.service", &errors.service, &config.services);
            }
        }
        for (name, object) in &config.services {
            hints.service(name, object, config);
        }
        hints
    }

    fn service(
        &mut self,
        name: &QualifiedName,
        object: &Object<ServiceConfig>,
        config: &DynamicConfig,
    ) {
        let mut look = |option: &str, reference: &str| {
            self.look(name, object, option, reference, &config.services);
        };
        let weighted = object.config.weighted.iter().flat_map(|weighted| &weighted.services);
        for (index, child) in weighted.enumerate() {
            look(&format!("weighted.services[{index}]"), &child.name);
        }
        let hashed = object.config.highest_random_weight.iter().flat_map(|one| &one.services);
        for (index, child) in hashed.enumerate() {
            look(&format!("highestRandomWeight.services[{index}]"), &child.name);
        }
        if let Some(mirroring) = &object.config.mirroring {
            look("mirroring.service", &mirroring.service);
            for (index, mirror) in mirroring.mirrors.iter().enumerate() {
                look(&format!("mirroring.mirrors[{index}].name"), &mirror.name);
            }
        }
        if let Some(failover) = &object.config.failover {
            look("failover.service", &failover.service);
            look("failover.fallback", &failover.fallback);
        }
        for (index, middleware) in object.config.middlewares.iter().enumerate() {
            let option = format!("middlewares[{index}]");
            self.look(name, object, &option, middleware, &config.middlewares);
        }
        if let Some(balancer) = &object.config.load_balancer {
            let option = "loadBalancer.serversTransport";
            let transports = &config.servers_transports;
            self.look(name, object, option, &balancer.servers_transport, transports);
        }
    }

    /// Notes what was meant by `reference`, which `option` of an object holds.
    fn look<T, U>(
        &mut self,
        owner: &QualifiedName,
        object: &Object<T>,
        option: &str,
        reference: &str,
        section: &Section<U>,
    ) {
        let name = QualifiedName::resolve(reference, owner.provider());
        let Some(node) = object.node.as_ref().filter(|_| !reference.is_empty()) else { return };
        if name.provider() == "internal" || section.contains_key(&name) {
            return;
        }
        // Without the provider, which would make short names look alike; sorted, so that it is always the same one.
        let same_provider = section.keys().filter(|known| known.provider() == name.provider());
        let mut known: Vec<&str> = same_provider.map(QualifiedName::name).collect();
        known.sort_unstable();
        let Some(close) = did_you_mean(name.name(), known) else { return };
        let span = &node.at_path(option).span;
        let place = (Arc::clone(&span.source.name), span.start);
        self.0.entry(place).or_insert_with(|| format!("did you mean `{close}`?"));
    }

    /// Adds to `diagnostic` what was probably meant at its place.
    pub(super) fn add_to(&self, diagnostic: &mut Diagnostic) {
        if let Some(span) = &diagnostic.span
            && diagnostic.help.is_none()
        {
            let place = (Arc::clone(&span.source.name), span.start);
            diagnostic.help = self.0.get(&place).cloned();
        }
    }
}
