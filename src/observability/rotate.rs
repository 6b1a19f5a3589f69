//! Log files: one that is opened again on demand, and one that rotates by its size.
//!
//! A line is never split over two files. Rotated files are named and compressed as lumberjack does it for Traefik.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
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

/// A file that is renamed when it is full; renamed ones are compressed, and the oldest removed.
pub(super) struct RotatingFile {
    path: PathBuf,
    file: File,
    size: u64,
    limits: Limits,
    janitor: Janitor,
    /// Earliest time that the next rotated file may be named after.
    last: Timestamp,
}

impl RotatingFile {
    /// Opens or creates the file, with its folders.
    pub(super) fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        create_folder(path)?;
        let file = append(path, 0o666)?;
        let size = file.metadata()?.len();
        let janitor = Janitor::start(Shelf { path: path.to_owned(), limits })?;
        // What the last run has left behind.
        janitor.call();
        Ok(Self { path: path.to_owned(), file, size, limits, janitor, last: Timestamp::MIN })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let (prefix, suffix) = name_parts(&self.path);
        // Two files of the same millisecond would not be told apart by age: the later one gets a
        // later time.
        let mut time = Timestamp::now().max(self.last);
        let target = loop {
            let stamp = time.strftime(STAMP);
            let target = self.path.with_file_name(format!("{prefix}{stamp}{suffix}"));
            time = time.saturating_add(SignedDuration::from_millis(1)).unwrap_or(time);
            if !target.exists() && !compressed_name(&target).exists() {
                break target;
            }
        };
        self.last = time;
        fs::rename(&self.path, &target)?;
        self.file = append(&self.path, 0o666)?;
        self.size = 0;
        self.janitor.call();
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

/// Compresses and removes in a thread of its own: a large file takes seconds, in which new lines come.
struct Janitor {
    bell: Option<SyncSender<()>>,
    stopped: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Janitor {
    fn start(shelf: Shelf) -> io::Result<Self> {
        let (bell, rings) = sync_channel(1);
        let stopped = Arc::new(AtomicBool::new(false));
        let thread = {
            let stopped = Arc::clone(&stopped);
            let work = move || tidy_when_called(&shelf, &rings, &stopped);
            thread::Builder::new().name("log-files".to_owned()).spawn(work)?
        };
        Ok(Self { bell: Some(bell), stopped, thread: Some(thread) })
    }

    fn call(&self) {
        if let Some(bell) = &self.bell {
            // A full channel says that it will look again anyway.
            let _ = bell.try_send(());
        }
    }
}

impl Drop for Janitor {
    /// What is not done yet is done by the next run.
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.bell = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn tidy_when_called(shelf: &Shelf, rings: &Receiver<()>, stopped: &AtomicBool) {
    while rings.recv().is_ok() {
        // An old file that cannot be compressed or removed is no reason to lose new lines.
        drop(shelf.tidy(stopped));
    }
}

/// The rotated files of one log.
struct Shelf {
    path: PathBuf,
    limits: Limits,
}

impl Shelf {
    fn tidy(&self, stopped: &AtomicBool) -> io::Result<()> {
        let mut rotated = self.rotated()?;
        rotated.sort_unstable_by(|one, other| other.cmp(one));
        let oldest = Timestamp::now().checked_sub(self.limits.age).ok();
        let mut backups = 0;
        let mut last = None;
        for (stamp, path) in &rotated {
            // A file that is being compressed is there twice.
            if last != Some(stamp) {
                backups += 1;
                last = Some(stamp);
            }
            let surplus = self.limits.backups > 0 && backups > self.limits.backups;
            let stale = !self.limits.age.is_zero() && stamp_time(stamp) < oldest;
            if surplus || stale {
                fs::remove_file(path)?;
            } else if path.extension().is_none_or(|extension| extension != "gz") {
                compress(path, stopped)?;
            }
        }
        Ok(())
    }

