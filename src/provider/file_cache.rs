//! Files that the configuration names (certificates, users files), kept in memory between
//! reloads. Reads within one reload all see the same content; only [`FileCache::refresh`] looks
//! at the disk again, and says whether anything is different.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::stamp::{self, Stamp};
use crate::values::Files;

/// See the module.
#[derive(Debug, Default)]
pub struct FileCache {
    known: Mutex<HashMap<PathBuf, Known>>,
}

#[derive(Debug, Clone)]
enum Known {
    Content(Stamp, Arc<[u8]>),
    Unreadable(io::ErrorKind, String),
    /// Only its existence was asked for.
    Exists(bool),
}

impl FileCache {
    /// Looks at every file that was asked for again and forgets those that changed, appeared or
    /// disappeared. True when there were such files. Blocks.
    pub fn refresh(&self) -> bool {
        let known: Vec<(PathBuf, Known)> =
            self.lock().iter().map(|(path, known)| (path.clone(), known.clone())).collect();
        let mut changed = false;
        for (path, before) in known {
            let now = match &before {
                Known::Exists(_) => Known::Exists(path.exists()),
                Known::Content(stamp, _)
                    if fs::metadata(&path).is_ok_and(|metadata| stamp.is_still(&metadata)) =>
                {
                    continue;
                }
                Known::Content(..) | Known::Unreadable(..) => Known::read(&path),
            };
            if now.is_same(&before) {
                self.lock().insert(path, now);
            } else {
                changed = true;
                // Whoever still needs it reads it again; what nobody needs is gone this way.
                self.lock().remove(&path);
            }
        }
        changed
    }

    /// How many paths are known.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no path is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, path: &Path) -> Option<Known> {
        self.lock().get(path).cloned()
    }
}

impl Files for FileCache {
    fn read(&self, path: &Path) -> io::Result<Arc<[u8]>> {
        let known = match self.get(path) {
            Some(known @ (Known::Content(..) | Known::Unreadable(..))) => known,
            Some(Known::Exists(_)) | None => {
                let known = Known::read(path);
                self.lock().insert(path.to_owned(), known.clone());
                known
            }
        };
        match known {
            Known::Content(_, content) => Ok(content),
            Known::Unreadable(kind, message) => Err(io::Error::new(kind, message)),
            Known::Exists(_) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        match self.get(path) {
            Some(Known::Exists(exists)) => exists,
            Some(Known::Content(..)) => true,
            Some(Known::Unreadable(kind, _)) => kind != io::ErrorKind::NotFound,
            None => {
                let exists = path.exists();
                self.lock().insert(path.to_owned(), Known::Exists(exists));
                exists
            }
        }
    }
}

impl Known {
    fn read(path: &Path) -> Self {
        match stamp::read(path) {
            Ok((stamp, content)) => Self::Content(stamp, content.into()),
            Err(error) => Self::Unreadable(error.kind(), error.to_string()),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Content(_, one), Self::Content(_, other)) => one == other,
            (Self::Unreadable(one, _), Self::Unreadable(other, _)) => one == other,
            (Self::Exists(one), Self::Exists(other)) => one == other,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_stays_until_refreshed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cert.pem");
        let cache = FileCache::default();
        fs::write(&path, "one").unwrap();
        assert_eq!(&*cache.read(&path).unwrap(), b"one");
        assert!(!cache.refresh());

        fs::write(&path, "two").unwrap();
        assert_eq!(&*cache.read(&path).unwrap(), b"one");
        assert!(cache.refresh());
        assert_eq!(&*cache.read(&path).unwrap(), b"two");
        assert!(!cache.refresh());
    }

    #[test]
    fn the_same_content_written_again_is_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let cache = FileCache::default();
        fs::write(&path, "same").unwrap();
        let before = cache.read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "same").unwrap();
        assert!(!cache.refresh());
        assert_eq!(before, cache.read(&path).unwrap());
    }

    #[test]
    fn files_that_come_and_go_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("a"), directory.path().join("b"));
        let cache = FileCache::default();
        assert_eq!(cache.read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!cache.exists(&path) && !cache.exists(&other));
        assert!(!cache.refresh());

        fs::write(&path, "x").unwrap();
        fs::write(&other, "y").unwrap();
        assert!(!cache.exists(&path) && !cache.exists(&other));
        assert!(cache.refresh());
        assert!(cache.exists(&path) && cache.exists(&other));
        assert_eq!(&*cache.read(&path).unwrap(), b"x");

        fs::remove_file(&path).unwrap();
        assert!(cache.refresh());
        assert_eq!(cache.len(), 1);
        assert!(cache.read(&path).is_err());
    }

    #[test]
    fn a_swapped_link_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let cache = FileCache::default();
        fs::write(at("one"), "1").unwrap();
        fs::write(at("two"), "2").unwrap();
        std::os::unix::fs::symlink("one", at("current")).unwrap();
        assert_eq!(&*cache.read(&at("current")).unwrap(), b"1");
        std::os::unix::fs::symlink("two", at("next")).unwrap();
        fs::rename(at("next"), at("current")).unwrap();
        assert!(cache.refresh());
        assert_eq!(&*cache.read(&at("current")).unwrap(), b"2");
    }
}
