//! What was read of each file, and the whole of it. Only files whose bytes changed are parsed
//! again, and a file that cannot be read keeps its last good content. The whole is put together
//! anew from all files, so it never depends on the order of changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::load::load;
use super::walk;
use crate::config::diagnostics::Diagnostic;
use crate::config::tree::Format;
use crate::provider::stamp::{self, Stamp};
use crate::provider::watch::{Look, Scope, Watcher, link_directories};
use crate::provider::{Document, ProviderHealth, Update};

/// How often directories are listed again because a new one was found and watched.
const LISTINGS: usize = 3;

/// What to read.
#[derive(Debug, Clone)]
pub(super) enum Place {
    File(PathBuf),
    Directory(PathBuf),
}

/// See the module.
pub(super) struct Store<D> {
    place: Place,
    log_generated: bool,
    /// In the order in which Traefik reads them: by name, directories in place.
    files: BTreeMap<PathBuf, Kept<D>>,
    /// Counts the walks.
    round: u64,
    directories: BTreeSet<PathBuf>,
    links: bool,
    /// Directories that cannot be read.
    unread: Vec<(PathBuf, Diagnostic)>,
    failures: u64,
    /// What was there at the first look.
    initial: Option<Vec<PathBuf>>,
    loaded: bool,
    reads: u64,
}

struct Kept<D> {
    /// Of the content that was read last, good or not; `None` when it could not be read.
    seen: Option<(Stamp, [u8; 32])>,
    /// The last walk that found it.
    round: u64,
    good: Option<Arc<D>>,
    problem: Vec<Diagnostic>,
    /// The good content with the problem.
    shown: Arc<D>,
}

impl<D: Document> Store<D> {
    /// A store that has read nothing yet.
    pub(super) fn new(place: Place, log_generated: bool) -> Self {
        Self {
            place,
            log_generated,
            files: BTreeMap::new(),
            round: 0,
            directories: BTreeSet::new(),
            links: false,
            unread: Vec::new(),
            failures: 0,
            initial: None,
            loaded: false,
            reads: 0,
        }
    }

    /// Looks at the disk. True when anything is different. Blocks.
    pub(super) fn look(&mut self, look: &Look, watcher: &mut Watcher) -> bool {
        let reads = self.reads;
        let changed = match self.place.clone() {
            Place::File(path) => self.look_at_file(&path, look, watcher),
            Place::Directory(root) => match self.files_among(&root, &look.scope) {
                // No `any`: every file is read.
                Some(paths) => paths.into_iter().filter(|path| self.visit(path, false)).count() > 0,
                None => self.walk(&root, look, watcher),
            },
        };
        let initial = self.initial.get_or_insert_with(|| self.files.keys().cloned().collect());
        let good = |path: &PathBuf| self.files.get(path).is_none_or(|kept| kept.good.is_some());
        self.loaded = self.loaded || (self.unread.is_empty() && initial.iter().all(good));
        tracing::trace!(files = self.files.len(), read = self.reads - reads, changed, "looked");
        changed
    }

    /// All that was read, and how it went.
    pub(super) fn update(&self) -> Update<D> {
        let mut files = self.files.values();
        let config = match (files.next(), files.next()) {
            (Some(only), None) if self.unread.is_empty() => Arc::clone(&only.shown),
            _ => {
                let mut whole = D::default();
                for kept in self.files.values() {
                    whole.absorb(&kept.shown);
                }
                whole.add_diagnostics(self.unread.iter().map(|(_, error)| error.clone()).collect());
                Arc::new(whole)
            }
        };
        let health =
            ProviderHealth { failures: self.failures, error: self.error(), loaded: self.loaded };
        Update { config, health, asked: 0 }
    }

    fn error(&self) -> Option<String> {
        let unread = self.unread.iter().map(|(_, error)| error.one_line());
        let broken = self.files.values().filter_map(|kept| {
            let line = kept.problem.first()?.one_line();
            Some(match kept.good {
                Some(_) => format!("{line}; its last good content stays in use"),
                None => line,
            })
        });
        let mut errors = unread.chain(broken);
        let first = errors.next()?;
        Some(match errors.count() {
            0 => first,
            more => format!("{first} (and {more} more)"),
        })
    }

    fn look_at_file(&mut self, path: &Path, look: &Look, watcher: &mut Watcher) -> bool {
        let mut directories = link_directories(path);
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        directories.insert(parent.unwrap_or(Path::new(".")).to_owned());
        watcher.follow(&directories);
        if look.writing.iter().any(|writing| writing.file_name() == path.file_name()) {
            return false;
        }
        let named = match &look.scope {
            Scope::Paths(paths) => paths.iter().any(|named| named.file_name() == path.file_name()),
            Scope::All => false,
            Scope::Forced => true,
        };
        self.visit(path, !named)
    }

