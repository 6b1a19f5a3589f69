//! Whether a file is still the one that was read, by looking at its metadata only. A file that
//! was written just before it was read may change again within one tick of the file system's
//! clock, so its stamp is not trusted and only the content decides.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The coarsest clock of a file system in use (FAT, some NFS servers).
const TICK: Duration = Duration::from_secs(2);

/// Larger files are refused; a configuration of 100,000 routers has some 30 MiB.
const LENGTH_LIMIT: u64 = 256 << 20;

/// What is known of a file that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    identity: Identity,
    settled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    inode: Inode,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A file or directory, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), number: metadata.ino() }
    }
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        let identity = Identity {
            inode: Inode::of(metadata),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        Self { identity, settled: age.is_some_and(|age| age > TICK) }
    }

    /// Whether the file with this metadata certainly is the one that was read.
    pub(crate) fn is_still(&self, metadata: &Metadata) -> bool {
        self.settled && self.identity == Self::of(metadata).identity
    }
}

/// Reads a regular file, following links. The stamp is taken before the content, so that a write
/// in between shows as a change later.
pub(crate) fn read(path: &Path) -> io::Result<(Stamp, Vec<u8>)> {
    // Opening a pipe would wait for its other end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let stamp = Stamp::of(&metadata);
    let mut content = Vec::with_capacity(usize::try_from(metadata.len().min(1 << 24)).unwrap_or(0));
    file.take(LENGTH_LIMIT + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LENGTH_LIMIT {
        return Err(io::Error::other("larger than 256 MiB"));
    }
    Ok((stamp, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_old_and_unchanged_file_is_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, "1").unwrap();
        let (fresh, content) = read(&path).unwrap();
        assert_eq!(content, b"1");
        assert!(!fresh.is_still(&fs::metadata(&path).unwrap()));

        let old = SystemTime::now() - Duration::from_mins(1);
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        let (stamp, _) = read(&path).unwrap();
        assert!(stamp.is_still(&fs::metadata(&path).unwrap()));

        let other = directory.path().join("b");
        fs::write(&other, "2").unwrap();
        File::options().write(true).open(&other).unwrap().set_modified(old).unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(!stamp.is_still(&fs::metadata(&path).unwrap()));
    }

    #[test]
    fn a_directory_is_not_read() {
        assert!(read(tempfile::tempdir().unwrap().path()).is_err());
    }
}
