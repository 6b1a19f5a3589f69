//! Middlewares that no router has built: each is built once for nobody, so that the log, the API and
//! `check` say what is wrong with it before somebody uses it. Chains, which are never built, are
//! followed to their members.
//!
//! What was found stays as long as nothing changes that it depends on.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use super::Compiler;
use super::chains::{Link, UsedService, Walk};
use super::inputs::{FileInputs, RecordedFiles, same, unchanged};
use crate::config::diagnostics::{Diagnostic, Severity};
use crate::config::dynamic_config::Object;
use crate::middleware::MiddlewareConfig;
use crate::values::BuildError;

/// All trials, each list sorted by name.
#[derive(Default)]
pub(super) struct Trials {
    pub(super) alone: Vec<Arc<Trial>>,
    pub(super) chains: Vec<Arc<Followed>>,
}

/// What came of a middleware, and what that depends on.
pub(super) struct Trial {
    link: Link,
    files: FileInputs,
    services: Vec<UsedService>,
    diagnostics: Vec<Diagnostic>,
    is_good: bool,
}

/// Where a chain leads, which depends on nothing but middlewares.
pub(super) struct Followed {
    link: Link,
    members: Result<Vec<Link>, String>,
}

/// Middlewares that routers have built, by the address of their configuration.
type Built = HashSet<*const Object<MiddlewareConfig>, RandomState>;

impl Compiler<'_> {
    /// Tries what no router has built. All routers are built by now.
    pub(super) fn try_middlewares(&mut self) {
        let middlewares = Arc::clone(&self.memo.middlewares);
        if middlewares.is_empty() {
            return;
        }
        let previous = Arc::clone(&self.previous.trials);
        let built = self.built();
        // What is wrong with its own text it has told already.
        let good = || middlewares.iter().filter(|(_, object)| object.is_good());
        let unused =
            good().filter(|link| !is_chain(link) && !built.contains(&Arc::as_ptr(&link.1)));
        let mut alone = Vec::new();
        let mut before = previous.alone.iter().peekable();
        for link in unused {
            while before.next_if(|trial| trial.link.0 < link.0).is_some() {}
            let kept = before.next_if(|trial| is_same(&trial.link, link) && self.stands(trial));
            let trial = kept.map_or_else(|| Arc::new(self.trial(link)), Arc::clone);
            self.diagnostics.extend(trial.diagnostics.iter().cloned());
            alone.push(trial);
        }
        let mut chains = Vec::new();
        let mut before = previous.chains.iter().peekable();
        for link in good().filter(|link| is_chain(link)) {
            while before.next_if(|chain| chain.link.0 < link.0).is_some() {}
            let same =
                |chain: &&Arc<Followed>| self.unchanged.middlewares && is_same(&chain.link, link);
            let kept = before.next_if(same);
            chains.push(kept.map_or_else(|| Arc::new(self.follow(link)), Arc::clone));
        }
        let broken = self.broken_chains(&chains);
        self.diagnostics.extend(broken);
        self.memo.trials = Arc::new(Trials { alone, chains });
    }

    fn built(&self) -> Built {
        let copies = self.memo.routers.iter().flat_map(|placed| &placed.copies);
        let links = copies.flat_map(|built| &built.links);
        links.map(|(_, object)| Arc::as_ptr(object)).collect()
    }

    /// Whether another trial would find the same. What is in error is always tried again.
    fn stands(&self, trial: &Trial) -> bool {
        let same_services = || {
            trial.services.iter().all(|(name, then)| match (self.handler(name), then) {
                (Ok(now), Ok(then)) => same(&now, then),
                _ => false,
            })
        };
        trial.is_good
            && unchanged(&trial.files, self.env.files)
            && (self.unchanged.services || same_services())
    }

    fn trial(&self, link: &Link) -> Trial {
        let (mut services, mut diagnostics) = (Vec::new(), Vec::new());
        let files = RecordedFiles::new(self.env.files);
        let built = self.middleware(link, &link.0, &files, &mut services, &mut diagnostics);
        let (link, is_good) = (link.clone(), built.is_ok());
        Trial { link, files: files.finish(), services, diagnostics, is_good }
    }

    fn follow(&self, link: &Link) -> Followed {
        let mut members = Vec::new();
        let found = self.links(&link.0, "", &mut Walk::default(), &mut members);
        let members = found.map(|()| members).map_err(|problem| problem.error.message);
        Followed { link: link.clone(), members }
    }

    /// What is to be said of chains that lead nowhere, or to a middleware that cannot be built.
    fn broken_chains(&self, chains: &[Arc<Followed>]) -> Vec<Diagnostic> {
        let mut broken: HashMap<&str, &str, RandomState> = HashMap::default();
        for error in self.diagnostics.iter().filter(|one| one.severity == Severity::Error) {
            if let Some(subject) = error.subject.as_ref().filter(|one| one.kind == "middleware") {
                broken.entry(&*subject.name).or_insert(&*error.message);
            }
        }
        let reason = |chain: &Followed| match &chain.members {
            Err(message) => Some(message.clone()),
            Ok(_) if broken.is_empty() => None,
            Ok(members) => members.iter().find_map(|(name, _)| {
                let message = broken.get(name.as_str())?;
                Some(format!("middleware \"{name}\" is in error: {message}"))
            }),
        };
        let told = chains.iter().filter_map(|chain| {
            let (name, object) = &chain.link;
            let error = BuildError::at("chain.middlewares", reason(chain)?);
            Some(object.diagnose(Severity::Error, "middleware", name, &error))
        });
        told.collect()
    }
}

fn is_chain((_, object): &Link) -> bool {
    object.config.chain.is_some() && object.config.set().len() == 1
}

fn is_same(one: &Link, other: &Link) -> bool {
    one.0 == other.0 && same(&one.1, &other.1)
}