    /// The files to read, if it is clear from the names what happened.
    fn files_among<'l>(&self, root: &Path, scope: &'l Scope) -> Option<Vec<&'l PathBuf>> {
        let Scope::Paths(paths) = scope else { return None };
        if self.links {
            return None;
        }
        let mut files = Vec::new();
        for path in paths {
            if !path.starts_with(root) || self.directories.contains(path) || walk::is_internal(path)
            {
                return None;
            }
            // A new directory or link may bring any number of files.
            if fs::symlink_metadata(path).is_ok_and(|data| data.is_dir() || data.is_symlink()) {
                return None;
            }
            if Format::of_path(path).is_some() {
                files.push(path);
            }
        }
        Some(files)
    }

    fn walk(&mut self, root: &Path, look: &Look, watcher: &mut Watcher) -> bool {
        let links = link_directories(root);
        let mut listing = walk::list(root);
        for _ in 0..LISTINGS {
            let directories = listing.directories.union(&links).cloned().collect();
            if !watcher.follow(&directories) {
                break;
            }
            listing = walk::list(root);
        }
        let mut changed = false;
        let unread: Vec<_> = listing.unread.iter().map(unread_directory).collect();
        if unread != self.unread {
            self.failures += u64::from(!unread.is_empty());
            self.unread = unread;
            changed = true;
        }
        self.directories = listing.directories;
        self.links = listing.links;
        self.round += 1;
        let trusting = look.scope != Scope::Forced;
        for path in &listing.files {
            if !look.writing.contains(path) {
                changed |= self.visit(path, trusting);
            } else if let Some(kept) = self.files.get_mut(path) {
                kept.round = self.round;
            }
        }
        // What is in a directory that cannot be read is not gone: think of a lost mount.
        let lost = |path: &PathBuf| self.unread.iter().any(|(lost, _)| path.starts_with(lost));
        let before = self.files.len();
        self.files.retain(|path, kept| kept.round == self.round || lost(path));
        changed || self.files.len() != before
    }

    /// Reads a file if it changed. True when something is different now. A `trusting` visit does
    /// not open a file whose metadata is the same.
    fn visit(&mut self, path: &Path, trusting: bool) -> bool {
        let seen = self.files.get_mut(path).and_then(|kept| {
            kept.round = self.round;
            kept.seen
        });
        if trusting
            && let Some((stamp, _)) = seen
            && fs::metadata(path).is_ok_and(|metadata| stamp.is_still(&metadata))
        {
            return false;
        }
        let (stamp, content) = match stamp::read(path) {
            Ok(read) => read,
            Err(error) => return self.unreadable(path, &error),
        };
        self.reads += 1;
        let digest: [u8; 32] = Sha256::digest(&content).into();
        if seen.is_some_and(|(_, before)| before == digest) {
            if let Some(kept) = self.files.get_mut(path) {
                kept.seen = Some((stamp, digest));
            }
            return false;
        }
        match load::<D>(path, content, self.log_generated) {
            Ok(document) => {
                let seen = (stamp, digest);
                // A misspelt section is no reason to forget what stood in it.
                let known = self.files.get(path).is_some_and(|kept| kept.good.is_some());
                match document.refusal().filter(|_| known) {
                    Some(problem) => self.fail(path, Some(seen), problem),
                    None => self.keep(path, seen, document),
                }
            }
            Err(problem) => self.fail(path, Some((stamp, digest)), problem),
        }
        true
    }

    fn keep(&mut self, path: &Path, seen: (Stamp, [u8; 32]), mut document: D) {
        let previous = self.files.get(path).and_then(|kept| kept.good.as_deref());
        if let Some(previous) = previous {
            document.reuse(previous);
        }
        let shown = Arc::new(document);
        let good = Some(Arc::clone(&shown));
        let kept = Kept { seen: Some(seen), round: self.round, good, problem: Vec::new(), shown };
        self.files.insert(path.to_owned(), kept);
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) -> bool {
        if error.kind() == io::ErrorKind::NotFound && matches!(self.place, Place::Directory(_)) {
            return self.files.remove(path).is_some();
        }
        let message = format!("{} cannot be read: {error}", path.display());
        let problem = vec![Diagnostic::error(message)];
        if self.files.get(path).is_some_and(|kept| kept.problem == problem) {
            return false;
        }
        self.fail(path, None, problem);
        true
    }

    fn fail(&mut self, path: &Path, seen: Option<(Stamp, [u8; 32])>, problem: Vec<Diagnostic>) {
        self.failures += 1;
        let good = self.files.get(path).and_then(|kept| kept.good.clone());
        let mut shown = good.as_deref().cloned().unwrap_or_default();
        shown.add_diagnostics(problem.clone());
        let kept = Kept { seen, round: self.round, good, problem, shown: Arc::new(shown) };
        self.files.insert(path.to_owned(), kept);
    }
}

