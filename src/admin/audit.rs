//! Who changed what: two lines of JSON for every change, one before it happens and one that says
//! what came of it, and one for whoever was not allowed to.
//!
//! They go to the log, under the target [`AUDIT`], at any level; and to a file, if there is one. A
//! change whose first line the file does not take does not happen.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use rustix::fs::OFlags;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{error, info};

use super::call::{Place, Role, Via, Who};
use crate::observability::log::AUDIT;
use crate::values::BuildError;

/// See the module.
pub(super) struct Audit {
    /// Locked while a line is written. `None`: there is no file.
    file: Option<Arc<Mutex<PathBuf>>>,
    last: AtomicU64,
    /// What was refused to whom, since the first of it.
    refused: StdMutex<HashMap<String, Refusals>>,
}

/// What was refused to somebody.
struct Refusals {
    count: u64,
    began: Instant,
}

/// Refusals of one principal within [`WINDOW`] that have a line each.
const MOST: u64 = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// Most bytes of a path, a body or a message in a line.
const LONGEST: usize = 1024;
const IRREGULAR: &str = "it is no regular file";

/// A change, as its lines tell it.
#[derive(Debug, Clone)]
pub(super) struct Change {
    id: u64,
    pub(super) who: Who,
    pub(super) from: Place,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) told: Value,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    /// The same in both lines of a change, and in no others of this process.
    id: u64,
    event: &'static str,
    who: &'a str,
    via: Via,
    role: Role,
    from: String,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Value::is_null")]
    change: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

impl Audit {
    /// Opens the file, whose path may be empty, to see that it can be written: a regular one, since
    /// every change waits until its line is on the disk.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = if path.as_os_str().is_empty() {
            None
        } else {
            open(&path)?;
            Some(Arc::new(Mutex::new(path)))
        };
        Ok(Self { file, last: AtomicU64::new(0), refused: StdMutex::default() })
    }

    /// A change with a number of its own.
    pub(super) fn change(
        &self,
        who: Who,
        from: Place,
        method: Method,
        path: String,
        told: Value,
    ) -> Change {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        Change { id, who, from, method, path, told }
    }

    /// Says that a change is about to happen. With an error, it must not.
    pub(super) async fn begin(&self, change: &Change) -> io::Result<()> {
        self.write(change, "begin", None, "").await
    }

    /// Says that a change was not allowed. Who asks for many has one line for most of them, when
    /// [`WINDOW`] is over.
    pub(super) async fn refuse(self: &Arc<Self>, change: Change, status: u16, message: &str) {
        let count = {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let refusals =
                refused.entry(change.who.name.clone()).or_insert(Refusals { count: 0, began: now });
            if refusals.began.elapsed() >= WINDOW && refusals.count <= MOST {
                *refusals = Refusals { count: 0, began: now };
            }
            refusals.count += 1;
            refusals.count
        };
        if count <= MOST {
            // It does not happen anyway.
            let _ = self.end(&change, status, message).await;
        } else if count == MOST + 1 {
            let (audit, message) = (Arc::clone(self), message.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(WINDOW).await;
                audit.sum_up(change, status, &message).await;
            });
        }
    }

    /// One line for all that had none.
    async fn sum_up(&self, last: Change, status: u16, message: &str) {
        let refusals = {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.remove(&last.who.name)
        };
        let count = refusals.map_or(0, |refusals| refusals.count.saturating_sub(MOST));
        let message = format!("{message}: {count} such calls have no line of their own");
        let _ = self.end(&last, status, &message).await;
    }

    /// Says what came of a change.
    pub(super) async fn end(&self, change: &Change, status: u16, message: &str) -> io::Result<()> {
        self.write(change, "end", Some(status), message).await
    }

    async fn write(
        &self,
        change: &Change,
        event: &'static str,
        status: Option<u16>,
        message: &str,
    ) -> io::Result<()> {
        let shown = short(&change.told);
        let line = Line {
            time: Timestamp::now().to_string(),
            id: change.id,
            event,
            who: &change.who.name,
            via: change.who.via,
            role: change.who.role,
            from: change.from.to_string(),
            method: change.method.as_str(),
            path: &cut(&change.path),
            change: &shown,
            status,
            message: &cut(message),
        };
        let mut line = serde_json::to_string(&line).map_err(io::Error::other)?;
        info!(target: AUDIT, audit = %line, "admin");
        let Some(file) = &self.file else { return Ok(()) };
        line.push('\n');
        let path = Arc::clone(file).lock_owned().await;
        let written = tokio::task::spawn_blocking(move || append(&path, line.as_bytes())).await;
        let written = written.map_err(io::Error::other).and_then(|written| written);
        written.inspect_err(|error| error!(%error, "the audit log cannot be written"))
    }
}

/// What is wrong with the path of the file, as far as it shows without making one.
pub(super) fn check(path: &Path) -> Option<BuildError> {
    let found = path.metadata().ok()?;
    let message = format!("`{}`: {IRREGULAR}", path.display());
    (!found.is_file()).then(|| BuildError::at("auditLog", message))
}

