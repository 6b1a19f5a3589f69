//! The graph of services: each is built once, cycles are found, and an unchanged one is kept.

use std::sync::Arc;

use super::Compiler;
use super::inputs::{FileInputs, RecordedFiles, same, unchanged};
use crate::config::diagnostics::{Diagnostic, Severity};
use crate::config::dynamic_config::Object;
use crate::exchange::{Handler, Observer};
use crate::service::{Service, ServiceConfig, ServiceContext};
use crate::upstream::{ServersTransport, ServersTransportConfig};
use crate::values::{BuildError, QualifiedName};

/// Why something that is named cannot be had: a sentence for whoever names it.
pub(super) type Missing = String;

/// A service, or why there is none, and what it was made of.
pub(super) struct BuiltService {
    pub(super) object: Arc<Object<ServiceConfig>>,
    pub(super) service: Result<Arc<dyn Service>, Missing>,
    pub(super) diagnostics: Vec<Diagnostic>,
    needs: Vec<Need>,
}

/// Something that a service is made of.
enum Need {
    Transport(QualifiedName, Result<Arc<ServersTransport>, Missing>),
    Service(QualifiedName, Result<Arc<dyn Service>, Missing>),
}

/// A servers transport, or why there is none.
pub(super) struct BuiltTransport {
    object: Arc<Object<ServersTransportConfig>>,
    transport: Result<Arc<ServersTransport>, Missing>,
    diagnostics: Vec<Diagnostic>,
    files: FileInputs,
}

