//! Notices that something in a set of directories changed. An event only means "look again";
//! what is new is decided by reading. A slow poll runs beside the events, because single-file
//! mounts and network file systems have none, and a trigger asks for a look at any time.
//!
//! A file that is being written is left alone until its writer closes it or pauses for long: the
//! first half of a configuration is often a valid one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::stamp::Inode;

/// How often to look without any event.
pub(crate) const POLL: Duration = Duration::from_secs(5);
/// Events come in bursts; a look waits for a pause this long …
const QUIET: Duration = Duration::from_millis(10);
/// … but not longer than this.
const BURST: Duration = Duration::from_millis(50);
/// How long a file that is being written is left alone.
const WRITING: Duration = Duration::from_secs(1);
/// With more changed files than this, looking at all of them is cheaper.
const NAMES: usize = 4096;

/// A reason to look.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) scope: Scope,
    /// Files to leave alone, because they are being written.
    pub(crate) writing: HashSet<PathBuf>,
}

/// Where to look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// At these paths.
    Paths(Vec<PathBuf>),
    /// At everything.
    All,
    /// At everything, and into every file whether it seems changed or not.
    Forced,
}

impl Look {
    /// A look at everything.
    pub(crate) fn at_all() -> Self {
        Self { scope: Scope::All, writing: HashSet::new() }
    }
}

/// The half that waits.
pub(crate) struct Events {
    shared: Arc<Shared>,
    trigger: Arc<Notify>,
    poll: Option<Duration>,
    polled: Instant,
}

/// The half that knows which directories are watched. Its methods block.
pub(crate) struct Watcher {
    system: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, Inode>,
    warned: bool,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Notify,
}

#[derive(Default)]
struct Pending {
    all: bool,
    paths: BTreeSet<PathBuf>,
    writing: HashMap<PathBuf, Instant>,
}

/// Watches directories (none at first); looks are also asked for by `trigger` and, if `poll`
/// says so, by time. Without `poll` nothing is watched and only the trigger counts.
pub(crate) fn watch(trigger: Arc<Notify>, poll: Option<Duration>) -> (Watcher, Events) {
    let shared = Arc::new(Shared::default());
    let system = poll.and_then(|_| {
        let shared = Arc::clone(&shared);
        let handler = move |event| shared.note(event);
        notify::recommended_watcher(handler).inspect_err(warn).ok()
    });
    let watcher = Watcher { system, watched: BTreeMap::new(), warned: false };
    (watcher, Events { shared, trigger, poll, polled: Instant::now() })
}

fn warn(error: &notify::Error) {
    tracing::warn!(
        %error,
        "changes of files are not reported by the system; looking every {} seconds instead \
         (see fs.inotify.max_user_watches and max_user_instances)",
        POLL.as_secs()
    );
}

impl Events {
    /// Waits for the next reason to look. May be dropped and called again without losing one.
    pub(crate) async fn next(&mut self) -> Look {
        loop {
            if !self.shared.is_ready() {
                let poll_at = self.poll.map(|poll| self.polled + poll);
                let wait = [poll_at, self.shared.written_at()].into_iter().flatten().min();
                tokio::select! {
                    () = self.trigger.notified() => {
                        self.polled = Instant::now();
                        return Look { scope: Scope::Forced, writing: self.shared.writing() };
                    }
                    () = self.shared.wake.notified() => {}
                    () = sleep_until_some(wait) => {}
                }
            }
            if self.shared.is_ready() {
                self.pause().await;
            }
            let now = Instant::now();
            let polling = self.poll.is_some_and(|poll| now >= self.polled + poll);
            if let Some(look) = self.shared.take(now, polling) {
                if look.scope == Scope::All {
                    self.polled = now;
                }
                return look;
            }
        }
    }

    /// Waits for the end of a burst.
    async fn pause(&self) {
        let end = Instant::now() + BURST;
        loop {
            let quiet = (Instant::now() + QUIET).min(end);
            tokio::select! {
                biased;
                () = sleep_until(quiet) => return,
                () = self.shared.wake.notified() => {}
            }
        }
    }
}

