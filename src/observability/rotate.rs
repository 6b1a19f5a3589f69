//! Log files: one that is opened again on demand, and one that rotates by its size.
//!
//! A line is never split over two files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::writer::Sink;

/// Form of the time in a rotated file's name, in UTC.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// A file that another program moves away, and that is then opened again.
pub(super) struct PlainFile {
    path: PathBuf,
    file: File,
}

impl PlainFile {
    /// Opens or creates the file, with its folders.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        create_folder(path)?;
        Ok(Self { path: path.to_owned(), file: append(path, 0o664)? })
    }
}

impl Sink for PlainFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)
    }

    fn reopen(&mut self) -> io::Result<()> {
        // When it cannot be opened, lines go on into the old one.
        self.file = append(&self.path, 0o664)?;
        Ok(())
    }
}

/// When to rotate, and what to keep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes in one file.
    pub(super) bytes: u64,
    /// Rotated files to keep; 0: all.
    pub(super) backups: usize,
    /// Age of rotated files to keep; zero: any.
    pub(super) age: Duration,
}

/// A file that is renamed when it is full; the oldest renamed ones are removed.
pub(super) struct RotatingFile {
    path: PathBuf,
    file: File,
    size: u64,
    limits: Limits,
    /// Earliest time that the next rotated file may be named after.
    last: Timestamp,
}

impl RotatingFile {
    /// Opens or creates the file, with its folders.
    pub(super) fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        create_folder(path)?;
        let file = append(path, 0o666)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, limits, last: Timestamp::MIN })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let (prefix, suffix) = self.name_parts();
        // Two files of the same millisecond would not be told apart by age: the later one gets a
        // later time.
        let mut time = Timestamp::now().max(self.last);
        let target = loop {
            let stamp = time.strftime(STAMP);
            let target = self.path.with_file_name(format!("{prefix}{stamp}{suffix}"));
            time = time.saturating_add(SignedDuration::from_millis(1)).unwrap_or(time);
            if !target.exists() {
                break target;
            }
        };
        self.last = time;
        fs::rename(&self.path, &target)?;
        self.file = append(&self.path, 0o666)?;
        self.size = 0;
        // An old file that cannot be removed is no reason to lose new lines.
        drop(self.remove_old());
        Ok(())
    }

    /// What is in front of and behind the time in a rotated file's name.
    fn name_parts(&self) -> (String, String) {
        let part = |part: Option<&std::ffi::OsStr>| {
            part.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let extension = part(self.path.extension());
        let suffix = if extension.is_empty() { extension } else { format!(".{extension}") };
        (format!("{}-", part(self.path.file_stem())), suffix)
    }

    fn remove_old(&self) -> io::Result<()> {
        let (prefix, suffix) = self.name_parts();
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut rotated: Vec<(String, PathBuf)> = Vec::new();
        for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let stamp = name.strip_prefix(&prefix).and_then(|name| name.strip_suffix(&suffix));
            if let Some(stamp) = stamp.filter(|stamp| stamp_time(stamp).is_some()) {
                rotated.push((stamp.to_owned(), entry.path()));
            }
        }
        rotated.sort_unstable_by(|a, b| b.cmp(a));
        let oldest = Timestamp::now().checked_sub(self.limits.age).ok();
        for (index, (stamp, path)) in rotated.iter().enumerate() {
            let surplus = self.limits.backups > 0 && index >= self.limits.backups;
            let stale = !self.limits.age.is_zero() && stamp_time(stamp) < oldest;
            if surplus || stale {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Sink for RotatingFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut rest = lines;
        while !rest.is_empty() {
            let room = self.limits.bytes.saturating_sub(self.size);
            let fits = whole_lines(rest, usize::try_from(room).unwrap_or(usize::MAX));
            if fits == 0 && self.size > 0 {
                self.rotate()?;
                continue;
            }
            // A line that is longer than a whole file gets a file of its own.
            let first = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            let (now, later) = rest.split_at(fits.max(if self.size == 0 { first } else { 0 }));
            self.file.write_all(now)?;
            self.size += now.len() as u64;
            rest = later;
        }
        Ok(())
    }
}

/// Length of the whole lines at the start of `lines` that fit into `room`.
fn whole_lines(lines: &[u8], room: usize) -> usize {
    if lines.len() <= room {
        return lines.len();
    }
    let head = lines.get(..room).unwrap_or(lines);
    memchr::memrchr(b'\n', head).map_or(0, |end| end + 1)
}

fn stamp_time(stamp: &str) -> Option<Timestamp> {
    let time = DateTime::strptime(STAMP, stamp).ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp())
}

fn append(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(mode).open(path)
}

fn create_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            DirBuilder::new().recursive(true).mode(0o755).create(folder)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn rotation_keeps_lines_whole_and_removes_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/proxy.log");
        let limits = Limits { bytes: 10, backups: 2, age: Duration::ZERO };
        let mut file = RotatingFile::open(&path, limits).unwrap();
        file.write(b"one\ntwo\nthree\nfour\n").unwrap();
        file.write(b"a line that is too long\nfive\n").unwrap();
        let files = files(&folder.path().join("logs"));
        let contents: Vec<&str> = files.iter().map(|(_, content)| content.as_str()).collect();
        assert_eq!(contents.len(), 3, "{files:?}");
        assert!(contents.contains(&"five\n"), "{files:?}");
        assert!(contents.contains(&"a line that is too long\n"), "{files:?}");
        for (name, content) in &files {
            assert!(content.ends_with('\n'));
            assert!(name == "proxy.log" || stamp_time(&name[6..29]).is_some(), "{name}");
        }
    }

    #[test]
    fn files_past_their_age_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("proxy-2001-01-01T00-00-00.000.log");
        let other = folder.path().join("proxy-notes.log");
        fs::write(&old, "old\n").unwrap();
        fs::write(&other, "not ours\n").unwrap();
        let limits = Limits { bytes: 4, backups: 0, age: Duration::from_hours(24) };
        let mut file = RotatingFile::open(&folder.path().join("proxy.log"), limits).unwrap();
        file.write(b"one\ntwo\n").unwrap();
        assert!(!old.exists());
        assert!(other.exists());
        assert_eq!(files(folder.path()).len(), 3);
    }
}
