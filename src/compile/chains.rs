//! Names to middlewares: `chain` is flattened, cycles are found, each is built for its router.

use std::sync::Arc;

use super::inputs::{RecordedFiles, same};
use super::problem::Problem;
use super::services::Missing;
use super::{Compiler, Environment};
use crate::config::diagnostics::{Diagnostic, Severity};
use crate::config::dynamic_config::Object;
use crate::exchange::{Handler, Middleware};
use crate::middleware::{BuildContext, MiddlewareConfig};
use crate::values::{BuildError, QualifiedName};

/// How many middlewares a router may have, chains counted with all that they hold. Chains of chains
/// grow without bound: thirty that name each other twice are a billion.
const MAX_LINKS: usize = 1000;

/// A middleware that a router uses, chains already taken apart.
pub(super) type Link = (QualifiedName, Arc<Object<MiddlewareConfig>>);

/// All middlewares as configured, by name.
pub(super) type Middlewares = Vec<(QualifiedName, Arc<Object<MiddlewareConfig>>)>;

/// A service that something uses, and what was there under its name.
pub(super) type UsedService = (QualifiedName, Result<Arc<dyn Handler>, Missing>);

/// Where in chains the names of one router have led.
#[derive(Default)]
pub(super) struct Walk {
    /// Chains that are being taken apart.
    path: Vec<QualifiedName>,
    links: usize,
}

impl Walk {
    /// Whether it has led to more middlewares than a router may have.
    pub(super) fn is_too_long(&self) -> bool {
        self.links > MAX_LINKS
    }
}

impl Compiler<'_> {
    /// Remembers the middlewares, and finds out whether they are those of the previous time.
    pub(super) fn note_middlewares(&mut self) {
        let section = &self.config.middlewares;
        let previous = &self.previous.middlewares;
        self.unchanged.middlewares = previous.len() == section.len()
            && previous
                .iter()
                .all(|(name, then)| section.get(name).is_some_and(|now| same(now, then)));
        self.memo.middlewares = if self.unchanged.middlewares {
            Arc::clone(previous)
        } else {
            let objects = section.iter().map(|(name, object)| (name.clone(), Arc::clone(object)));
            let mut objects: Middlewares = objects.collect();
            objects.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            Arc::new(objects)
        };
        for (_, object) in &*self.memo.middlewares {
            self.diagnostics.extend(object.errors.iter().cloned());
        }
    }

    /// Adds what `name`, as a router's `option` says, means in order.
    pub(super) fn links(
        &self,
        name: &QualifiedName,
        option: &str,
        walk: &mut Walk,
        links: &mut Vec<Link>,
    ) -> Result<(), Problem> {
        walk.path.clear();
        self.link(name, walk, links).map_err(|(message, cause)| {
            let problem = Problem::at(option, message);
            match cause {
                Some(cause) => problem.because_of("middleware", &cause),
                None => problem,
            }
        })
    }

    /// What is wrong, and with which other middleware if there is one to blame.
    fn link(
        &self,
        name: &QualifiedName,
        walk: &mut Walk,
        links: &mut Vec<Link>,
    ) -> Result<(), (String, Option<QualifiedName>)> {
        walk.links += 1;
        if walk.is_too_long() {
            let message = format!("more than {MAX_LINKS} middlewares, those of chains counted");
            return Err((message, walk.path.first().cloned()));
        }
        let Some(object) = self.config.middlewares.get(name) else {
            let message = format!("middleware \"{name}\" does not exist");
            return Err((message, walk.path.last().cloned()));
        };
        if walk.path.contains(name) {
            let names = walk.path.iter().chain([name]).map(QualifiedName::as_str);
            let message = format!(
                "could not instantiate middleware {name}: recursion detected in {}",
                names.collect::<Vec<_>>().join("->")
            );
            return Err((message, walk.path.first().cloned()));
        }
        if !object.is_good() {
            let reason = super::services::summary(&object.errors);
            let message = format!("middleware \"{name}\" is in error: {reason}");
            return Err((message, Some(name.clone())));
        }
        let one_kind = object.config.set().len() == 1;
        match &object.config.chain {
            Some(chain) if one_kind => {
                walk.path.push(name.clone());
                for member in &chain.middlewares {
                    self.link(&QualifiedName::resolve(member, name.provider()), walk, links)?;
                }
                walk.path.pop();
            }
            _ => links.push((name.clone(), Arc::clone(object))),
        }
        Ok(())
    }

    /// Builds one link for the router `owner`. All services are built by now.
    pub(super) fn middleware(
        &self,
        link: &Link,
        owner: &QualifiedName,
        files: &RecordedFiles<'_>,
        services: &mut Vec<UsedService>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<Arc<dyn Middleware>, Problem> {
        let mut find = |name: &QualifiedName| {
            let found = self.handler(name);
            services.push((name.clone(), found.clone()));
            found
        };
        build_link(self.env, link, owner, files, &mut find, diagnostics)
    }
}

/// Finds a service that a middleware sends requests to.
pub(super) type FindHandler<'a> =
    dyn FnMut(&QualifiedName) -> Result<Arc<dyn Handler>, Missing> + 'a;

/// Builds one link for `owner`.
pub(super) fn build_link(
    env: &Environment<'_>,
    (name, object): &Link,
    owner: &QualifiedName,
    files: &RecordedFiles<'_>,
    find: &mut FindHandler<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Arc<dyn Middleware>, Problem> {
    let mut warnings = Vec::new();
    let built = match &object.config.set()[..] {
        [(_, Some(config))] => {
            let provider = name.provider();
            let mut service = |reference: &str| {
                find(&QualifiedName::resolve(reference, provider)).map_err(BuildError::new)
            };
            config.build(&mut BuildContext {
                name,
                owner,
                files,
                state: env.state,
                profile: env.facts.profile,
                proxies: &env.facts.proxies,
                service: &mut service,
                warnings: &mut warnings,
            })
        }
        [(kind, None)] => Err(BuildError::unsupported(*kind)),
        [] => Err(BuildError::new("invalid middleware configuration: it has no type")),
        _ => Err(BuildError::new(
            "cannot create middleware: multi-types middleware not supported, consider \
             declaring two different pieces of middleware instead",
        )),
    };
    for warning in warnings {
        let warning = below_kind(object, warning);
        diagnostics.push(object.diagnose(Severity::Warning, "middleware", name, &warning));
    }
    built.map_err(|error| {
        let error = below_kind(object, error);
        diagnostics.push(object.diagnose(Severity::Error, "middleware", name, &error));
        let message = format!("middleware \"{name}\" is in error: {}", error.message);
        Problem::at("middlewares", message).because_of("middleware", name)
    })
}

/// A middleware knows its options from its own section on; in the object they stand below its kind.
fn below_kind(object: &Object<MiddlewareConfig>, error: BuildError) -> BuildError {
    match &object.config.set()[..] {
        [(kind, _)] if error.option.is_empty() => BuildError::at(*kind, error.message),
        [(kind, _)] if error.option != *kind => {
            BuildError::at(format!("{kind}.{}", error.option), error.message)
        }
        _ => error,
    }
}