async fn sleep_until_some(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => future::pending().await,
    }
}

impl Watcher {
    /// Watches exactly these directories. True when one is watched that was not before: what
    /// happened in it until now has not been reported.
    pub(crate) fn follow(&mut self, directories: &BTreeSet<PathBuf>) -> bool {
        let Some(system) = &mut self.system else { return false };
        let mut wanted = BTreeMap::new();
        let mut seen = HashSet::new();
        for path in directories {
            // The system knows a directory by its inode: a second name would replace the first.
            if let Ok(metadata) = fs::metadata(path)
                && seen.insert(Inode::of(&metadata))
            {
                wanted.insert(path, Inode::of(&metadata));
            }
        }
        self.watched.retain(|path, inode| {
            let keep = wanted.get(path) == Some(inode);
            if !keep {
                // An error means that the directory is gone, and its watch with it.
                drop(system.unwatch(path));
            }
            keep
        });
        let mut added = false;
        for (path, inode) in wanted {
            if self.watched.contains_key(path) {
                continue;
            }
            match system.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path.clone(), inode);
                    added = true;
                }
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => {
                    if !self.warned {
                        warn(&error);
                    }
                    self.warned = true;
                }
            }
        }
        added
    }
}

/// The directories in which a link on the way to `path` stands: replacing the link changes what
/// `path` means, and is reported there only.
pub(crate) fn link_directories(path: &Path) -> BTreeSet<PathBuf> {
    let is_link = |path: &&Path| fs::symlink_metadata(path).is_ok_and(|data| data.is_symlink());
    let links = path.ancestors().filter(is_link);
    links
        .filter_map(Path::parent)
        .filter(|p| !p.as_os_str().is_empty())
        .map(Path::to_owned)
        .collect()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, event: notify::Result<Event>) {
        let noted = match event {
            Ok(event) => self.lock().note(event),
            Err(error) => {
                warn(&error);
                self.lock().all = true;
                true
            }
        };
        if noted {
            self.wake.notify_one();
        }
    }

    fn is_ready(&self) -> bool {
        let pending = self.lock();
        pending.all || pending.paths.iter().any(|path| !pending.writing.contains_key(path))
    }

    /// When the first file counts as written although nobody closed it.
    fn written_at(&self) -> Option<Instant> {
        self.lock().writing.values().min().map(|since| *since + WRITING)
    }

    fn writing(&self) -> HashSet<PathBuf> {
        self.lock().writing.keys().cloned().collect()
    }

    fn take(&self, now: Instant, all: bool) -> Option<Look> {
        self.lock().take(now, all)
    }
}