/// Opens a regular file, and waits for nobody as a pipe would do.
fn open(path: &Path) -> io::Result<File> {
    let irregular = || io::Error::other(IRREGULAR);
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    let opened =
        OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path);
    let file = opened.map_err(|error| match path.metadata() {
        Ok(found) if !found.is_file() => irregular(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(irregular()) }
}

/// The beginning of a text that is too long for a line.
fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST {
        return text.into();
    }
    let kept = text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default();
    format!("{kept}…").into()
}

/// The same of a body, which is a text then.
fn short(body: &Value) -> Cow<'_, Value> {
    let text = body.to_string();
    match cut(&text) {
        Cow::Borrowed(_) => Cow::Borrowed(body),
        Cow::Owned(text) => Cow::Owned(Value::String(text)),
    }
}

/// Opens the file anew, so that one that was moved away is made again. Half a line is taken back.
fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut file = open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    let written = file.write_all(line).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = file.set_len(end);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use rustix::fs::{FileType, Mode};
    use serde_json::json;

    use super::*;

    fn change(audit: &Audit) -> Change {
        let who = Who { name: "ops".to_owned(), via: Via::Token, role: Role::Write };
        let from = Place::Address("127.0.0.1:5".parse().unwrap());
        let path = "/v1/bans/a@file/::1".to_owned();
        audit.change(who, from, Method::PUT, path, json!({"reason": "a\nb"}))
    }

    #[tokio::test]
    async fn both_lines_of_a_change_stand_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let audit = Audit::open(path.clone()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let first = change(&audit);
        audit.begin(&first).await.unwrap();
        audit.end(&first, 200, "").await.unwrap();
        fs::rename(&path, directory.path().join("old")).unwrap();
        audit.begin(&change(&audit)).await.unwrap();
        let lines = |name: &str| -> Vec<Value> {
            let text = fs::read_to_string(directory.path().join(name)).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let old = lines("old");
        assert_eq!(
            (old.len(), &old[0]["event"], &old[1]["event"]),
            (2, &json!("begin"), &json!("end"))
        );
        assert_eq!(
            (&old[0]["id"], &old[1]["id"], &old[1]["status"]),
            (&json!(1), &json!(1), &json!(200))
        );
        assert_eq!(old[0]["change"], json!({"reason": "a\nb"}));
        assert_eq!(
            (&old[0]["who"], &old[0]["via"], &old[0]["role"], &old[0]["from"]),
            (&json!("ops"), &json!("token"), &json!("write"), &json!("127.0.0.1:5"))
        );
        assert_eq!(lines("audit.jsonl")[0]["id"], 2);
    }

    #[tokio::test]
    async fn what_is_long_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let audit = Audit::open(path.clone()).unwrap();
        let mut long = change(&audit);
        long.path = "ä".repeat(9000);
        long.told = json!({"reason": "x".repeat(60_000)});
        audit.end(&long, 400, &"y".repeat(9000)).await.unwrap();
        let line = fs::read_to_string(&path).unwrap();
        assert!(line.len() < 4000, "{}", line.len());
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["path"], format!("{}…", "ä".repeat(512)));
        assert!(line["change"].as_str().unwrap().starts_with("{\"reason\":\"xxx"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_often_has_few_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let audit = Arc::new(Audit::open(path.clone()).unwrap());
        for _ in 0..100 {
            audit.refuse(change(&audit), 403, "no").await;
        }
        let mut other = change(&audit);
        "other".clone_into(&mut other.who.name);
        audit.refuse(other, 403, "no").await;
        let lines = || -> Vec<Value> {
            let text = fs::read_to_string(&path).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        assert_eq!(lines().len(), 11);
        assert_eq!(lines()[10]["who"], "other");
        while lines().len() < 12 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(lines()[11]["message"], "no: 90 such calls have no line of their own");
        audit.refuse(change(&audit), 403, "no").await;
        assert_eq!(lines().len(), 13);
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        assert!(Audit::open(directory.path().join("nowhere/audit.jsonl")).is_err());
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .unwrap();
        let reader = OpenOptions::new().read(true).custom_flags(0o4000).open(&pipe).unwrap();
        for irregular in [&pipe, &PathBuf::from("/dev/null"), &directory.path().to_owned()] {
            let error = Audit::open(irregular.clone()).err().unwrap();
            assert_eq!(error.to_string(), "it is no regular file", "{irregular:?}");
        }
        drop(reader);
        let error = Audit::open(pipe).err().unwrap();
        assert_eq!(error.to_string(), "it is no regular file");
        let audit = Audit::open(path.clone()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(audit.begin(&change(&audit)).await.is_err());
        let none = Audit::open(PathBuf::new()).unwrap();
        none.begin(&change(&none)).await.unwrap();
    }
}
