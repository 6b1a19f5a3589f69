//! Who changed what: two lines of JSON for every change, one before it happens and one that says
//! what came of it, and one for whoever was not allowed to.
//!
//! They go to the log, under the target [`AUDIT`], at any level; and to a file, if there is one. A
//! change whose first line the file does not take does not happen.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tracing::{error, info};

use super::call::{Place, Role, Via, Who};
use crate::observability::log::AUDIT;

/// See the module.
pub(super) struct Audit {
    /// Locked while a line is written. `None`: there is no file.
    file: Option<Arc<Mutex<PathBuf>>>,
    last: AtomicU64,
}

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
    /// Opens the file, whose path may be empty, to see that it can be written.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = if path.as_os_str().is_empty() {
            None
        } else {
            open(&path)?;
            Some(Arc::new(Mutex::new(path)))
        };
        Ok(Self { file, last: AtomicU64::new(0) })
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

    /// Says what came of a change, or of one that was not allowed.
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
        let line = Line {
            time: Timestamp::now().to_string(),
            id: change.id,
            event,
            who: &change.who.name,
            via: change.who.via,
            role: change.who.role,
            from: change.from.to_string(),
            method: change.method.as_str(),
            path: &change.path,
            change: &change.told,
            status,
            message,
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

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
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
    async fn what_cannot_be_written_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        assert!(Audit::open(directory.path().join("nowhere/audit.jsonl")).is_err());
        let audit = Audit::open(path.clone()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(audit.begin(&change(&audit)).await.is_err());
        let none = Audit::open(PathBuf::new()).unwrap();
        none.begin(&change(&none)).await.unwrap();
    }
}