    /// The rotated files with the times that they are named after.
    fn rotated(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let (prefix, suffix) = name_parts(&self.path);
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut rotated = Vec::new();
        for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let plain = name.strip_suffix(".gz").unwrap_or(&name);
            let stamp = plain.strip_prefix(&prefix).and_then(|name| name.strip_suffix(&suffix));
            if let Some(stamp) = stamp.filter(|stamp| stamp_time(stamp).is_some()) {
                rotated.push((stamp.to_owned(), entry.path()));
            }
        }
        Ok(rotated)
    }
}

/// Puts a file's compressed form into its place. Half of one is never seen under its name.
fn compress(path: &Path, stopped: &AtomicBool) -> io::Result<()> {
    let target = compressed_name(path);
    let unfinished = target.with_added_extension("tmp");
    let mut from = File::open(path)?;
    let to = OpenOptions::new().write(true).create(true).truncate(true).open(&unfinished)?;
    to.set_permissions(from.metadata()?.permissions())?;
    let mut to = GzEncoder::new(to, Compression::default());
    let mut piece = vec![0; 256 << 10];
    loop {
        if stopped.load(Ordering::Acquire) {
            return fs::remove_file(&unfinished);
        }
        let length = from.read(&mut piece)?;
        if length == 0 {
            break;
        }
        to.write_all(piece.get(..length).unwrap_or_default())?;
    }
    to.finish()?;
    fs::rename(&unfinished, target)?;
    fs::remove_file(path)
}

fn compressed_name(path: &Path) -> PathBuf {
    path.with_added_extension("gz")
}

/// What is in front of and behind the time in a rotated file's name.
fn name_parts(path: &Path) -> (String, String) {
    let part = |part: Option<&std::ffi::OsStr>| {
        part.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let extension = part(path.extension());
    let suffix = if extension.is_empty() { extension } else { format!(".{extension}") };
    (format!("{}-", part(path.file_stem())), suffix)
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
    use flate2::read::GzDecoder;
    use tokio::time::Instant;

    use super::*;

    /// Names and contents, the rotated ones unpacked.
    fn files(folder: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                let mut text = String::new();
                if name.strip_suffix(".gz").is_some() {
                    let file = File::open(entry.path()).unwrap();
                    GzDecoder::new(file).read_to_string(&mut text).unwrap();
                } else {
                    text = fs::read_to_string(entry.path()).unwrap();
                }
                (name, text)
            })
            .collect();
        files.sort();
        files
    }

    fn until(done: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !done() {
            assert!(Instant::now() < end, "it takes too long");
            thread::yield_now();
        }
    }

    fn shelf(path: &Path, limits: Limits) -> Shelf {
        Shelf { path: path.to_owned(), limits }
    }

    /// LOG-3: `name-2006-01-02T15-04-05.000.log.gz`
    #[test]
    fn rotation_keeps_lines_whole_and_compresses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/proxy.log");
        let limits = Limits { bytes: 11, backups: 0, age: Duration::ZERO };
        let mut file = RotatingFile::open(&path, limits).unwrap();
        file.write(b"one\ntwo\nthree\nfour\n").unwrap();
        file.write(b"a line that is too long\nfive\n").unwrap();
        let folder = folder.path().join("logs");
        let names = || {
            let entries = fs::read_dir(&folder).unwrap();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect::<Vec<_>>()
        };
        until(|| {
            names().len() == 4
                && names()
                    .iter()
                    .all(|name| name == "proxy.log" || name.strip_suffix(".log.gz").is_some())
        });
        drop(file);
        let files = files(&folder);
        let contents: Vec<&str> = files.iter().map(|(_, content)| content.as_str()).collect();
        // The rotated ones by their times, then the one that is written to.
        assert_eq!(
            contents,
            ["one\ntwo\n", "three\nfour\n", "a line that is too long\n", "five\n"]
        );
        for (name, _) in &files[..3] {
            assert!(stamp_time(&name[6..29]).is_some() && &name[29..] == ".log.gz", "{name}");
        }
    }

    #[test]
    fn the_oldest_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.log");
        for name in [
            "proxy-2001-01-01T00-00-01.000.log.gz",
            "proxy-2001-01-01T00-00-02.000.log",
            "proxy-2001-01-01T00-00-02.000.log.gz",
            "proxy-2001-01-01T00-00-03.000.log",
            "proxy-notes.log",
            "other-2001-01-01T00-00-00.000.log",
        ] {
            fs::write(folder.path().join(name), "x\n").unwrap();
        }
        let limits = Limits { bytes: 4, backups: 2, age: Duration::ZERO };
        shelf(&path, limits).tidy(&AtomicBool::new(false)).unwrap();
        let names: Vec<_> = files(folder.path()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "other-2001-01-01T00-00-00.000.log",
                "proxy-2001-01-01T00-00-02.000.log.gz",
                "proxy-2001-01-01T00-00-03.000.log.gz",
                "proxy-notes.log",
            ]
        );
    }

    #[test]
    fn files_past_their_age_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.log");
        for (name, gone) in
            [("proxy-2001-01-01T00-00-00.000.log", true), ("proxy-notes.log", false)]
        {
            let file = folder.path().join(name);
            fs::write(&file, "old\n").unwrap();
            let limits = Limits { bytes: 4, backups: 0, age: Duration::from_hours(24) };
            shelf(&path, limits).tidy(&AtomicBool::new(false)).unwrap();
            assert_eq!(!file.exists(), gone, "{name}");
        }
    }

    #[test]
    fn a_stop_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxy-2001-01-01T00-00-00.000.log");
        fs::write(&file, "line\n").unwrap();
        compress(&file, &AtomicBool::new(true)).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(&file).unwrap(), "line\n");
    }
}
