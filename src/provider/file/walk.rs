//! Lists the configuration files of a directory and its sub-directories, in no order. Links are followed, but no directory is listed twice, and what Kubernetes
//! hides behind `..` is only read through the links that show it.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::tree::Format;
use crate::provider::stamp::Inode;

/// Directories deeper than this are not looked into.
const DEPTH_LIMIT: usize = 64;

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Configuration files.
    pub(super) files: Vec<PathBuf>,
    /// Directories that were read, the top one included.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Directories that could not be read.
    pub(super) unread: Vec<(PathBuf, io::Error)>,
    /// Whether a link was followed; a change behind it is reported under another name.
    pub(super) links: bool,
}

/// Lists what is below `root`. Blocks.
pub(super) fn list(root: &Path) -> Listing {
    let mut listing = Listing::default();
    let mut seen = HashSet::new();
    listing.enter(root, 0, &mut seen);
    listing
}

/// Whether the name is one that Kubernetes uses behind the scenes of a mounted volume.
pub(super) fn is_internal(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
}

impl Listing {
    fn enter(&mut self, directory: &Path, depth: usize, seen: &mut HashSet<Inode>) {
        match fs::metadata(directory) {
            Ok(metadata) if depth > DEPTH_LIMIT || !seen.insert(Inode::of(&metadata)) => return,
            Ok(_) => {}
            Err(error) => return self.fail(directory, depth, error),
        }
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => return self.fail(directory, depth, error),
        };
        self.directories.insert(directory.to_owned());
        let mut inner = Vec::new();
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.fail(directory, depth, error),
            };
            let path = entry.path();
            if is_internal(&path) {
                continue;
            }
            let Ok(mut kind) = entry.file_type() else { continue };
            if kind.is_symlink() {
                self.links = true;
                // A link to nothing is no file.
                let Ok(target) = fs::metadata(&path) else { continue };
                kind = target.file_type();
            }
            if kind.is_dir() {
                inner.push(path);
            } else if kind.is_file() && Format::of_path(&path).is_some() {
                self.files.push(path);
            }
        }
        // Of two names for one directory the first in order is used.
        inner.sort_by(|a, b| name(a).cmp(name(b)));
        for path in inner {
            self.enter(&path, depth + 1, seen);
        }
    }

    fn fail(&mut self, directory: &Path, depth: usize, error: io::Error) {
        // A sub-directory that is gone by now is just gone; the top one must be there.
        if depth == 0 || error.kind() != io::ErrorKind::NotFound {
            self.unread.push((directory.to_owned(), error));
        }
    }
}

fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(root: &Path) -> Vec<String> {
        let mut files = list(root).files;
        files.sort();
        files.iter().map(|f| f.strip_prefix(root).unwrap().display().to_string()).collect()
    }

    #[test]
    fn only_known_formats_are_listed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("b/deep")).unwrap();
        fs::create_dir(root.join("e.yml")).unwrap();
        for file in ["c.yml", "a.toml", "b/z.json", "b/deep/y.yaml", "d.txt", "b.yml", "README"] {
            fs::write(root.join(file), "").unwrap();
        }
        assert_eq!(names(root), ["a.toml", "b/deep/y.yaml", "b/z.json", "b.yml", "c.yml"]);
        let listing = list(root);
        assert_eq!(listing.directories.len(), 4);
        assert!(!listing.links);
    }

    #[test]
    fn a_mounted_volume_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("..2026_01/sub")).unwrap();
        fs::write(root.join("..2026_01/a.yml"), "").unwrap();
        fs::write(root.join("..2026_01/sub/b.yml"), "").unwrap();
        symlink("..2026_01", root.join("..data")).unwrap();
        symlink("..data/a.yml", root.join("a.yml")).unwrap();
        symlink("..data/sub", root.join("sub")).unwrap();
        symlink("nowhere.yml", root.join("dangling.yml")).unwrap();
        assert_eq!(names(root), ["a.yml", "sub/b.yml"]);
        assert!(list(root).links);
    }

    #[test]
    fn links_in_a_circle_end() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::write(root.join("a.yml"), "").unwrap();
        symlink(".", root.join("again")).unwrap();
        assert_eq!(names(root), ["a.yml"]);
    }

    #[test]
    fn a_missing_top_directory_is_an_error() {
        let listing = list(Path::new("/does/not/exist"));
        assert_eq!(listing.unread.len(), 1);
        assert!(listing.files.is_empty());
    }
}