fn unread_directory((path, error): &(PathBuf, io::Error)) -> (PathBuf, Diagnostic) {
    let message = format!(
        "directory {} cannot be read: {error}; what was read from it stays in use",
        path.display()
    );
    (path.clone(), Diagnostic::error(message))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::provider::testing::Words;
    use crate::provider::watch::watch;

    /// A directory of `count` files that were written long ago.
    fn directory(count: usize) -> (tempfile::TempDir, Store<Words>, Watcher) {
        let directory = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - Duration::from_hours(1);
        for number in 0..count {
            let path = directory.path().join(format!("{number:05}.yml"));
            fs::write(&path, format!("word{number}: one\n")).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        }
        let mut store = Store::new(Place::Directory(directory.path().to_owned()), false);
        let (mut watcher, _) = watch(Arc::default(), None);
        assert!(store.look(&Look::at_all(), &mut watcher) || count == 0);
        (directory, store, watcher)
    }

    fn at(paths: &[&Path]) -> Look {
        let paths = paths.iter().map(|path| path.to_path_buf()).collect();
        Look { scope: Scope::Paths(paths), ..Look::at_all() }
    }

    #[test]
    fn one_change_reads_one_file_of_a_thousand() {
        let (directory, mut store, mut watcher) = directory(1000);
        assert_eq!(store.reads, 1000);
        let before = store.update().config;
        let path = directory.path().join("00500.yml");
        fs::write(&path, "word500: two\n").unwrap();
        assert!(store.look(&at(&[&path]), &mut watcher));
        assert_eq!(store.reads, 1001);
        let after = store.update().config;
        assert_eq!(after.text("word500"), Some("two"));
        assert!(Arc::ptr_eq(&before.objects["word1"], &after.objects["word1"]));

        assert!(!store.look(&Look::at_all(), &mut watcher));
        assert_eq!(store.reads, 1002, "only the one that has just changed is doubted");
        assert!(!store.look(&Look { scope: Scope::Forced, ..Look::at_all() }, &mut watcher));
        assert_eq!(store.reads, 2002);
    }

    #[test]
    fn other_names_cost_nothing_and_new_directories_everything() {
        let (directory, mut store, mut watcher) = directory(3);
        let root = directory.path();
        fs::write(root.join("a.tmp"), "").unwrap();
        assert!(!store.look(&at(&[&root.join("a.tmp"), &root.join("gone.swp")]), &mut watcher));
        assert_eq!(store.reads, 3);
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("sub/x.yml"), "x: y").unwrap();
        assert!(store.look(&at(&[&root.join("sub")]), &mut watcher));
        assert_eq!(store.update().config.text("x"), Some("y"));
        fs::remove_dir_all(root.join("sub")).unwrap();
        assert!(store.look(&at(&[&root.join("sub")]), &mut watcher));
        assert_eq!(store.update().config.text("x"), None);
    }

    #[test]
    fn a_file_being_written_is_left_alone() {
        let (directory, mut store, mut watcher) = directory(1);
        let path = directory.path().join("00000.yml");
        fs::write(&path, "half").unwrap();
        let look = Look { writing: [path.clone()].into(), ..Look::at_all() };
        assert!(!store.look(&look, &mut watcher));
        assert_eq!(store.update().config.text("word0"), Some("one"));
    }

    #[test]
    fn a_lost_directory_keeps_what_was_in_it() {
        let (directory, mut store, mut watcher) = directory(2);
        let away = directory.path().with_extension("away");
        fs::rename(directory.path(), &away).unwrap();
        assert!(store.look(&Look::at_all(), &mut watcher));
        let update = store.update();
        assert_eq!(update.config.text("word1"), Some("one"));
        assert_eq!(update.config.diagnostics.len(), 1);
        assert_eq!(update.health.failures, 1);
        assert!(!store.look(&Look::at_all(), &mut watcher));
        fs::rename(&away, directory.path()).unwrap();
        assert!(store.look(&Look::at_all(), &mut watcher));
        assert_eq!(store.update().health.error, None);
    }

    #[test]
    fn the_first_definition_wins_and_the_second_takes_over_when_it_is_gone() {
        let (directory, mut store, mut watcher) = directory(1);
        let later = directory.path().join("00001.yml");
        fs::write(&later, "word0: other").unwrap();
        assert!(store.look(&at(&[&later]), &mut watcher));
        let config = store.update().config;
        assert_eq!((config.text("word0"), config.diagnostics.len()), (Some("one"), 1));
        let first = directory.path().join("00000.yml");
        fs::remove_file(&first).unwrap();
        assert!(store.look(&at(&[&first]), &mut watcher));
        assert_eq!(store.update().config.text("word0"), Some("other"));
    }

    #[test]
    fn a_broken_newcomer_is_an_error_but_does_not_unload() {
        let (directory, mut store, mut watcher) = directory(1);
        assert!(store.update().health.loaded);
        let path = directory.path().join("new.yml");
        fs::write(&path, "a: [").unwrap();
        assert!(store.look(&at(&[&path]), &mut watcher));
        let update = store.update();
        assert!(update.health.loaded && update.health.error.unwrap().contains("new.yml:1"));
        assert_eq!(update.config.text("word0"), Some("one"));
        fs::remove_file(&path).unwrap();
        assert!(store.look(&at(&[&path]), &mut watcher));
        assert_eq!(store.update().health.error, None);
    }
}