impl Compiler<'_> {
    /// The handler that a router's `service` means.
    pub(super) fn handler(&mut self, name: &QualifiedName) -> Result<Arc<dyn Handler>, Missing> {
        if name.provider() == "internal" {
            return match self.env.facts.internal_services.get(name.name()) {
                Some(Ok(handler)) => Ok(Arc::clone(handler)),
                Some(Err(reason)) => Err((*reason).to_owned()),
                None => Err(format!("the service \"{name}\" does not exist")),
            };
        }
        self.service(name).map(|service| -> Arc<dyn Handler> { service })
    }

    /// The service of this name: from the memo, kept from the previous table, or built.
    pub(super) fn service(&mut self, name: &QualifiedName) -> Result<Arc<dyn Service>, Missing> {
        if let Some(built) = self.memo.services.get(name) {
            return built.service.clone();
        }
        let Some(object) = self.config.services.get(name) else {
            return Err(format!("the service \"{name}\" does not exist"));
        };
        if self.building.contains(name) {
            return Err(format!(
                "could not instantiate service {name}: recursion detected in {}",
                path_of(&self.building, name)
            ));
        }
        let object = Arc::clone(object);
        self.building.push(name.clone());
        let built = self.kept_service(name, &object).unwrap_or_else(|| {
            let built = self.build_service(name, &object);
            Arc::new(built)
        });
        self.building.pop();
        let service = built.service.clone();
        self.memo.services.insert(name.clone(), built);
        service
    }

    /// The previous build, if nothing that it was made of has changed.
    fn kept_service(
        &mut self,
        name: &QualifiedName,
        object: &Arc<Object<ServiceConfig>>,
    ) -> Option<Arc<BuiltService>> {
        let built = Arc::clone(self.previous.services.get(name)?);
        if !same(&built.object, object) {
            return None;
        }
        for need in &built.needs {
            let kept = match need {
                Need::Transport(name, then) => match (self.transport(name), then) {
                    (Ok(now), Ok(then)) => same(&now, then),
                    (Err(now), Err(then)) => now == *then,
                    _ => false,
                },
                Need::Service(name, then) => match (self.service(name), then) {
                    (Ok(now), Ok(then)) => same(&now, then),
                    (Err(now), Err(then)) => now == *then,
                    _ => false,
                },
            };
            if !kept {
                return None;
            }
        }
        Some(built)
    }

    fn build_service(
        &mut self,
        name: &QualifiedName,
        object: &Arc<Object<ServiceConfig>>,
    ) -> BuiltService {
        let mut needs = Vec::new();
        let mut warnings = Vec::new();
        let built = if object.is_good() {
            self.make_service(name, &object.config, &mut needs, &mut warnings)
        } else {
            Err(BuildError::new(String::new()))
        };
        let mut diagnostics: Vec<_> = object.errors.clone();
        for warning in &warnings {
            diagnostics.push(object.diagnose(Severity::Warning, "service", name, warning));
        }
        let service = built.map_err(|error| {
            if object.is_good() {
                diagnostics.push(object.diagnose(Severity::Error, "service", name, &error));
            }
            format!("the service \"{name}\" is in error: {}", summary(&diagnostics))
        });
        BuiltService { object: Arc::clone(object), service, diagnostics, needs }
    }

    fn make_service(
        &mut self,
        name: &QualifiedName,
        config: &ServiceConfig,
        needs: &mut Vec<Need>,
        warnings: &mut Vec<BuildError>,
    ) -> Result<Arc<dyn Service>, BuildError> {
        let metrics = self.env.metrics.service(name.as_str());
        let metrics = metrics.map(|metrics| -> Arc<dyn Observer> { metrics });
        let server_up = Arc::clone(self.env.server_up);
        let state = self.env.state;
        let profile = self.env.facts.profile;
        let provider = name.provider();
        let mut transport = |reference: &str| {
            let reference = if reference.is_empty() { "default@internal" } else { reference };
            let name = QualifiedName::resolve(reference, provider);
            let found = self.transport(&name);
            needs.push(Need::Transport(name, found.clone()));
            found.map_err(|missing| BuildError::at("loadBalancer.serversTransport", missing))
        };
        let transport = match &config.load_balancer {
            Some(balancer) => Some(transport(&balancer.servers_transport)?),
            None => None,
        };
        let mut child = |reference: &str| {
            let name = QualifiedName::resolve(reference, provider);
            let found = self.service(&name);
            needs.push(Need::Service(name, found.clone()));
            found.map_err(BuildError::new)
        };
        config.build(&mut ServiceContext {
            name,
            transport,
            child: &mut child,
            state,
            profile,
            metrics,
            server_up,
            warnings,
        })
    }

    /// The servers transport of this name.
    pub(super) fn transport(
        &mut self,
        name: &QualifiedName,
    ) -> Result<Arc<ServersTransport>, Missing> {
        if let Some(built) = self.memo.transports.get(name) {
            return built.transport.clone();
        }
        let Some(object) = self.config.servers_transports.get(name) else {
            return Err(format!("servers transport not found {name}"));
        };
        let kept =
            self.previous.transports.get(name).filter(|built| {
                same(&built.object, object) && unchanged(&built.files, self.env.files)
            });
        let built = match kept {
            Some(built) => Arc::clone(built),
            None => Arc::new(self.build_transport(name, object)),
        };
        let transport = built.transport.clone();
        self.memo.transports.insert(name.clone(), built);
        transport
    }

    fn build_transport(
        &self,
        name: &QualifiedName,
        object: &Arc<Object<ServersTransportConfig>>,
    ) -> BuiltTransport {
        const KIND: &str = "serversTransport";
        let files = RecordedFiles::new(self.env.files);
        let mut diagnostics = object.errors.clone();
        let mut warnings = Vec::new();
        let transport = if object.is_good() {
            ServersTransport::build(
                name.as_str(),
                &object.config,
                &files,
                self.env.facts.profile,
                &mut warnings,
            )
            .map_err(|error| {
                diagnostics.push(object.diagnose(Severity::Error, KIND, name, &error));
            })
        } else {
            Err(())
        };
        for warning in &warnings {
            diagnostics.push(object.diagnose(Severity::Warning, KIND, name, warning));
        }
        let transport = transport.map(Arc::new).map_err(|()| {
            format!("the servers transport \"{name}\" is in error: {}", summary(&diagnostics))
        });
        BuiltTransport { object: Arc::clone(object), transport, diagnostics, files: files.finish() }
    }

    /// What is wrong with transports, for the report.
    pub(super) fn transport_diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.memo.transports.values().flat_map(|built| &built.diagnostics)
    }
}

/// The first error, for a sentence of the "because of" kind.
pub(super) fn summary(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .iter()
        .find(|diagnostic| diagnostic.severity == Severity::Error)
        .map(|diagnostic| diagnostic.message.clone())
        .unwrap_or_default()
}

fn path_of(building: &[QualifiedName], name: &QualifiedName) -> String {
    let names: Vec<_> = building.iter().chain([name]).map(QualifiedName::as_str).collect();
    names.join(" -> ")
}
