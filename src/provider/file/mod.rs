//! The file provider: one file, or all files of a directory, watched. Each file that cannot be
//! read keeps the last good copy of itself; the others go on changing.

mod load;
mod store;
pub mod template;
mod walk;

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::store::{Place, Store};
use super::watch::{self, Look, Scope, Watcher};
use super::{ConfigSender, Document, LookAgain, Provider, ProviderError, Update};
use crate::config::tree::Format;
use crate::values::is_default;

/// `providers.file` of the static configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FileProviderConfig {
    /// Read all configuration files in this directory and below; wins over `filename`.
    #[serde(skip_serializing_if = "is_default")]
    pub directory: PathBuf,
    /// Read this one file.
    #[serde(skip_serializing_if = "is_default")]
    pub filename: PathBuf,
    /// Look at the files again when they change. Default: true.
    pub watch: bool,
    /// Log what templates produce, at level debug.
    #[serde(skip_serializing_if = "is_default")]
    pub debug_log_generated_template: bool,
}

impl Default for FileProviderConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::new(),
            filename: PathBuf::new(),
            watch: true,
            debug_log_generated_template: false,
        }
    }
}

impl FileProviderConfig {
    fn place(&self) -> Result<Place, ProviderError> {
        if !self.directory.as_os_str().is_empty() {
            Ok(Place::Directory(absolute(&self.directory)))
        } else if self.filename.as_os_str().is_empty() {
            Err(ProviderError::NothingToRead)
        } else if Format::of_path(&self.filename).is_none() {
            Err(ProviderError::UnknownFormat(self.filename.clone()))
        } else {
            Ok(Place::File(absolute(&self.filename)))
        }
    }
}

/// Events name files by absolute paths. A current directory that is gone is found out when reading.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// See the module.
pub struct FileProvider<D> {
    config: FileProviderConfig,
    place: Place,
    again: Arc<LookAgain>,
    documents: PhantomData<fn() -> D>,
}

impl<D: Document> FileProvider<D> {
    /// A provider of what `config` names. When it is asked to look `again` (SIGHUP), it does so
    /// into every file, watched or not.
    pub fn new(config: FileProviderConfig, again: Arc<LookAgain>) -> Result<Self, ProviderError> {
        let place = config.place()?;
        Ok(Self { config, place, again, documents: PhantomData })
    }

    /// Reads everything once, for checking. Blocks.
    pub fn read_once(&self) -> Update<D> {
        let mut store = self.store();
        let (mut unwatched, _) = watch::watch(Arc::default(), None);
        store.look(&Look::at_all(), &mut unwatched);
        store.update()
    }

    fn store(&self) -> Store<D> {
        Store::new(self.place.clone(), self.config.debug_log_generated_template)
    }
}

impl<D: Document> Provider<D> for FileProvider<D> {
    async fn run(
        self,
        out: ConfigSender<D>,
        shutdown: CancellationToken,
    ) -> Result<(), ProviderError> {
        let poll = self.config.watch.then_some(watch::POLL);
        let store = self.store();
        let (watcher, mut events) = watch::watch(Arc::clone(&self.again.wake), poll);
        let mut state = State { store, watcher };
        let mut look = Look::at_all();
        let mut first = true;
        let mut latest = Update::default();
        loop {
            let asked = (look.scope == Scope::Forced).then(|| self.again.asked());
            let update;
            (state, update) = spawn_blocking(move || state.look(&look, first))
                .await
                .map_err(|error| ProviderError::Stopped(error.to_string()))?;
            if update.is_some() || asked.is_some() {
                let asked = asked.unwrap_or(latest.asked);
                latest = Update { asked, ..update.unwrap_or(latest) };
                out.send(latest.clone());
            }
            first = false;
            look = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                look = events.next() => look,
            };
        }
    }
}

/// What goes to the blocking thread and back for each look.
struct State<D> {
    store: Store<D>,
    watcher: Watcher,
}

impl<D: Document> State<D> {
    fn look(mut self, look: &Look, always: bool) -> (Self, Option<Update<D>>) {
        let changed = self.store.look(look, &mut self.watcher);
        let update = (changed || always).then(|| self.store.update());
        (self, update)
    }
}

#[cfg(test)]
mod tests;
