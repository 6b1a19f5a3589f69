//! Providers: where dynamic configuration comes from. Each produces its whole configuration
//! whenever something changed, and hands it out through a [`ConfigSender`]: the latest wins,
//! nothing queues. A provider that fails keeps what it had and says so in its health.

pub mod file;
pub mod file_cache;
mod stamp;
mod watch;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch as latest};
use tokio_util::sync::CancellationToken;

use crate::config::diagnostics::Diagnostic;
use crate::config::tree::Node;

/// What a provider produces: a set of named objects, read from trees and put together.
pub trait Document: Default + Clone + Send + Sync + 'static {
    /// Reads the root of one document of `provider`. What is wrong is kept inside.
    fn read(root: &Node, provider: &str) -> Self;
    /// Takes over from `previous` the objects that say the same.
    fn reuse(&mut self, previous: &Self);
    /// Adds what a later document of the same provider says; the first definition wins.
    fn absorb(&mut self, other: &Self);
    /// Adds what is wrong outside of any object.
    fn add_diagnostics(&mut self, diagnostics: Vec<Diagnostic>);
    /// Why a document cannot take the place of what it said before: part of it cannot be read.
    fn refusal(&self) -> Option<Vec<Diagnostic>> {
        None
    }
}

/// A source of dynamic configuration.
pub trait Provider<D: Document>: Send + 'static {
    /// Hands out configuration until `shutdown`. An error means that the provider cannot go on;
    /// what it sent last stays valid.
    fn run(
        self,
        out: ConfigSender<D>,
        shutdown: CancellationToken,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;
}

/// Why a provider cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The file provider is on, but has nothing to read.
    #[error("the file provider needs `filename` or `directory`")]
    NothingToRead,
    /// The one file is of no known format.
    #[error("{} is not a .toml, .yaml, .yml or .json file", .0.display())]
    UnknownFormat(PathBuf),
    /// The provider's work ended by itself.
    #[error("the provider stopped: {0}")]
    Stopped(String),
}

/// How a provider is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderHealth {
    /// How often something could not be read since the start.
    pub failures: u64,
    /// What cannot be read at present.
    pub error: Option<String>,
    /// Whether all that was there at the start has been read. Stays true once it is, so that a
    /// broken newcomer does not make the whole proxy unready.
    pub loaded: bool,
}

/// One message of a provider.
#[derive(Debug, Clone, Default)]
pub struct Update<D> {
    /// All that the provider wants.
    pub config: Arc<D>,
    /// How the provider is.
    pub health: ProviderHealth,
    /// Up to which call of [`LookAgain::ask`] this is an answer.
    pub asked: u64,
}

/// Asks a provider to look at everything again. It answers with an update, new or not.
#[derive(Debug, Default)]
pub struct LookAgain {
    asked: AtomicU64,
    wake: Arc<Notify>,
}

impl LookAgain {
    /// Asks, and returns how often that was done.
    pub fn ask(&self) -> u64 {
        let asked = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake.notify_one();
        asked
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }
}

/// A provider's way out; the latest update wins.
#[derive(Debug)]
pub struct ConfigSender<D> {
    out: latest::Sender<Update<D>>,
}

/// The other end of a [`ConfigSender`]; the value before the first change is empty.
pub type ConfigReceiver<D> = latest::Receiver<Update<D>>;

impl<D: Document> ConfigSender<D> {
    /// A sender and its receiver.
    pub fn new() -> (Self, ConfigReceiver<D>) {
        let (out, receiver) = latest::channel(Update::default());
        (Self { out }, receiver)
    }

    /// Replaces what was sent before.
    pub fn send(&self, update: Update<D>) {
        self.out.send_replace(update);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::collections::HashMap;

    use super::{Arc, Diagnostic, Document, Node};

    /// A mapping of names to objects, and nothing else.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Words {
        pub(crate) objects: HashMap<Arc<str>, Arc<Node>>,
        pub(crate) diagnostics: Vec<Diagnostic>,
    }

    impl Words {
        /// The text of the object of this name.
        pub(crate) fn text(&self, name: &str) -> Option<&str> {
            self.objects.get(name).and_then(|node| node.text())
        }
    }

    impl Document for Words {
        fn read(root: &Node, _: &str) -> Self {
            let object = |entry: &crate::config::tree::Entry| {
                (Arc::clone(&entry.key), Arc::new(entry.value.clone()))
            };
            Self { objects: root.entries().iter().map(object).collect(), diagnostics: Vec::new() }
        }

        fn reuse(&mut self, previous: &Self) {
            for (name, object) in &mut self.objects {
                if let Some(kept) = previous.objects.get(name)
                    && object.same_as(kept)
                {
                    *object = Arc::clone(kept);
                }
            }
        }

        fn absorb(&mut self, other: &Self) {
            for (name, object) in &other.objects {
                if self.objects.contains_key(name) {
                    self.diagnostics.push(Diagnostic::warning(format!("{name} again")));
                } else {
                    self.objects.insert(Arc::clone(name), Arc::clone(object));
                }
            }
            self.diagnostics.extend(other.diagnostics.iter().cloned());
        }

        fn add_diagnostics(&mut self, diagnostics: Vec<Diagnostic>) {
            self.diagnostics.extend(diagnostics);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Words;
    use super::*;

    #[tokio::test]
    async fn the_latest_update_wins() {
        let (sender, mut receiver) = ConfigSender::<Words>::new();
        assert!(!receiver.has_changed().unwrap());
        for failures in 1..=3 {
            let health = ProviderHealth { failures, ..ProviderHealth::default() };
            sender.send(Update { health, ..Update::default() });
        }
        receiver.changed().await.unwrap();
        assert_eq!(receiver.borrow_and_update().health.failures, 3);
        assert!(!receiver.has_changed().unwrap());
    }
}