impl Pending {
    /// True when there is something to do or to wait for.
    fn note(&mut self, event: Event) -> bool {
        if event.need_rescan() {
            self.all = true;
        }
        for path in event.paths {
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => {
                    self.writing.entry(path).or_insert_with(Instant::now);
                }
                EventKind::Modify(ModifyKind::Metadata(_)) => {
                    self.paths.insert(path);
                }
                // Reading is an event, too; both halves of a renaming came before.
                EventKind::Access(AccessKind::Open(_) | AccessKind::Close(AccessMode::Read))
                | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return false,
                _ => {
                    self.writing.remove(&path);
                    self.paths.insert(path);
                }
            }
        }
        if self.paths.len() + self.writing.len() > NAMES {
            *self = Self { all: true, ..Self::default() };
        }
        true
    }

    fn take(&mut self, now: Instant, all: bool) -> Option<Look> {
        let Self { paths, writing, .. } = self;
        writing.retain(|path, since| {
            let still = now < *since + WRITING;
            if !still {
                paths.insert(path.clone());
            }
            still
        });
        let scope = if self.all || all {
            *self = Self { writing: std::mem::take(&mut self.writing), ..Self::default() };
            Scope::All
        } else {
            let free = |path: &PathBuf| !self.writing.contains_key(path);
            let (ready, held): (BTreeSet<_>, _) =
                std::mem::take(&mut self.paths).into_iter().partition(free);
            self.paths = held;
            Scope::Paths(ready.into_iter().collect())
        };
        if scope == Scope::Paths(Vec::new()) {
            return None;
        }
        Some(Look { scope, writing: self.writing.keys().cloned().collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn set(path: &Path) -> BTreeSet<PathBuf> {
        BTreeSet::from([path.to_owned()])
    }

    async fn next(events: &mut Events) -> Scope {
        timeout(DEADLINE, events.next()).await.unwrap().scope
    }

    #[tokio::test]
    async fn a_change_names_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yml");
        let (mut watcher, mut events) = watch(Arc::default(), Some(Duration::from_mins(10)));
        assert!(watcher.follow(&set(directory.path())));
        assert!(!watcher.follow(&set(directory.path())));
        fs::write(&path, "a").unwrap();
        assert_eq!(next(&mut events).await, Scope::Paths(vec![path.clone()]));
        fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(next(&mut events).await, Scope::Paths(vec![path]));
    }

    #[tokio::test]
    async fn a_file_being_written_waits_for_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yml");
        fs::write(&path, "a").unwrap();
        let (mut watcher, mut events) = watch(Arc::default(), Some(Duration::from_mins(10)));
        watcher.follow(&set(directory.path()));
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        file.sync_all().unwrap();
        assert!(timeout(WRITING / 4, events.next()).await.is_err(), "half a file is no reason");
        drop(file);
        assert_eq!(next(&mut events).await, Scope::Paths(vec![path]));
    }

    #[tokio::test]
    async fn a_writer_that_never_closes_is_looked_at_in_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yml");
        let (mut watcher, mut events) = watch(Arc::default(), Some(Duration::from_mins(10)));
        let mut file = fs::File::create(&path).unwrap();
        watcher.follow(&set(directory.path()));
        file.write_all(b"all of it").unwrap();
        assert_eq!(next(&mut events).await, Scope::Paths(vec![path]));
        drop(file);
    }

    #[tokio::test]
    async fn trigger_and_time_ask_for_a_look() {
        let trigger = Arc::new(Notify::new());
        let (_watcher, mut events) = watch(Arc::clone(&trigger), None);
        trigger.notify_one();
        assert_eq!(next(&mut events).await, Scope::Forced);
        let (_watcher, mut events) = watch(trigger, Some(Duration::from_millis(20)));
        assert_eq!(next(&mut events).await, Scope::All);
        assert_eq!(next(&mut events).await, Scope::All);
    }

    #[test]
    fn an_overflow_and_too_many_names_mean_everything() {
        let mut pending = Pending::default();
        let rescan = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert!(pending.note(rescan));
        assert_eq!(pending.take(Instant::now(), false).unwrap().scope, Scope::All);
        assert!(pending.take(Instant::now(), false).is_none());
        for number in 0..=NAMES {
            let kind = EventKind::Remove(notify::event::RemoveKind::File);
            pending.note(Event::new(kind).add_path(PathBuf::from(number.to_string())));
        }
        assert!(pending.paths.is_empty());
        assert_eq!(pending.take(Instant::now(), false).unwrap().scope, Scope::All);
    }

    #[tokio::test]
    async fn without_the_system_there_is_the_poll() {
        let shared = Arc::new(Shared::default());
        let mut watcher = Watcher { system: None, watched: BTreeMap::new(), warned: false };
        assert!(!watcher.follow(&set(Path::new("/"))));
        let poll = Some(Duration::from_millis(10));
        let mut events = Events { shared, trigger: Arc::default(), poll, polled: Instant::now() };
        assert_eq!(next(&mut events).await, Scope::All);
    }

    #[test]
    fn links_on_the_way_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("one")).unwrap();
        fs::write(root.join("one/a.yml"), "").unwrap();
        std::os::unix::fs::symlink("one", root.join("current")).unwrap();
        assert!(link_directories(&root.join("current/a.yml")).contains(root));
        assert!(!link_directories(&root.join("one/a.yml")).contains(root));
    }
}
